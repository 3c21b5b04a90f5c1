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

    order: NDArray[np.int64]  # which reading of the batch
    streams: NDArray[np.int64]  # numbers
    rank: NDArray[np.int64]  # readings of the same stream before it in the batch
    left: NDArray[np.int64]  # and after it
    place: NDArray[np.int64]  # readings of the stream before it since it began
    truth: Floats  # [n, targets], in the batch's own order


class Pending:
    """Lives in a shard. A stream takes, for the steps h that are followed,

        8 + 4 targets ((3 if banded else 1) sum(h) + max(h))   bytes

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
        width = 3 if banded else 1
        # What was said of a stream's p-th reading lies in place p mod h, until the reading h later takes it.
        self._said = [np.zeros((0, step, width, targets), np.float32) for step in self.steps]  # [streams, h, width, T]
        self._truth = np.zeros((0, max(self.steps), targets), np.float32)  # [streams, longest, targets]

    @property
    def bytes_per_stream(self) -> int:
        """Memory of one stream."""
        width = 3 if self.banded else 1
        return 8 + 4 * self.targets * (width * sum(self.steps) + max(self.steps))

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
        said = self._shaped(n, y, lo, hi)
        order = np.argsort(numbers, kind="stable")
        streams = numbers[order]
        first = np.flatnonzero(np.concatenate(([True], streams[1:] != streams[:-1])))
        counts = np.diff(first, append=n)
        rank = np.arange(n) - np.repeat(first, counts)
        left = np.repeat(counts, counts) - 1 - rank
        batch = _Batch(order, streams, rank, left, self._count[streams] + rank, truth)
        found = [
            self._step(ring, step, batch, np.stack([one[:, step - 1] for one in said], axis=1))
            for ring, step in zip(self._said, self.steps, strict=True)
        ]
        longest = self._truth.shape[1]
        newest = np.flatnonzero(left < longest)
        self._truth[streams[newest], batch.place[newest] % longest] = truth[order[newest]]
        self._count[streams[first]] += counts
        return found

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Streams that ended, or whose next reading nothing said before is about."""
        self._count[numbers[numbers < len(self._count)]] = 0

    def _step(self, ring: Floats, step: int, batch: _Batch, said: Floats) -> Matched:
        """said [n, width, targets]; ring [streams, step, width, targets], which takes the newest of it."""
        order, streams, place, longest = batch.order, batch.streams, batch.place, self._truth.shape[1]
        here = batch.rank >= step  # it was said in this very batch
        inside = np.flatnonzero(here)
        before = np.flatnonzero(~here & (place >= step))
        values, last = np.empty_like(said), np.empty_like(batch.truth)
        matched = np.zeros(len(order), np.bool_)  # these three in the batch's own order
        at, source = order[inside], order[inside - step]
        values[at], last[at], matched[at] = said[source], batch.truth[source], True
        at, who = order[before], streams[before]
        values[at], last[at], matched[at] = (
            ring[who, place[before] % step],
            self._truth[who, (place[before] - step) % longest],
            True,
        )
        newest = np.flatnonzero(batch.left < step)
        ring[streams[newest], place[newest] % step] = said[order[newest]]
        rows = np.flatnonzero(matched)
        some = values[rows]
        lo, hi = (some[:, 1], some[:, 2]) if self.banded else (None, None)
        return Matched(step, rows, some[:, 0], lo, hi, last[rows])

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
        self._count = _longer(self._count, more)
        self._said = [_longer(ring, more) for ring in self._said]
        self._truth = _longer(self._truth, more)


def followed(horizon: int) -> tuple[int, ...]:
    """Powers of two up to a horizon, and the horizon: they tell how errors grow, and sum to 3 horizons at most."""
    return tuple(sorted({2**k for k in range(horizon.bit_length()) if 2**k <= horizon} | {horizon}))


def _longer(array: NDArray[Any], more: int) -> NDArray[Any]:
    return np.concatenate((array, np.zeros((more, *array.shape[1:]), array.dtype)))
