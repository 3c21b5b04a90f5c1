"""The few streams whose values people look at: what came, and what had been forecast of it.

A ring of each stream's latest points, written once an epoch in a few array operations, and read by another thread.
A stream's name may occur in several partitions of a shard; its points are then mixed as they were kept. Imports numpy,
records, the batcher and the state store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from services.predictor.batcher import Batch
from services.predictor.online_evaluation import aligned
from services.predictor.state_store import StateStore
from services.records import Flag, SequenceEnd

if TYPE_CHECKING:
    from rnn.config import ModelConfig
    from rnn.serve.result import Result

POINTS = 300
"""Latest points of a stream that are kept."""
COLUMNS = ("at_ms", "actual", "predicted", "lower", "upper", "score")
"""Of Points: what there is one of for each reading."""


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Readings of one stream in the order in which they were kept, each with what had been forecast of it."""

    stream: str
    targets: tuple[str, ...]
    at_ms: NDArray[np.int64]  # [n], the readings' own time
    actual: NDArray[np.float32]  # [n, targets], NaN = missing
    predicted: NDArray[np.float32]  # [n, targets], by the reading before; NaN = nothing was
    lower: NDArray[np.float32]  # [n, targets], the band; NaN = none
    upper: NDArray[np.float32]  # [n, targets]
    score: NDArray[np.float32]  # [n], surprise in nats per value; NaN = nothing was predicted

    def __len__(self) -> int:
        return len(self.at_ms)

    def then(self, later: Points) -> Points:
        """Both, at most POINTS of the latest. Where the targets are others now, only `later`."""
        if later.targets != self.targets:
            return later
        return self._with(
            {name: np.concatenate((getattr(self, name), getattr(later, name)))[-POINTS:] for name in COLUMNS}
        )

    def last(self, n: int) -> Points:
        """The latest `n` at most."""
        first = max(0, len(self) - n)
        return self._with({name: getattr(self, name)[first:] for name in COLUMNS})

    def _with(self, columns: dict[str, Any]) -> Points:
        return replace(self, **columns)


