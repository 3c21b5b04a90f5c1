"""The order in which readings are stepped: the k-th reading of every stream forms wave k. Imports numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 8
"""Fewest rows that a step runs with: from there up a row's sums do not depend on its neighbours, bit for bit."""


def bucket(rows: int, unit: int = MIN_ROWS) -> int:
    """Least size of at least `rows`: multiples of `unit` up to eight of them, then four sizes to the octave."""
    step = max(unit, (1 << max(rows - 1, 1).bit_length()) // 8)
    return -(-max(rows, 1) // step) * step


@dataclass(frozen=True, slots=True)
class Waves:
    """Readings of distinct streams laid out in rows, wave after wave.

    A stream keeps its rank through all waves, and ranks go by falling number of readings, so that wave k + 1 goes on
    from the first rows of wave k. Each wave is padded to a bucket; readings keep their order within a stream.
    """

    slots: NDArray[np.int64]  # [streams], by rank
    rank: NDArray[np.int64]  # [n], of each reading's stream
    wave: NDArray[np.int64]  # [n], how many readings of its stream come before it
    order: NDArray[np.int64] | None  # [n], reading by wave, then rank; None = as they came, all in one wave
    active: list[int]  # readings in each wave
    starts: list[int]  # first row of each wave
    sizes: list[int]  # rows of each wave, padding included
    rows: int  # in all waves

    @property
    def row(self) -> NDArray[np.int64]:
        """Row of each reading, [n]."""
        return np.asarray(self.starts, dtype=np.int64)[self.wave] + self.rank

    @property
    def last_row(self) -> NDArray[np.int64]:
        """Row of each stream's last reading, [streams]."""
        counts = np.bincount(self.rank, minlength=len(self.slots))
        return np.asarray(self.starts, dtype=np.int64)[counts - 1] + np.arange(len(self.slots))


def one_wave(slots: NDArray[np.int64]) -> Waves:
    """Waves of readings whose slots are known to be distinct."""
    n = len(slots)
    size = bucket(n)
    return Waves(slots, np.arange(n), np.zeros(n, dtype=np.int64), None, [n], [0], [size], size)


def in_waves(slots: NDArray[np.int64]) -> Waves:
    """Waves of n >= 1 readings, some of one stream, given the slot of each."""
    n = len(slots)
    by_slot = np.argsort(slots, kind="stable")
    ordered = slots[by_slot]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))  # [streams], a group's first reading
    counts = np.diff(first, append=n)
    by_count = np.argsort(-counts, kind="stable")
    group_rank = np.empty_like(by_count)
    group_rank[by_count] = np.arange(len(first))
    rank, wave = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    rank[by_slot] = np.repeat(group_rank, counts)
    wave[by_slot] = np.arange(n) - np.repeat(first, counts)
    active = np.bincount(wave).tolist()
    sizes = [bucket(streams) for streams in active]
    starts = np.cumsum([0, *sizes]).tolist()
    order = np.lexsort((rank, wave))
    return Waves(ordered[first][by_count], rank, wave, order, active, starts[:-1], sizes, starts[-1])


def latest_before(slots: NDArray[np.int64], marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each reading the latest marked one of the same slot that comes before it; -1 where there is none. [n]"""
    n = len(slots)
    by_slot = np.argsort(slots, kind="stable")
    ordered = slots[by_slot]
    place = np.arange(n)
    first = np.maximum.accumulate(np.where(np.concatenate(([True], ordered[1:] != ordered[:-1])), place, 0))
    seen = np.maximum.accumulate(np.where(marked[by_slot], place, -1))
    latest = np.concatenate(([-1], seen[:-1]))
    out = np.empty(n, dtype=np.int64)
    out[by_slot] = np.where(latest >= first, by_slot[latest], -1)
    return out


def place_in_stream(slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many readings of the same slot come before each. [n]"""
    return in_waves(slots).wave
