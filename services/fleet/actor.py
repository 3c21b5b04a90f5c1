"""One Ray actor: a shard's loop in one thread, answers to the supervisor in another. Never called per reading."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

from services.fleet.model_loader import ModelUnfit
from services.fleet.status import (
    AssignmentResult,
    ExitReason,
    ModelAssignment,
    ShardEvent,
    ShardExit,
    ShardStatus,
    Stopped,
)
from services.predictor.ports import Fenced, Refused, Retriable
from services.predictor.stats import ShardStats
from services.redaction import remember, scrubbed
from services.settings import Settings

PLACED = ("unsettled", "settled", "models_activated", "shard_stopped")
"""Events that say how far the shard has read: partition -> offset of the first reading that is not folded in."""


class ShardActor:
    """Made by the supervisor with `ray.remote`; knows nothing of Ray itself. Made long before it is needed it is a
    spare: it has imported everything and owns nothing.
    """

    def __init__(self, settings: Settings, partitions: int, server: str, before: int = 0) -> None:
        from services.fleet import assembly

        assembly.preload()
        remember(settings.secrets())
        self._settings, self._partitions, self._server = settings, partitions, server
        self._before = before  # partitions of the readings before some were added; 0: none were
        self._shard_index = self._incarnation = -1
        self._stop = threading.Event()
        self._events: deque[ShardEvent] = deque(maxlen=1000)
        self._shard: Any = None
        self._traces: Any = None
        self._stats = ShardStats()
        self._assignment = ModelAssignment()
        # Champion, challenger and its share of the streams, that are to sit down before the next turn.
        self._loaded: tuple[Any, Any, float] | None = None
        self._ordering = threading.Lock()
        self._failed: tuple[str, str] | None = None  # a challenger that failed at its work, to be told
        self._problem = ""  # of the registry, said last

    def run(self, shard: int, incarnation: int, assignment: ModelAssignment) -> ShardExit:
        """The loop of one shard. Returns when it was stopped, fenced or refused; a crash is a value too."""
        self._shard_index, self._incarnation, self._assignment = shard, incarnation, assignment
        try:
            self._shard = self._build()
            self._stats = self._shard.stats
            self._shard.start()
            self._tell_moved()
            while not self._stop.is_set():
                self._activate()
                self._shard.turn()
            self._notify("shard_stopped", readings=self._stats.readings)
            return ShardExit(ExitReason.STOPPED)
        except Stopped:
            return ShardExit(ExitReason.STOPPED)
        except Fenced as error:
            return ShardExit(ExitReason.FENCED, str(error))
        except Refused as error:
            blamed = isinstance(error, ModelUnfit) and self._shard is None
            return ShardExit(ExitReason.REFUSED, str(error), assignment.champion if blamed else "")
        except Exception:
            return ShardExit(ExitReason.CRASHED, traceback.format_exc(limit=-12))
        finally:
            if self._shard is not None:
                self._shard.close()
            if self._traces is not None:
                self._traces.close()

    def _build(self) -> Any:
        from services.fleet.assembly import build_shard, device_of
        from services.fleet.model_loader import ModelLoader, RegistryAway

        self._device = device_of(self._settings.device)
        if self._settings.telemetry.traces is not None:
            from services.telemetry.traces import Traces

            self._traces = Traces(self._settings, self._shard_index, self._incarnation)
        self._loader = ModelLoader(self._settings, self._device)
        began_s = time.monotonic()
        while True:
            try:
                return build_shard(
                    self._settings,
                    self._shard_index,
                    self._partitions,
                    self._assignment,
                    self._loader,
                    server=self._server,
                    incarnation=self._incarnation,
                    pause=self._stop.wait,
                    notify=self._notify,
                    tracer=None if self._traces is None else self._traces.epoch,
                )
            except Retriable as error:
                event = "registry_problem" if isinstance(error, RegistryAway) else "broker_away"
                self._stats.away_s = time.monotonic() - began_s if event == "broker_away" else 0.0
                self._notify(event, error=str(error), retry_s=1.0)
                self._stop.wait(1.0)

    def _tell_moved(self) -> None:
        from services.predictor.moved import tell_moved

        if self._before and self._incarnation == 0:  # later ones would say it again
            tell_moved(self._shard.store, self._before, self._partitions, self._notify)

    def stop(self) -> None:
        """Asks the loop to end after the epoch it is in."""
        self._stop.set()

    def order(self, assignment: ModelAssignment) -> AssignmentResult:
        """Other models are to run. They are loaded here, beside the loop, which changes them between two epochs; where
        one cannot be run all stays as it is.
        """
        from services.fleet.assembly import misfit

        with self._ordering:
            shard = self._shard
            if shard is None or not self._stats.ready:
                return AssignmentResult()
            running = {
                deployed.model: deployed
                for deployed in (*shard.models.all(), *(self._loaded or ())[:2])
                if deployed is not None
            }
            models: list[Any] = []
            for model in filter(None, (assignment.champion, assignment.challenger)):
                try:
                    models.append(running[model] if model in running else self._loader.load(model, beside=True))
                    why = misfit(shard.engine.config, models[-1].engine.config)
                except Retriable as error:
                    if str(error) != self._problem:
                        self._problem = str(error)
                        self._notify("registry_problem", error=self._problem)
                    return AssignmentResult()
                except Refused as error:
                    why = str(error)
                if why:
                    self._notify("model_refused", model=model, reason=why)
                    return AssignmentResult(model=model, reason=why)
            self._problem = ""
            self._loaded = (models[0], models[1] if len(models) > 1 else None, assignment.share)
            return AssignmentResult(done=True)

    def _activate(self) -> None:
        models = self._shard.models
        if models.failed is not None:
            self._failed, models.failed = models.failed, None
            self._shard.deploy(models.champion, None)
            self._notify("model_refused", model=self._failed[0], reason=self._failed[1])
        if self._loaded is None:
            return
        with self._ordering:
            (champion, challenger, share), self._loaded = self._loaded, None
            self._shard.deploy(champion, challenger, share)
        self._notify("models_activated", champion=champion.model, challenger=challenger.model if challenger else "")

    def status(self) -> ShardStatus:
        """A copy of the numbers, and the events since the last call."""
        from services.fleet.assembly import see_gpu

        events = [self._events.popleft() for _ in range(len(self._events))]
        closed: deque[Any] = self._shard.outcomes.rounds if self._shard is not None else deque()
        rounds = [closed.popleft() for _ in range(len(closed))]
        if self._shard is not None:
            see_gpu(self._stats, self._device)
        spotlight = None if self._shard is None else self._shard.spotlight
        failed, self._failed = self._failed, None
        return ShardStatus(
            self._shard_index,
            self._incarnation,
            os.getpid(),
            socket.gethostname(),
            self._stats.snapshot(),
            events,
            rounds,
            [] if spotlight is None else spotlight.take(),
            failed,
        )

    def _notify(self, event: str, **fields: Any) -> None:
        if self._stop.is_set() and event in ("broker_away", "registry_problem", "changelog_held_open"):
            raise Stopped  # nothing is in flight that waiting could save
        if self._shard is not None:  # else nothing is read yet
            fields = {"epoch": sum(self._stats.epochs.values()), **fields}
            if event in PLACED:
                fields["position"] = dict(self._shard.position)
        self._events.append(ShardEvent(time.time(), event, fields))
        sys.stderr.write(f"{scrubbed(f'{event} {fields}')}\n")  # the actor's own log file, for what a SIGKILL cuts off
