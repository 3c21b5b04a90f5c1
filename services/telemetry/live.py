"""What the page shows, as a document that is made once a second however many people look, and not while nobody does.

Fed by the server's ticks, read by the threads of its port. Imports stats, the spotlight's points and codecs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from services.codecs import live_json as codec
from services.predictor.stats import LATENCY_S, ShardStats
from services.predictor.watched_streams import COLUMNS, Points
from services.quality.pipeline import PipelineStats

if TYPE_CHECKING:
    from services.telemetry.endpoint import Health

EVERY_S = 1.0
"""Age at which a document is made anew, and how often the page asks."""
WINDOW_S = 10
"""Readings per second and latency are of so many seconds."""
HISTORY = 120
"""Seconds of the small pictures."""
REMEMBERED = 8
"""Documents after which one can ask for what is new; for older ones one gets everything."""


@dataclass(slots=True)
class _Sample:
    at_s: float  # monotonic
    readings: int = 0
    latencies: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LATENCY_S) + 1, np.int64))


class Live:
    """`saw` what the shards say, a few times a second; `document` gives it to those who look."""

    def __init__(
        self,
        pipeline: str,
        streams: Sequence[str],
        health: Callable[[], Health],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline, self._streams, self._health, self._clock_s = pipeline, tuple(streams), health, clock_s
        self._lock = threading.Lock()
        self._points: dict[str, Points] = {}
        self._counts = dict.fromkeys(self._streams, 0)  # stream -> points so far
        self._stats: dict[int, ShardStats] = {}  # the newest of each shard, also of those that are gone
        self._up: set[int] = set()
        self._restarts: dict[int, dict[str, int]] = {}
        self._about = PipelineStats()
        self._now = _Sample(clock_s())
        self._samples: deque[_Sample] = deque([self._now], maxlen=HISTORY)
        self._model_since: tuple[str, float] = ("", 0.0)  # served model, wall clock at which it was first seen
        self._swap: tuple[str, float] | None = None  # the model before it, when it went
        self._life = f"{time.time_ns():x}"
        self._number, self._made_s = 0, -1.0
        self._marks: deque[tuple[str, dict[str, int]]] = deque(maxlen=REMEMBERED)
        self._shown_points: dict[str, Points] = {}  # as they were when the newest mark was made
        self._bodies: dict[str, bytes] = {}

    # ---- what the server says ---------------------------------------------------------------------------------------

    def saw(
        self,
        stats: Mapping[int, ShardStats],
        restarts: Mapping[int, Mapping[str, int]],
        about: PipelineStats,
        points: Sequence[Points],
    ) -> None:
        """The newest numbers; `restarts` names all shards that ought to be there. `points`: since the last call."""
        now_s = self._clock_s()
        with self._lock:
            self._count(stats, now_s)
            self._stats, self._about = {**self._stats, **stats}, about
            self._restarts = {shard: dict(causes) for shard, causes in restarts.items()}
            self._up = set(stats)
            for one in points:
                before = self._points.get(one.stream)
                self._points[one.stream] = one if before is None else before.then(one)
                self._counts[one.stream] = self._counts.get(one.stream, 0) + len(one)
            self._see_model(min((one.model for one in stats.values() if one.model), default=""))

    def latest(self) -> list[Points]:
        """The newest point of each stream in the spotlight that had one."""
        with self._lock:
            return [self._points[stream].last(1) for stream in self._streams if stream in self._points]

    def _count(self, stats: Mapping[int, ShardStats], now_s: float) -> None:
        readings, latencies = self._now.readings, self._now.latencies.copy()
        for shard, one in stats.items():
            before = self._stats.get(shard)
            same_life = before is not None and before.started_s == one.started_s
            readings += one.readings - (before.readings if before is not None and same_life else 0)
            latencies += one.latency_s.counts
            if before is not None and same_life:
                latencies -= before.latency_s.counts
        self._now = _Sample(now_s, readings, latencies)
        if now_s - self._samples[-1].at_s >= EVERY_S:
            self._samples.append(self._now)

    def _see_model(self, model: str) -> None:
        before, _ = self._model_since
        if model and model != before:
            self._model_since = (model, time.time())
            if before:
                self._swap = (before, time.time())

    # ---- what people see --------------------------------------------------------------------------------------------

    def document(self, after: str = "") -> bytes:
        """JSON. `after` is the `mark` of an earlier document, of which only newer points are wanted."""
        with self._lock:
            if self._made_s < 0 or self._clock_s() - self._made_s >= EVERY_S:
                self._made_s = self._clock_s()
                self._number += 1
                self._marks.append((f"{self._life}-{self._number}", dict(self._counts)))
                self._bodies, self._shown, self._shown_points = {}, self._numbers(), dict(self._points)
            known = next((counts for mark, counts in self._marks if mark == after), None)
            after = after if known is not None else ""
            if after not in self._bodies:
                whole = {**self._shown, "after": after or None, "spotlight": self._spotlight(known)}
                self._bodies[after] = codec.encode(whole)
            return self._bodies[after]

    def _numbers(self) -> dict[str, Any]:
        stats, health = [self._stats[shard] for shard in sorted(self._up)], self._health()
        model, since_s = self._model_since
        registered_s = self._about.champion_since_s
        return {
            "mark": self._marks[-1][0],
            "every_ms": round(EVERY_S * 1000),
            "at_ms": time.time_ns() // 1_000_000,
            "pipeline": self._pipeline,
            "version": metadata.version("streamrnn"),
            "ready": health.alive and not health.unready,
            "reasons": health.unready,
            "readings": self._now.readings,
            "rejected": sum(sum(one.rejected.values()) for one in stats),
            **self._speed(self._now, self._before(WINDOW_S)),
            "lag": sum(sum(one.lag.values()) for one in stats),
            "lag_s": max((one.lag_s for one in stats), default=0.0),
            "streams": sum(one.live_streams for one in stats),
            "model": model,
            "model_since_ms": round(1000 * (registered_s or since_s)) or None,
            "swap": None if self._swap is None else {"from": self._swap[0], "at_ms": round(1000 * self._swap[1])},
            "challenger": next((one.challenger for one in stats if one.challenger), ""),
            "retraining": self._about.retraining,
            "drift": self._about.drift,
            "shards": [self._shard(shard) for shard in sorted(self._restarts.keys() | self._stats.keys())],
            "history": self._history(),
        }

    def _shard(self, shard: int) -> dict[str, Any]:
        one = self._stats.get(shard)
        restarts = sum(self._restarts.get(shard, {}).values())
        if one is None or shard not in self._up:
            return {"shard": shard, "state": "starting", "restarts": restarts}
        return {
            "shard": shard,
            "state": "ready" if one.ready else "restoring",
            "restored": one.restore_done,
            "restarts": restarts,
            "model": one.model,
            "partitions": sorted(one.lag),
            "lag": sum(one.lag.values()),
            "streams": one.live_streams,
            "readings": one.readings,
            "dropped": one.epochs["dropped"],
        }

    def _before(self, seconds: float) -> _Sample:
        """The newest sample that is that old, or the oldest."""
        found = self._samples[0]
        for one in self._samples:
            if self._now.at_s - one.at_s < seconds:
                break
            found = one
        return found

    @staticmethod
    def _speed(now: _Sample, before: _Sample) -> dict[str, float | None]:
        passed_s, latencies = now.at_s - before.at_s, now.latencies - before.latencies
        return {
            "readings_per_s": (now.readings - before.readings) / passed_s if passed_s > 0 else 0.0,
            "p50_ms": quantile_ms(latencies, 0.5),
            "p99_ms": quantile_ms(latencies, 0.99),
        }

    def _history(self) -> dict[str, list[float | None]]:
        samples = list(self._samples)
        steps = [self._speed(now, before) for before, now in pairwise(samples)]
        return {name: [step[name] for step in steps] for name in ("readings_per_s", "p50_ms", "p99_ms")}

    def _spotlight(self, known: Mapping[str, int] | None) -> list[dict[str, Any]]:
        # What came after the mark belongs to the next document: whoever asks for what is newer than it gets it there.
        found, counts = [], self._marks[-1][1]
        for stream in self._streams:
            count, points = counts[stream], self._shown_points.get(stream)
            shown: dict[str, Any] = {"stream": stream, "count": count, "targets": ()}
            if points is not None:
                points = points.last(count if known is None else count - known.get(stream, 0))
                shown["targets"] = points.targets
                for name in COLUMNS:
                    shown[name] = np.ascontiguousarray(getattr(points, name))
            found.append(shown)
        return found


def quantile_ms(counts: NDArray[np.int64], q: float) -> float | None:
    """Quantile of latencies counted by LATENCY_S [bounds + 1], straight within a bucket; None: nothing was counted.
    Above all bounds it is the last one.
    """
    n = int(counts.sum())
    if n <= 0:
        return None
    ends = np.cumsum(counts)
    bucket = int(np.searchsorted(ends, q * n, side="left"))
    if bucket >= len(LATENCY_S):
        return 1000 * LATENCY_S[-1]
    low = LATENCY_S[bucket - 1] if bucket else 0.0
    inside = (q * n - (ends[bucket] - counts[bucket])) / counts[bucket]
    return float(1000 * (low + inside * (LATENCY_S[bucket] - low)))
