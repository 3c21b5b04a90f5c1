"""What a shard counts about itself: plain numbers, observed once a batch. Prometheus is one reader of them.

Everything is cumulative since the shard started, except the fields under "now". Imports numpy, records and
services.quality.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from services.quality.drift import Recent
from services.quality.prequential import Figures
from services.quality.rounds import Round
from services.records import Flag, Reason

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
    # now
    figures: Figures | None = None  # of the champion's forecasts
    challenger_figures: Figures | None = None
    inputs: Recent | None = None  # what readings look like at present
    ready: bool = False  # state restored and reading
    restore_done: float = 0.0  # share of the changelog read, 0..1
    lag: dict[int, int] = field(default_factory=dict)  # partition -> records not yet read
    live_streams: int = 0
    slots: int = 0
    slots_used: int = 0
    last_progress_s: float = 0.0  # wall clock (s since 1970) when a turn last ended

    @property
    def scored(self) -> dict[str, int]:
        """Step -> values that forecasts were compared with."""
        return {step: int(found["n"]) for step, found in _each(self.figures, present=False)}

    @property
    def mse(self) -> dict[str, float]:
        """Step -> present mean squared error of the champion's forecasts, in units of the data's variance."""
        return _known("mse", self.figures)

    @property
    def mae(self) -> dict[str, float]:
        """Step -> present mean absolute error, in standard deviations."""
        return _known("mae", self.figures)

    @property
    def persistence_mse(self) -> dict[str, float]:
        """Step -> what saying that nothing changes would have cost on the same readings."""
        return _known("persistence_mse", self.figures)

    @property
    def pinball(self) -> dict[str, float]:
        """Step -> present mean pinball loss of the band's edges."""
        return _known("pinball", self.figures)

    @property
    def coverage(self) -> dict[str, float]:
        """Step -> present share of truths inside the band."""
        return _known("coverage", self.figures)

    @property
    def challenger_mse(self) -> dict[str, float]:
        """As `mse`, of the model that runs in shadow."""
        return _known("mse", self.challenger_figures)

    def count_rejected(self, reasons: Sequence[Reason]) -> None:
        """Dead letters that were committed."""
        for reason in reasons:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def count_predictions(self, flags: NDArray[np.uint16]) -> None:
        """Predictions that were committed, by their flags [n]."""
        self.predictions += len(flags)
        for flag in Flag:
            add(self.flagged, (flag.name or "").lower(), int((flags & flag.value > 0).sum()))

    def snapshot(self) -> ShardStats:
        """A copy that the loop will not change."""
        return copy.deepcopy(self)


def _each(figures: Figures | None, *, present: bool = True) -> list[tuple[str, dict[str, Any]]]:
    steps = () if figures is None else figures.steps
    return [(str(step), figures.figures(step, present=present)) for step in steps if figures is not None]


def _known(name: str, figures: Figures | None) -> dict[str, float]:
    return {step: found[name] for step, found in _each(figures) if found[name] is not None}


def add(counts: dict[str, int], name: str, n: int) -> None:
    """Adds `n` to a counter that may not exist yet."""
    if n:
        counts[name] = counts.get(name, 0) + n
