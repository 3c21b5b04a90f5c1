"""The demo's consumer: what every reading's prediction was, how often it came and how late. Trusts nothing else."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.cli.demo.replay import Replay

RECENT = 20_000
"""Latencies the live view looks back over."""


class Tally:
    """Counts predictions by the row of the series they belong to, read-committed."""

    def __init__(self, replay: Replay, std: NDArray[np.float32]) -> None:
        """`std` [features] or [rows, features]: what errors are measured in; of the training part, so that they are in
        the units of the published table.
        """
        rows, features = replay.x.shape
        self._replay, self._std = replay, np.broadcast_to(std, replay.x.shape)
        self.times = np.zeros(rows, np.int16)  # [rows], predictions seen
        self.latency_ms = np.full(rows, np.nan, np.float32)  # [rows], producer's send -> consumer's receive
        self.y = np.full((rows, features), np.nan, np.float32)
        self.lo = np.full((rows, features), np.nan, np.float32)
        self.hi = np.full((rows, features), np.nan, np.float32)
        self.score = np.full(rows, np.nan, np.float32)
        self.offset = np.full(rows, -1, np.int64)  # [rows], of the reading in its partition
        self.model = np.full(rows, -1, np.int8)  # [rows], which of `models` said it
        self.models: list[str] = []  # ids, as they first came
        self.disorder = 0  # predictions that came before an earlier one of their stream
        self._last = np.full(replay.streams, -1, np.int64)  # [streams], newest row seen
        self._recent: list[NDArray[np.float32]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def predictions(self) -> int:
        """Predictions seen, doubles counted."""
        return int(self.times.sum())

    @property
    def lost(self) -> int:
        """Readings that were sent and have no prediction."""
        return int(((self.times == 0) & (self._replay.sent_ms > 0)).sum())

    @property
    def doubled(self) -> int:
        """Predictions beyond the first of a reading."""
        return int(np.maximum(self.times - 1, 0).sum())

    def start(self, source: Any) -> None:
        """Reads `source` (an open predictor.ports.Source on the predictions topic) in a thread of its own."""
        self._thread = threading.Thread(target=self._run, args=(source,), name="tally", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes the source."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, source: Any) -> None:
        from services.codecs import predictions

        source.seek(source.beginning())
        while not self._stop.is_set():
            for records in source.poll(20_000, 0.1):
                now_ms = time.time_ns() // 1_000_000
                self._take(predictions.decode(records), now_ms)
        source.close()

    def _take(self, seen: Any, now_ms: int) -> None:
        replay = self._replay
        rows = replay.rows(seen.streams, seen.at_ms)
        np.add.at(self.times, rows, 1)
        self.y[rows], self.score[rows], self.offset[rows] = seen.y, seen.score, seen.offsets
        self.models += [model for model in dict.fromkeys(seen.models) if model not in self.models]
        self.model[rows] = [self.models.index(model) for model in seen.models]
        if seen.lo is not None:
            self.lo[rows], self.hi[rows] = seen.lo, seen.hi
        late = (now_ms - replay.sent_ms[rows]).astype(np.float32)
        self.latency_ms[rows] = late
        self._recent = [*self._recent[-50:], late]
        streams = rows // replay.steps
        for stream in np.unique(streams).tolist():
            mine = rows[streams == stream]
            self.disorder += int((np.diff(mine, prepend=self._last[stream]) <= 0).sum())
            self._last[stream] = mine[-1]

    def recent_ms(self) -> tuple[float, float]:
        """p50 and p99 of the last predictions' latencies, in ms; NaN before the first."""
        if not self._recent:
            return float("nan"), float("nan")
        recent = np.concatenate(self._recent)[-RECENT:]
        p50, p99 = np.percentile(recent, [50, 99])
        return float(p50), float(p99)

    def errors(self, among: NDArray[np.int64] | None = None) -> tuple[float, float, float]:
        """MSE of the predictions, MSE of persistence (z-scored) and the band's coverage, over what has come so far, or
        of what has come among these rows [k].
        """
        replay = self._replay
        row = np.flatnonzero(self.times > 0) if among is None else among[self.times[among] > 0]
        row = row[(row + 1) % replay.steps != 0]
        now, truth = replay.x[row], replay.x[row + 1]
        both = np.isfinite(now) & np.isfinite(truth) & np.isfinite(self.y[row])
        if not both.any():
            return float("nan"), float("nan"), float("nan")
        scale = self._std[row + 1][both]
        mse = float(np.mean(((self.y[row][both] - truth[both]) / scale) ** 2, dtype=np.float64))
        persistence = float(np.mean(((now[both] - truth[both]) / scale) ** 2, dtype=np.float64))
        inside = (self.lo[row][both] <= truth[both]) & (truth[both] <= self.hi[row][both])
        return mse, persistence, float(inside.mean())
