"""What a shard counts about itself: plain numbers, observed once a batch. Prometheus is one reader of them.

Everything is cumulative since the shard started, except the fields under "now". Imports numpy and records only.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from services.records import Reason

LATENCY_S = (0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
PHASE_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
PHASES = ("poll", "decode", "batch", "forward", "encode", "commit")


@dataclass(slots=True)
class Histogram:
    """Counts of values at or below each bound; the last count is of those above all bounds."""

    bounds: tuple[float, ...]
    counts: NDArray[np.int64] = field(init=False)  # [len(bounds) + 1], not cumulative
    total: float = 0.0  # sum of the observed values

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.bounds) + 1, np.int64)

    def observe(self, values: ArrayLike) -> None:
        """Counts every value of the array; one call a batch."""
        flat = np.atleast_1d(np.asarray(values, np.float64))
        where = np.searchsorted(self.bounds, flat, side="left")
        self.counts += np.bincount(where, minlength=len(self.counts))
        self.total += float(flat.sum())

    def quantile(self, q: float) -> float:
        """Upper bound of the bucket that holds quantile `q`; NaN before the first value, inf above all bounds."""
        n = int(self.counts.sum())
        if n == 0:
            return float("nan")
        bucket = int(np.searchsorted(np.cumsum(self.counts), q * n, side="left"))
        return float(self.bounds[bucket]) if bucket < len(self.bounds) else float("inf")


@dataclass(slots=True)
class ShardStats:
    """One shard's numbers; `snapshot()` is what leaves the actor."""

    model: str = ""  # the champion's id
    challenger: str = ""  # the id of the model that runs beside it; empty: none
    readings: int = 0  # accepted and committed
    predictions: int = 0  # committed
    flushed: int = 0  # of these, sent because their stream fell silent
    rejected: dict[Reason, int] = field(default_factory=dict)  # committed dead letters
    flagged: dict[str, int] = field(default_factory=dict)  # committed predictions by flag
    epochs: dict[str, int] = field(default_factory=lambda: {"kept": 0, "dropped": 0})
    evictions: dict[str, int] = field(default_factory=lambda: {"spilled": 0, "idle": 0})
    replayed: int = 0  # readings recognised as folded in already (at-least-once only)
    restored: int = 0  # state rows read from the changelog at the start
    restore_s: float = 0.0
    latency_s: Histogram = field(default_factory=lambda: Histogram(LATENCY_S))  # reading's Kafka timestamp -> commit
    phase_s: dict[str, Histogram] = field(default_factory=lambda: {phase: Histogram(PHASE_S) for phase in PHASES})
    batch_rows: Histogram = field(default_factory=lambda: Histogram(tuple(float(n) for n in ROWS)))
    # now
    ready: bool = False  # state restored and reading
    restore_done: float = 0.0  # share of the changelog read, 0..1
    lag: dict[int, int] = field(default_factory=dict)  # partition -> records not yet read
    live_streams: int = 0
    slots: int = 0
    slots_used: int = 0
    last_progress_s: float = 0.0  # wall clock (s since 1970) when a turn last ended

    def snapshot(self) -> ShardStats:
        """A copy that the loop will not change."""
        return copy.deepcopy(self)


def add(counts: dict[str, int], name: str, n: int) -> None:
    """Adds `n` to a counter that may not exist yet."""
    if n:
        counts[name] = counts.get(name, 0) + n
