"""What a shard counts about itself: plain numbers, observed once a batch. Prometheus is one reader of them.

Everything is cumulative since the shard started, except the fields under "now". Imports numpy, records and
services.quality.
"""

from __future__ import annotations

import bisect
import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from services.quality.drift import RecentHistogram
from services.quality.prequential import RunningMetrics
from services.quality.rounds import Round
from services.records import Flag, Reason

if TYPE_CHECKING:
    from services.predictor.batcher import Batch

LATENCY_S = (0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
PHASE_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
PLACES = ("decode", "flush", "restore", "step")
"""Where an error that nobody foresaw can be one record's or one stream's."""
PHASES = ("poll", "decode", "batch", "forward", "encode", "commit")


@dataclass(slots=True)
class Histogram:
    """Counts of values at or below each bound; the last count is of those above all bounds."""

    bounds: tuple[float, ...]
    counts: NDArray[np.int64] = field(init=False)  # [len(bounds) + 1], not cumulative
    total: float = 0.0  # sum of the observed values

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.bounds) + 1, np.int64)

    def observe(self, values: ArrayLike | float) -> None:
        """Counts every value of the array, or the one value; one call a batch."""
        if isinstance(values, float | int):  # several times a turn: numpy's way costs ten times as much
            self.counts[bisect.bisect_left(self.bounds, values)] += 1
            self.total += values
            return
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


@dataclass(frozen=True, slots=True)
class Paired:
    """A closed round of losses, and of which two models."""

    champion: str
    challenger: str
    round: Round


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
    brought_over: int = 0  # streams that a model got to know by a replay of their latest readings
    swap_s: Histogram = field(default_factory=lambda: Histogram(PHASE_S))  # time between two epochs for a new champion
    internal_errors: dict[str, int] = field(default_factory=dict)  # records and streams set aside, by place
    lost: int = 0  # readings that retention deleted before they were read
    started_s: float = field(default_factory=time.time)  # wall clock; tells one life of the shard from another
    # now
    figures: RunningMetrics | None = None  # of the champion's forecasts
    challenger_figures: RunningMetrics | None = None
    inputs: RecentHistogram | None = None  # what readings look like at present
    ready: bool = False  # state restored and reading
    restore_done: float = 0.0  # share of the changelog read, 0..1
    lag: dict[int, int] = field(default_factory=dict)  # partition -> records not yet read
    lag_s: float = 0.0  # age of the oldest of them, at most; 0: all is read
    unreadable: dict[int, str] = field(default_factory=dict)  # partition that is set aside -> why
    away_s: float = 0.0  # for how long Kafka has not answered; 0: it answers
    live_streams: int = 0
    unreadable_streams: int = 0  # streams whose state row cannot be read; their readings are dead letters
    streams_used: float = 0.0  # of the streams that a partition may have, the share that the shard's fullest one has
    slots: int = 0
    slots_used: int = 0
    last_progress_s: float = 0.0  # wall clock (s since 1970) when the loop last got on: a turn, an epoch, a wave
    beats: int = 0  # how often it has got on; what the supervisor watches, for a wall clock may jump
    last_epoch_s: float = 0.0  # wall clock when an epoch was last kept; 0: none since the start
    dropped_in_row: int = 0  # epochs that were dropped since one was kept
    dropped_for: str = ""  # why the last commit failed that did
    gpu_total_bytes: int | None = None  # of the shard's GPU; None: it has none
    gpu_free_bytes: int | None = None  # of them, free for anyone
    gpu_own_bytes: int | None = None  # of them, reserved by this shard

    @property
    def phase_total_s(self) -> dict[str, float]:
        """Phase -> seconds that the loop has spent in it."""
        return {phase: seconds.total for phase, seconds in self.phase_s.items()}

    @property
    def set_aside(self) -> dict[int, int]:
        """Partition that cannot be read at present -> 1."""
        return dict.fromkeys(self.unreadable, 1)

    def count(self, batch: Batch, flags: NDArray[np.uint16], now_ms: int) -> None:
        """A batch whose epoch was kept, and its predictions' flags [n]."""
        self.readings += batch.readings
        for part in batch.parts:
            self.count_rejected(part.rejected.reasons)
        if batch.readings:
            self.batch_rows.observe(batch.readings)
            took_ms = now_ms - batch.column("arrived_ms").astype(np.float64)
            self.latency_s.observe(np.maximum(took_ms, 0) / 1000)  # a producer's clock may be ahead
            self.count_predictions(flags)

    def count_epoch(self, kept: bool, now_ms: int) -> None:
        """An epoch that was settled."""
        add(self.epochs, "kept" if kept else "dropped", 1)
        self.dropped_in_row = 0 if kept else self.dropped_in_row + 1
        self.last_epoch_s = now_ms / 1000 if kept else self.last_epoch_s

    def count_rejected(self, reasons: Sequence[Reason]) -> None:
        """Dead letters that were committed."""
        for reason in reasons:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def count_predictions(self, flags: NDArray[np.uint16]) -> None:
        """Predictions that were committed, by their flags [n]."""
        self.predictions += len(flags)
        for flag in Flag(int(np.bitwise_or.reduce(flags))):  # most batches have none or one
            add(self.flagged, (flag.name or "").lower(), int(np.count_nonzero(flags & flag.value)))

    def snapshot(self) -> ShardStats:
        """A copy that the loop will not change."""
        return copy.deepcopy(self)


def add(counts: dict[str, int], name: str, n: int) -> None:
    """Adds `n` to a counter that may not exist yet."""
    if n:
        counts[name] = counts.get(name, 0) + n
