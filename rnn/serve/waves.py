"""The order in which readings are stepped: the k-th reading of every stream forms wave k. Imports numpy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 8
"""Fewest rows that a step runs with: from there up a row's sums do not depend on its neighbours, bit for bit."""

BULK_ROWS = 64
"""A whole run has a multiple of this many rows, so that its feature-major buffers are whole vector registers too."""


def bucket(rows: int, unit: int = MIN_ROWS) -> int:
    """Least size of at least `rows`: multiples of `unit` up to eight of them, then four sizes to the octave."""
    step = max(unit, (1 << max(rows - 1, 1).bit_length()) // 8)
    return -(-max(rows, 1) // step) * step


class Waves(NamedTuple):
    """Readings of distinct streams laid out in rows, wave after wave.

    A stream keeps its rank through all waves, and ranks go by falling number of readings, so that wave k + 1 goes on
    from the first rows of wave k. Each wave is padded to a bucket; readings keep their order within a stream.
    """

    slots: NDArray[np.int64]  # [streams], by rank
    row: NDArray[np.int64] | slice  # [n], of each reading
    last_row: NDArray[np.int64] | slice  # [streams], of each stream's last reading
    order: NDArray[np.int64] | slice  # [n], readings by wave, then rank
    active: list[int]  # readings in each wave
    starts: list[int]  # first row of each wave
    sizes: list[int]  # rows of each wave, padding included
    rows: int  # in all waves


def one_wave(slots: NDArray[np.int64]) -> Waves:
    """Waves of readings whose slots are known to be distinct: there is one, and it is in the order given."""
    n = len(slots)
    size = bucket(n, BULK_ROWS)
    return Waves(slots, slice(0, n), slice(0, n), slice(0, n), [n], [0], [size], size)


def in_waves(slots: NDArray[np.int64]) -> Waves:
    """Waves of n >= 1 readings, some of one stream, given the slot of each."""
    n = len(slots)
    by_slot, first = _groups(slots)
    counts = np.diff(first, append=n)
    by_count = np.argsort(-counts, kind="stable")
    rank_of = np.empty_like(by_count)
    rank_of[by_count] = np.arange(len(first))
    rank, wave = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    rank[by_slot] = np.repeat(rank_of, counts)
    wave[by_slot] = np.arange(n) - np.repeat(first, counts)
    active = np.bincount(wave).tolist()
    sizes = [bucket(streams) for streams in active]
    ends = np.cumsum(sizes)
    starts: NDArray[np.int64] = ends - np.asarray(sizes)
    last_row: NDArray[np.int64] = starts[counts[by_count] - 1] + np.arange(len(first))
    order: NDArray[np.int64] = np.lexsort((rank, wave))
    streams = slots[by_slot[first]][by_count]
    return Waves(streams, starts[wave] + rank, last_row, order, active, starts.tolist(), sizes, int(ends[-1]))


def place_in_stream(slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many readings of the same slot come before each. [n]"""
    by_slot, first = _groups(slots)
    place = np.empty(len(slots), dtype=np.int64)
    place[by_slot] = np.arange(len(slots)) - np.repeat(first, np.diff(first, append=len(slots)))
    return place


def latest_before(slots: NDArray[np.int64], marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each reading the latest marked one of the same slot that comes before it; -1 where there is none. [n]"""
    n = len(slots)
    by_slot, first = _groups(slots)
    start = np.repeat(first, np.diff(first, append=n))  # of each one's group
    place = np.arange(n)
    seen = np.maximum.accumulate(np.where(marked[by_slot], place, -1))
    latest = np.concatenate(([-1], seen[:-1]))
    out = np.empty(n, dtype=np.int64)
    out[by_slot] = np.where(latest >= start, by_slot[latest], -1)
    return out


def _groups(slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(readings by slot, each slot's in the order given [n]; where in that each slot's begin [streams])."""
    by_slot = np.argsort(slots, kind="stable")
    ordered = slots[by_slot]
    return by_slot, np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
