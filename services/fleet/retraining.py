"""When a new model is trained, and what becomes of it: on a schedule or on drift, one at a time, as a task of Ray.

A retraining runs in processes of its own, which step back behind those that serve, and for a limited time. Whatever
happens to it, shards go on. Its model is added to the registry and challenges the champion. Imports ray inside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.quality.drift import Drift
from services.settings import Settings

HOUR_S = 3600.0
GRACE_S = 120.0
"""So much later than its own limit a retraining that has not ended is ended from here."""

LOOK_S = 5.0
"""Between two looks at how far the one under way has come."""

Notify = Callable[..., None]


class Retraining:
    """Of one pipeline. `tick` every second or so."""

    def __init__(self, settings: Settings, notify: Notify, clock_s: Callable[[], float] = time.time) -> None:
        self._settings, self._rules, self._notify, self._clock_s = settings, settings.retrain, notify, clock_s
        self._due_s = self._next_s()
        self._running: Any = None
        self._began_s = self._drift_from_s = 0.0
        self._looked_s = 0.0
        self.passed: dict[str, Any] = {}  # the newest pass of the one under way, where its folder is at hand
        self.retrained_s = 0.0  # wall clock
        self.outcomes: dict[str, int] = {}

    @property
    def every_s(self) -> float:
        """Time between the next two by schedule; 0: there is none."""
        return 0.0 if self._due_s is None else (self._next_s(self._due_s) or 0.0) - self._due_s

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._running is not None

    def tick(self, champion: str, drifts: Sequence[Drift], on_trial: bool = False) -> Any:
        """Begins one that is due. Returns the RetrainingResult of one that has ended with a model, else None. While a
        model is `on_trial` drift begins none: the drift may be what that model has learned.
        """
        if self._running is not None:
            return self._look()
        reason = self._due([] if on_trial else drifts)
        if reason:
            self._begin(champion, reason)
        return None

    def stop(self) -> None:
        """Ends the one under way, and says so."""
        if self._running is not None:
            self._cancel()
            self._running, self.passed = None, {}
            message = "the fleet that began it has ended: the server stops, or starts it anew"
            self._notify("retrained", end="cancelled", message=message, seconds=self._seconds())

    def _due(self, drifts: Sequence[Drift]) -> str:
        """Why one should begin now; empty: it should not."""
        now_s = self._clock_s()
        if self._due_s is not None and now_s >= self._due_s:
            self._due_s = self._next_s()
            return f"schedule {self._rules.cron}"
        drifted = [one for one in drifts if one.drifted]
        since_s = min((one.since_ms / 1000 for one in drifted if one.since_ms is not None), default=math.inf)
        settled = now_s >= since_s + self._rules.settle_h * HOUR_S
        if self._rules.on_drift and settled and now_s >= self._drift_from_s:
            said = ", ".join(
                f"{one.name} ({one.measure} {one.value:.3g}, above {one.threshold:.3g})" for one in drifted
            )
            return f"drift of {said}"[:500]
        return ""

    def _next_s(self, after_s: float | None = None) -> float | None:
        if self._rules.cron is None:
            return None
        from cronsim import CronSim

        after_s = self._clock_s() if after_s is None else after_s
        return next(CronSim(self._rules.cron, datetime.fromtimestamp(after_s, UTC))).timestamp()

    def _begin(self, champion: str, reason: str) -> None:
        import ray

        from services.fleet.ray_runtime import yielding
        from services.trainer.job import RetrainRequest, retrain
        from services.trainer.ranges import asked

        rules, where = self._rules, self._settings.registry
        assert where is not None
        order = RetrainRequest(
            runs=rules.runs or Path("runs"),
            parent=champion,
            registry=where,
            asked=asked(last=rules.last),
            archive=rules.archive,
            workers=rules.workers,
            gpus=self._settings.fleet.gpus_per_shard > 0,
            warm=rules.warm,
            recipe=rules.recipe,
            niceness=rules.niceness,
            limit_s=rules.limit_minutes * 60,
            reason=reason,
            by="streamrnn serve",
        )
        self._began_s = self._clock_s()
        self._drift_from_s = self._began_s + rules.rest_h * HOUR_S
        remote: Any = ray.remote
        task = remote(num_cpus=0, max_retries=0, runtime_env=yielding(rules.niceness))(retrain)
        self._running = task.remote(self._settings, order)
        self._notify("retraining", reason=reason, workers=rules.workers, last=rules.last)

    def _look(self) -> Any:
        import ray

        ended, _ = ray.wait([self._running], timeout=0)
        if not ended:
            self._look_at_passes()
            if self._clock_s() > self._began_s + self._rules.limit_minutes * 60 + GRACE_S:
                self._cancel()
                self._ended("timed_out", "it did not end at its limit", None)
            return None
        try:
            outcome = ray.get(self._running)
        except ray.exceptions.RayError as error:  # its process is gone
            self._ended("failed", " ".join(str(error).split())[:300], None)
            return None
        self._ended(str(outcome.end), outcome.message, outcome)
        return outcome if outcome.model else None

    def _look_at_passes(self) -> None:
        from services.trainer.runs import latest_pass

        if time.monotonic() >= self._looked_s + LOOK_S:
            self._looked_s = time.monotonic()
            self.passed = latest_pass(self._rules.runs or Path("runs"), round(self._began_s * 1000))

    def _ended(self, end: str, message: str, outcome: Any) -> None:
        self._running, self.passed = None, {}
        self.outcomes[end] = self.outcomes.get(end, 0) + 1
        told = {} if outcome is None else {
            "model": outcome.model, "run": outcome.run, "readings": outcome.readings, "scores": dict(outcome.scores),
        }  # fmt: skip
        if outcome is not None and outcome.model:
            self.retrained_s = self._clock_s()
        self._notify("retrained", end=end, message=message, seconds=self._seconds(), **told)

    def _seconds(self) -> float:
        return round(self._clock_s() - self._began_s, 1)

    def _cancel(self) -> None:
        import ray

        ray.cancel(self._running, force=True)