class Spotlight:
    """The points of `streams` [k] in one shard. `kept` is the loop's, `take` may be called by another thread."""

    def __init__(self, streams: Sequence[str], config: ModelConfig, store: StateStore, *, forecasts: bool) -> None:
        """`forecasts`: the model says of each reading what the next one will be. Else only what came is kept."""
        self.streams, self._store = tuple(streams), store
        self._keys = [stream.encode() for stream in streams]
        index = config.target_index if forecasts else range(len(config.features))
        self.targets = tuple(config.features[i] for i in index)
        self._columns, self._forecasts = np.array(index, np.int64), forecasts
        k, width = len(self.streams), len(self.targets)
        self._said = np.full((k, 3, width), np.nan, np.float32)  # of each stream's next reading: value and band
        self._at_ms = np.zeros((k, POINTS), np.int64)
        self._values = np.full((k, POINTS, 4, width), np.nan, np.float32)  # actual, and what had been said of it
        self._score = np.full((k, POINTS), np.nan, np.float32)
        self._count = np.zeros(k, np.int64)  # points of each stream so far
        self._taken = np.zeros(k, np.int64)  # of these, taken or too old to be
        self._ours = np.zeros(0, np.int16)  # number -> which of ours it is, while one looks; -1 = none
        self._lock = threading.Lock()

    def kept(self, batch: Batch, x: NDArray[np.float32], said: Result) -> None:
        """The epoch with the batch's readings x [n, features] was kept, of which the champion has `said` that."""
        rows, which = self._lit(batch)
        if len(rows):
            flags = said.flags if said.of is None else _spread(said.flags, said.of, len(x))
            new = flags[rows] & Flag.DUPLICATE == 0
            rows, which = rows[new], which[new]
        if len(rows):
            order = np.argsort(which, kind="stable")
            self._add(rows[order], which[order], batch, x, said)

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Streams [k] ended: whoever has such a name next is another stream. Before the state store forgets them."""
        gone = set(self._store.names(numbers))
        self._said[[key in gone for key in self._keys]] = np.nan

    def take(self) -> list[Points]:
        """Of each stream what came since the last call, at most POINTS of the latest."""
        found = []
        with self._lock:
            for k in np.flatnonzero(self._count > self._taken).tolist():
                first = max(int(self._taken[k]), int(self._count[k]) - POINTS)
                slots = np.arange(first, int(self._count[k])) % POINTS
                values = self._values[k, slots]
                actual, predicted, lower, upper = (values[:, i].copy() for i in range(4))
                at_ms, score = self._at_ms[k, slots], self._score[k, slots]
                found.append(Points(self.streams[k], self.targets, at_ms, actual, predicted, lower, upper, score))
            self._taken[:] = self._count
        return found

    def _lit(self, batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Readings [m] of the batch that belong to streams of ours, and to which of them [m]."""
        if len(self._ours) < self._store.capacity:
            self._ours = np.full(self._store.capacity, -1, np.int16)
        found = [self._store.find(part.partition, self._keys) for part in batch.parts]
        mine = [(number, k) for numbers in found for k, number in enumerate(numbers) if number >= 0]
        if not mine:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        numbers, which = np.array(mine, np.int64).T
        self._ours[numbers] = which
        every = self._ours[batch.numbers()]
        self._ours[numbers] = -1  # a number may be another stream's in the next epoch
        rows = np.flatnonzero(every >= 0)
        return rows, every[rows].astype(np.int64)

    def _add(
        self,
        rows: NDArray[np.int64],
        which: NDArray[np.int64],
        batch: Batch,
        x: NDArray[np.float32],
        said: Result,
    ) -> None:
        """Readings [m] of streams [m], stream after stream."""
        end = batch.column("end")[rows]
        values = np.full((len(rows), 4, len(self.targets)), np.nan, np.float32)
        values[:, 0] = x[rows][:, self._columns]
        first, n = _groups(which)
        if self._forecasts:
            next_ = self._next(rows, said, len(x))
            next_[end > 0] = np.nan  # says nothing of the next sequence
            values[1:, 1:] = next_[:-1]
            values[first, 1:] = self._said[which[first]]
            self._said[which[first]] = next_[first + n - 1]
        score = said.score[rows] if said.of is None else _spread(said.score, said.of, len(x), np.nan)[rows]
        if (bare := end == SequenceEnd.END_ONLY).any():
            if bare.all():
                return
            rows, which, values, score = (part[~bare] for part in (rows, which, values, score))
            first, n = _groups(which)
        place = np.arange(len(which)) - np.repeat(first, n)  # in its stream
        late = np.repeat(n, n) - place <= POINTS  # older ones would be written over at once
        at_ms = batch.column("at_ms")[rows]
        with self._lock:
            slots = (self._count[which] + place) % POINTS
            self._at_ms[which[late], slots[late]] = at_ms[late]
            self._values[which[late], slots[late]] = values[late]
            self._score[which[late], slots[late]] = score[late]
            self._count[which[first]] += n

    def _next(self, rows: NDArray[np.int64], said: Result, n: int) -> NDArray[np.float32]:
        """What readings [m] made the model say of the next ones: value and band [m, 3, targets]."""
        width = len(self.targets)
        found = np.full((len(rows), 3, width), np.nan, np.float32)
        for i, part in enumerate((said.y, said.lo, said.hi)):
            if (whole := aligned(part, said, n)) is not None:
                found[:, i] = whole[rows, :width]  # the first step of the answer
        return found


def lit(
    streams: Sequence[str], config: ModelConfig, store: StateStore, forecasts: bool, notify: Callable[..., None]
) -> Spotlight | None:
    """The spotlight of a shard; None where no stream is named, or readings are no numbers to draw."""
    if streams and config.vocabulary:
        notify("spotlight_needs_numbers", streams=list(streams))
        return None
    return Spotlight(streams, config, store, forecasts=forecasts) if streams else None


def _groups(which: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the readings [m] of each stream begin, and how many they are; m is 1 at least."""
    edges = np.concatenate(([0], (which[1:] != which[:-1]).nonzero()[0] + 1, [len(which)]))
    return edges[:-1], edges[1:] - edges[:-1]


def _spread(part: NDArray, of: NDArray[np.int64], n: int, empty: float = 0) -> NDArray:  # type: ignore[type-arg]
    """One value a reading [n] of what was said of some."""
    spread = np.full(n, empty, part.dtype)
    spread[of] = part
    return spread
