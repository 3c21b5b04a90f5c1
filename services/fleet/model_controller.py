"""The thread that follows the registry and the models' quality: its reads may take long, and the supervisor must not
wait for them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from services.fleet.events import Events
from services.fleet.retraining import Retraining
from services.fleet.rollout import Rollout
from services.fleet.status import ModelAssignment
from services.predictor.stats import Paired, ShardStats
from services.quality.pipeline import DriftWatch, PipelineStats, worst
from services.settings import Settings

LOOK_S = 1.0
QUALITY_S = 10.0
"""How often the champion's figures are written to the topic of events."""
LEAVE_S = 8.0
"""How long a look under way may take when the fleet ends."""


def follow(settings: Settings, shards: int, notify: Callable[..., None]) -> ModelController:
    """Reads the registry once and begins to follow it. Raises Refused where that cannot be."""
    from services.registry import Registry

    events = Events(settings.kafka, settings.topics.events, notify)
    both = events.also(notify)
    rollout = Rollout(Registry(settings.registry or ""), settings, shards, both)
    rollout.open()
    return ModelController(rollout, Retraining(settings, both), events, both)


class ModelController:
    """Looks at the registry every LOOK_S. What it is told is taken in at the next look."""

    def __init__(self, rollout: Rollout, retraining: Retraining, events: Events, notify: Callable[..., None]) -> None:
        self._rollout, self._retraining, self._events, self._notify = rollout, retraining, events, notify
        self._quality_s = time.monotonic()
        self._drift = DriftWatch()
        self._stats: dict[int, ShardStats] = {}
        self._rounds: deque[Paired] = deque()
        self._refused: deque[tuple[str, str]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamrnn-following", daemon=True)
        self._thread.start()

    def assignment(self, shard: int) -> ModelAssignment:
        """What a shard is to run now."""
        return self._rollout.assignment(shard)

    def heard(self, rounds: Sequence[Paired]) -> None:
        """Rounds that a shard has closed."""
        self._rounds.extend(rounds)

    def refused(self, model: str, reason: str) -> None:
        """A shard cannot run this model."""
        self._refused.append((model, reason))
        self._events.told("model_refused", model=model, reason=reason)

    def leave(self) -> None:
        """Asks the thread to end after the look under way, with what that look may have begun."""
        self._stop.set()

    def stop(self) -> None:
        """Ends the thread; waits for it for LEAVE_S."""
        self.leave()
        self._thread.join(LEAVE_S)
        if self._thread.is_alive():
            self._notify("following_failed", error=f"a look under way has not ended within {LEAVE_S:g} s")

    def saw(self, stats: Mapping[int, ShardStats]) -> None:
        """The shards' newest numbers."""
        self._stats = dict(stats)

    def stats(self) -> PipelineStats:
        """What is known of the pipeline now."""
        rollout, retraining = self._rollout, self._retraining
        passed = retraining.passed
        verdict = rollout.standing
        figures = ("gain", "gain_low", "gain_high", "readings")
        return PipelineStats(
            champion_since_s=rollout.changed_ms / 1000,
            verdicts=dict(rollout.verdicts),
            contest={} if verdict is None else {name: float(getattr(verdict, name)) for name in figures},
            drift=worst(self._drift.drifts),
            retrainings=dict(retraining.outcomes),
            retraining=retraining.running,
            retraining_done=passed["number"] / passed["passes"] if passed else 0.0,
            retraining_loss={part: passed[f"{part}_loss"] for part in ("validation", "baseline")} if passed else {},
            retrained_s=retraining.retrained_s,
            retrain_every_s=retraining.every_s,
        )

    def _run(self) -> None:
        said = ""
        while not self._stop.wait(LOOK_S):
            try:
                self._rollout.heard([self._rounds.popleft() for _ in range(len(self._rounds))])
                while self._refused:
                    self._rollout.refused(*self._refused.popleft())
                self._rollout.look()
                self._watch()
                self._events.flush()
            except Exception as error:  # models are looked after beside serving; what fails here must never end it
                if (problem := f"{type(error).__name__}: {error}"[:300]) != said:
                    said = problem
                    self._notify("following_failed", error=problem)
        try:
            self._retraining.stop()
        finally:
            self._events.flush()
            self._events.close()

    def _watch(self) -> None:
        """Drift, and what follows from it."""
        rollout = self._rollout
        champion = "" if rollout.aliases is None else rollout.aliases.champion or ""
        stats = [one for one in self._stats.values() if one.model == champion]
        inputs = [one.inputs for one in stats if one.inputs is not None]
        figures = [one.figures for one in stats if one.figures is not None]
        before = {(one.name, one.measure) for one in self._drift.drifts if one.drifted}
        for one in self._drift.look(champion, inputs, figures, time.time_ns() // 1_000_000):
            if one.drifted and (one.name, one.measure) not in before:
                self._notify("drift", name=one.name, measure=one.measure, value=round(one.value, 4),
                             threshold=round(one.threshold, 4))  # fmt: skip
        if figures and time.monotonic() >= self._quality_s + QUALITY_S:
            self._quality_s = time.monotonic()
            whole = sum(figures[1:], figures[0])
            by_step = {str(step): whole.figures(step, present=True) for step in whole.steps}
            self._events.told("quality", model=champion, steps=by_step)
        outcome = self._retraining.tick(champion, self._drift.drifts, rollout.on_trial)
        if outcome is not None:
            rollout.challenge(outcome.model, outcome.message, dict(outcome.scores))
