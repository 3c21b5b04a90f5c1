"""The demo's producer: the last part of a series as many streams, written to Kafka at a steady rate."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TICK_S = 0.02


class Replay:
    """Time slices of one series as streams: slice s is stream `house-<s>`. All streams advance together."""

    def __init__(self, x: NDArray[np.float32], at_ms: NDArray[np.int64], streams: int, partitions: int) -> None:
        """`x` [rows, features] with NaN = missing, `at_ms` [rows] increasing within each stream; rows must be a
        multiple of `streams`.
        """
        self.steps = len(x) // streams
        self.streams, self.partitions = streams, partitions
        self.x, self.at_ms = x[: self.steps * streams], at_ms[: self.steps * streams]
        self.names = [b"house-%0*d" % (len(str(streams - 1)), stream) for stream in range(streams)]
        self._number = {name: stream for stream, name in enumerate(self.names)}
        self._first_ms = int(self.at_ms.min())
        self._span_ms = int(self.at_ms.max()) - self._first_ms + 1
        self._place = np.repeat(np.arange(streams), self.steps) * self._span_ms + self.at_ms - self._first_ms
        self.sent_ms = np.zeros(len(self.x), np.int64)  # [rows], 0 = not yet
        self.sent = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None

    @property
    def readings(self) -> int:
        """How many readings the replay consists of."""
        return len(self.x)

    def rows(self, streams: Sequence[bytes], at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n], where the readings of these streams [n] at these times [n] stand."""
        number = np.array([self._number[name] for name in streams], np.int64)
        row: NDArray[np.int64] = np.searchsorted(self._place, number * self._span_ms + at_ms - self._first_ms)
        return row

    def start(self, producer: Any, topic: str, per_s: float) -> None:
        """Writes at `per_s` readings a second in a thread of its own."""
        self._thread = threading.Thread(target=self._run, args=(producer, topic, per_s), name="replay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; what was written stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def value(self, row: int) -> bytes:
        """A reading as JSON, in the contract's list form."""
        x = [None if np.isnan(v) else round(float(v), 3) for v in self.x[row]]
        return json.dumps({"at": int(self.at_ms[row]), "x": x}, separators=(",", ":")).encode()

    def _run(self, producer: Any, topic: str, per_s: float) -> None:
        try:
            self._write(producer, topic, per_s)
        except Exception as error:  # shown by the view, which watches `error`
            self.error = error

    def _write(self, producer: Any, topic: str, per_s: float) -> None:
        began = time.monotonic()
        while self.sent < self.readings and not self._stop.is_set():
            due = min(self.readings, int((time.monotonic() - began + TICK_S) * per_s))
            by_partition: dict[int, list[int]] = {}
            for i in range(self.sent, due):
                step, stream = divmod(i, self.streams)
                by_partition.setdefault(stream % self.partitions, []).append(stream * self.steps + step)
            now_ms = time.time_ns() // 1_000_000
            for partition, rows in by_partition.items():
                keys = [self.names[row // self.steps] for row in rows]
                producer.append(topic, partition, keys, [self.value(row) for row in rows], now_ms)
                self.sent_ms[rows] = now_ms
            producer.flush()
            self.sent = max(self.sent, due)
            self._stop.wait(TICK_S)
