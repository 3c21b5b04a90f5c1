"""Whether readings still look like those that the model was trained on, feature by feature. Imports numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.quality.reference import Reference, binned, full_weight, ks, missing, psi

PSI = 0.5
"""Index that is let pass. Credit scoring asks for action from 0.25 on; sensors have weekends and weather, see docs."""

KS = 0.3
"""Distance of two distribution functions that is let pass."""

MISSING = 0.1
"""Share of all readings by which missing values may become more."""

ABOVE_USUAL = 2.0
"""How far above what the training data itself showed a measure must be, where that is more than the three above."""

FIRST_READINGS = 10_000
"""Readings that make a reference where there is none."""

ENDS_BELOW = 0.8
"""Share of the threshold below which a drift is over."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one thing is from what it was."""

    name: str  # a feature, or "loss"
    measure: str  # psi, ks, missing or adwin
    value: float
    threshold: float
    drifted: bool
    since_ms: int | None  # when it was first seen to be drifted; None = it is not


class RecentHistogram:
    """The latest readings' shares of the reference's bins; lives in a shard. (features x bins) numbers.

    It begins as the reference and forgets that as it forgets readings: a reading counts half after `half_life` others,
    so that a restart raises no alarm. Shards of one pipeline each get `half_life / shards`, and are added up.
    """

    def __init__(self, reference: Reference, half_life: int | None = None) -> None:
        self.reference, self.half_life = reference, half_life or reference.half_life
        self.counts = reference.shares * full_weight(self.half_life)  # [features, bins]

    def add(self, x: NDArray[np.float32]) -> None:
        """A batch of readings [n, features], NaN = missing."""
        if not len(x):
            return
        counts = binned(self.reference.edges, x)
        lives = len(x) / self.half_life
        kept = 0.5**lives
        weight = (1 - kept) / (lives * math.log(2))  # mean over the batch: its first readings are older than its last
        self.counts *= kept
        self.counts += weight * counts

    def __add__(self, other: RecentHistogram) -> RecentHistogram:
        """Both together. Raises ValueError where the bins are not the same ones."""
        if not self.reference.same_bins(other.reference):
            raise ValueError("sketches of two references cannot be added up: give every shard the same reference")
        both = RecentHistogram(self.reference, self.half_life + other.half_life)
        both.counts = self.counts + other.counts
        return both


class ReferenceBuilder:
    """The first readings of a pipeline whose model came without a reference; lives in a shard until it is full."""

    def __init__(self, features: Sequence[str], readings: int = FIRST_READINGS) -> None:
        self.features, self.readings = tuple(features), readings
        self._parts: list[NDArray[np.float32]] = []
        self._rows = 0

    @property
    def full(self) -> bool:
        """Whether a reference can be made."""
        return self._rows >= self.readings

    def add(self, x: NDArray[np.float32]) -> None:
        """A batch [n, features]; copied, and let be where it is too much."""
        some = np.array(x[: self.readings - self._rows], np.float32)
        if len(some):
            self._parts.append(some)
            self._rows += len(some)

    def reference(self) -> Reference:
        """Of what there is so far. Raises ValueError if that is nothing."""
        return Reference.of(
            self.features, np.concatenate([np.zeros((0, len(self.features)), np.float32), *self._parts])
        )


class InputWatch:
    """Lives in the supervisor: judges the shards' sketches, and remembers since when something has drifted."""

    def __init__(self, psi_above: float = PSI, ks_above: float = KS, missing_above: float = MISSING) -> None:
        for name, value in (("psi_above", psi_above), ("ks_above", ks_above), ("missing_above", missing_above)):
            if not value > 0:
                raise ValueError(f"{name} is {value}: give a threshold above 0")
        self.psi_above, self.ks_above, self.missing_above = psi_above, ks_above, missing_above
        self._since_ms: dict[tuple[str, str], int] = {}

    def judge(self, recent: RecentHistogram, now_ms: int) -> list[Drift]:
        """Three for each feature: psi, ks, missing. One is over when it has fallen to 80 % of its threshold."""
        reference = recent.reference
        measured = (
            ("psi", psi(reference.shares, recent.counts), self.psi_above, reference.usual_psi),
            ("ks", ks(reference.shares, recent.counts), self.ks_above, reference.usual_ks),
            ("missing", missing(reference.shares, recent.counts), self.missing_above, reference.usual_missing),
        )
        found = []
        for measure, values, above, usual in measured:
            thresholds = np.maximum(above, ABOVE_USUAL * usual)
            for name, value, threshold in zip(reference.features, values.tolist(), thresholds.tolist(), strict=True):
                found.append(self._drift(name, measure, value, threshold, now_ms))
        return found

    def _drift(self, name: str, measure: str, value: float, threshold: float, now_ms: int) -> Drift:
        since_ms = self._since_ms.get((name, measure))
        drifted = value > threshold if since_ms is None else value > ENDS_BELOW * threshold
        if drifted:
            since_ms = self._since_ms.setdefault((name, measure), now_ms)
        else:
            since_ms = None
            self._since_ms.pop((name, measure), None)
        return Drift(name, measure, value, threshold, drifted, since_ms)
