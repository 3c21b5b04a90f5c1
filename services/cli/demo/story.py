"""What happened in a run of the demo, and when: the server's own events, and the log of the training it began."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Moment:
    """One event."""

    event: str
    at_ms: int  # wall clock
    fields: dict[str, Any]


class Story:
    """Hears of events from any thread."""

    def __init__(self, runs: Path) -> None:
        """`runs` is the folder of `retrain.runs`."""
        self._runs = runs
        self._moments: list[Moment] = []
        self._told = 0
        self._lock = threading.Lock()
        self._read: dict[Path, int] = {}  # log -> bytes read
        self.passed: dict[str, Any] | None = None  # the latest pass of the training

    def heard(self, event: str, **fields: Any) -> None:
        """Of the server, as its `notify`."""
        with self._lock:
            self._moments.append(Moment(event, time.time_ns() // 1_000_000, fields))

    def news(self) -> list[Moment]:
        """What has happened since the last call."""
        self._look_at_runs()
        with self._lock:
            fresh, self._told = self._moments[self._told :], len(self._moments)
        return fresh

    def first(self, event: str, after_ms: int = 0, **fields: Any) -> Moment | None:
        """The first such moment after a time; None: there was none."""
        with self._lock:
            return next(
                (
                    one
                    for one in self._moments
                    if one.event == event and one.at_ms >= after_ms and fields.items() <= one.fields.items()
                ),
                None,
            )

    def all(self, event: str) -> list[Moment]:
        """Every such moment."""
        with self._lock:
            return [one for one in self._moments if one.event == event]

    def _look_at_runs(self) -> None:
        """A training's beginning, workers and passes, from its log: it runs in other processes."""
        for log in self._runs.glob("*/events.jsonl"):
            with log.open("rb") as file:
                file.seek(self._read.get(log, 0))
                lines = file.read()
            whole = lines[: lines.rfind(b"\n") + 1]  # the last line may be half written
            self._read[log] = self._read.get(log, 0) + len(whole)
            for line in whole.splitlines():
                fields = json.loads(line)
                event = fields.pop("event")
                if event == "pass":
                    self.passed = fields
                elif event in ("begun", "starting", "worker"):
                    self.heard(event, **fields)
