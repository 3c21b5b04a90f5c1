"""What was said of readings that have not come yet, stream by stream. Imports numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FIRST_CAPACITY = 1024

Floats = NDArray[np.float32]


class Matched(NamedTuple):
    """Readings of a batch that had been predicted `step` readings of their stream before."""

    step: int
    rows: NDArray[np.int64]  # [k], which of the batch, rising
    y: Floats  # [k, targets], what was said of them
    lo: Floats | None  # [k, targets]
    hi: Floats | None
    last: Floats  # [k, targets], the reading at which it was said


class _Batch(NamedTuple):
    """A batch's readings by stream, and those of a stream by time; all but the last in this order. [n]"""

    order: NDArray[np.int64] | None  # which reading of the batch; None: the batch's own order, no stream comes twice
    streams: NDArray[np.int64]  # numbers
    rank: NDArray[np.int64] | None  # readings of the same stream before it in the batch; None: there are none
    left: NDArray[np.int64] | None  # and after it
    place: NDArray[np.int64]  # readings of the stream before it since it began
    parts: list[Floats]  # [n, horizon, targets] each: y, and lo and hi where bands are followed
    truth: Floats  # [n, targets]


class ForecastBuffer:
    """Lives in a shard. A stream takes, for the steps h that are followed,

        12 + 4 targets (4 if banded else 2) sum(h)   bytes

    for as long as it has a number, whether it goes on or falls silent; see `followed` for steps that sum to little.
    Numbers are row indices from 0 on without large gaps. A prediction counts for the h-th reading after the one that
    made it, however late that comes.
    """

    def __init__(self, targets: int, steps: Sequence[int] = (1,), *, banded: bool = True) -> None:
        if targets < 1 or not steps or min(steps) < 1 or len(set(steps)) < len(steps):
            raise ValueError(
                f"{targets} targets and steps {tuple(steps)}: give at least one target, and steps from 1 on"
            )
        self.targets, self.steps, self.banded = targets, tuple(steps), banded
        self._count = np.zeros(0, np.int64)  # [streams], readings so far
        self._seen = np.zeros(0, np.int32)  # [streams], scratch
        # What was said of a stream's p-th reading, and that reading, lie in place p mod h until the reading h later
        # takes them: one place in memory for a stream and step.
        self._width = (3 if banded else 1) + 1
        self._said = [np.zeros((0, step, self._width, targets), np.float32) for step in self.steps]

    @property
    def bytes_per_stream(self) -> int:
        """Memory of one stream."""
        return 8 + 4 + 4 * self.targets * self._width * sum(self.steps)

    def match(
        self,
        numbers: NDArray[np.int64],
        truth: Floats,
        y: Floats,
        lo: Floats | None = None,
        hi: Floats | None = None,
    ) -> list[Matched]:
        """Takes a batch of readings, those of a stream in their order, and what was then said of the ones to come.

        numbers [n]; truth [n, targets], NaN = missing; y, lo, hi [n, horizon x targets] or [n, horizon, targets], the
        first step first. Returns what had been said of these readings, a value for each of `steps`; first readings were
        not predicted. Nothing said at a reading is matched with that reading or one before it.
        """
        n = len(numbers)
        if not n:
            return []
        self._grow(int(numbers.max()) + 1)
        parts = self._shaped(n, y, lo, hi)
        if self._distinct(numbers):
            batch = _Batch(None, numbers, None, None, self._count[numbers], parts, truth)
            self._count[numbers] += 1
        else:
            order = np.argsort(numbers, kind="stable")
            streams = numbers[order]
            first = np.flatnonzero(np.concatenate(([True], streams[1:] != streams[:-1])))
            counts = np.diff(first, append=n)
            rank = np.arange(n) - np.repeat(first, counts)
            left = np.repeat(counts, counts) - 1 - rank
            batch = _Batch(order, streams, rank, left, self._count[streams] + rank, parts, truth)
            self._count[streams[first]] += counts
        return [self._step(ring, step, batch) for ring, step in zip(self._said, self.steps, strict=True)]

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Streams that ended, or whose next reading nothing said before is about."""
        self._count[numbers[numbers < len(self._count)]] = 0

    def _step(self, ring: Floats, step: int, batch: _Batch) -> Matched:
        """ring [streams, step, width, targets], which takes the newest of what was said."""
        order, streams, place = batch.order, batch.streams, batch.place
        said = np.empty((len(streams), self._width, self.targets), np.float32)  # in the batch's own order, as `values`
        for k, part in enumerate(batch.parts):
            said[:, k] = part[:, step - 1]
        said[:, -1] = batch.truth
        at = place % step
        matched = place >= step
        if order is None or batch.rank is None or batch.left is None:
            values = ring[streams, at]
            ring[streams, at] = said
        else:
            here = batch.rank >= step  # it was said in this very batch
            inside, before = np.flatnonzero(here), np.flatnonzero(~here)
            source = np.zeros(len(said), np.int64)
            source[order[inside]] = order[inside - step]
            values = said[source]
            values[order[before]] = ring[streams[before], at[before]]
            newest = np.flatnonzero(batch.left < step)
            ring[streams[newest], at[newest]] = said[order[newest]]
            by_batch = np.empty_like(matched)
            by_batch[order] = matched
            matched = by_batch
        rows = np.flatnonzero(matched)
        if len(rows) < len(values):
            values = values[rows]
        lo, hi = (values[:, 1], values[:, 2]) if self.banded else (None, None)
        return Matched(step, rows, values[:, 0], lo, hi, values[:, -1])

    def _distinct(self, numbers: NDArray[np.int64]) -> bool:
        place = np.arange(len(numbers), dtype=np.int32)
        self._seen[numbers] = place
        return bool((self._seen[numbers] == place).all())

    def _shaped(self, n: int, y: Floats, lo: Floats | None, hi: Floats | None) -> list[Floats]:
        """y, and lo and hi where bands are followed, each [n, horizon, targets]; a band that is missing is NaN."""
        given = y.reshape(n, -1, self.targets)
        if given.shape[1] < max(self.steps):
            raise ValueError(f"step {max(self.steps)} is followed, but predictions have {given.shape[1]} steps")
        if not self.banded:
            return [given]
        return [given, *(np.full_like(given, np.nan) if one is None else one.reshape(given.shape) for one in (lo, hi))]

    def _grow(self, streams: int) -> None:
        used = len(self._count)
        if streams <= used:
            return
        more = max(_FIRST_CAPACITY, 2 * used, streams) - used
        self._count, self._seen = _longer(self._count, more), _longer(self._seen, more)
        self._said = [_longer(ring, more) for ring in self._said]


def followed(horizon: int) -> tuple[int, ...]:
    """Powers of two up to a horizon, and the horizon: they tell how errors grow, and sum to 3 horizons at most."""
    return tuple(sorted({2**k for k in range(horizon.bit_length()) if 2**k <= horizon} | {horizon}))


def _longer(array: NDArray[Any], more: int) -> NDArray[Any]:
    return np.concatenate((array, np.zeros((more, *array.shape[1:]), array.dtype)))
