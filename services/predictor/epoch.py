"""The open epoch: what a batch gave, gathered until it is sealed into a Commit. A value; does no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.codecs import dead_letters, predictions, sentinels, state_rows
from services.predictor.anomaly import Surprised
from services.predictor.batcher import Batch, untagged
from services.predictor.state_store import StateStore
from services.records import (
    REAL,
    AnswerFormat,
    Commit,
    Encoded,
    ModelState,
    Predictions,
    Readings,
    Role,
    StateRows,
    TopicIds,
)

if TYPE_CHECKING:
    from rnn.serve.result import Result
    from services.predictor.deployed_models import BatchOutput


@dataclass(frozen=True, slots=True)
class EpochContext:
    """Who writes: named in predictions, state rows and dead letters."""

    model: str  # model id
    group: str
    readings_topic: str
    max_bytes: int = 900_000  # largest value that may be written as one record
    spelling: AnswerFormat = REAL  # of the model's answers


class ReadingRefs(NamedTuple):
    """The readings that n predictions are about."""

    streams: list[bytes]  # [n]
    offsets: NDArray[np.int64]  # [n]
    rows: NDArray[np.int32]  # [n]
    at_ms: NDArray[np.int64]  # [n]


class Stepped(NamedTuple):
    """What a batch has changed."""

    numbers: NDArray[np.int64]  # [k], of the dirty streams
    offsets: NDArray[np.int64]  # [k], of their last readings
    memories: list[ModelState]  # new ones
    said: BatchOutput | None  # None: the batch has no reading


class Epoch:
    """One batch's outputs, those of streams that fell silent, or nothing but where the group stands. Call the `add_`
    methods once each, then `seal`.
    """

    def __init__(self, batch: Batch, origin: EpochContext, now_ms: int) -> None:
        self.batch, self.origin, self.now_ms = batch, origin, now_ms
        self.flags: NDArray[np.uint16] = np.zeros(0, np.uint16)  # [predictions]
        self._still: dict[int, int] = {}  # partition -> its offset, of partitions without readings in the batch
        self._writes: list[Encoded] = []
        self._states: list[Encoded] = []
        self._surprised: Surprised | None = None
        for part in batch.parts:
            if len(part.rejected):
                self._writes.append(
                    dead_letters.encode(
                        part.rejected, origin.readings_topic, origin.group, now_ms, max_bytes=origin.max_bytes
                    )
                )

    def add_predictions(self, result: Result, surprised: Surprised | None = None) -> None:
        """Encodes the result of all parts' readings, in their order, and how improbable they were."""
        self._surprised = surprised
        first = 0
        for part in self.batch.parts:
            readings, last = part.readings, first + len(part.readings)
            if not len(readings):
                continue
            if result.of is None:
                about = ReadingRefs(readings.streams, readings.offsets, readings.rows, readings.at_ms)
                self._add(part.partition, result, slice(first, last), about)
            else:
                begin, end = np.searchsorted(result.of, (first, last)).tolist()
                of = result.of[begin:end] - first
                chosen = np.arange(begin, end)
                if result.tag is not None:
                    chosen = _by_record(chosen, result.tag, part.numbers[of])
                    of = result.of[chosen] - first
                self._add(part.partition, result, chosen, _about(result, chosen, part.readings, of))
            first = last

    def add_flushed(self, result: Result, store: StateStore, numbers: NDArray[np.int64], at: Mapping[int, int]) -> None:
        """Encodes what waited in streams [k], which `result.of` counts. Offsets of their partitions stay where they are
        `at`.
        """
        assert result.of is not None and result.tag is not None and result.at_ms is not None
        its = numbers[result.of]
        owner = store.partitions[its]
        for partition in np.unique(owner).tolist():
            chosen = np.flatnonzero(owner == partition)
            chosen = _by_record(chosen, result.tag, its[chosen])
            offsets, rows = untagged(result.tag[chosen])
            about = ReadingRefs(store.names(its[chosen]), offsets, rows, result.at_ms[chosen])
            self._add(partition, result, chosen, about)
            self._still[partition] = at[partition]

    def _add(self, partition: int, result: Result, chosen: slice | NDArray[np.int64], about: ReadingRefs) -> None:
        """Predictions `chosen` of the result, and the readings that they are about."""
        made = Predictions(
            model=self.origin.model,
            partition=partition,
            offsets=about.offsets,
            rows=about.rows,
            streams=about.streams,
            at_ms=about.at_ms,
            y=result.y[chosen],
            lo=None if result.lo is None else result.lo[chosen],
            hi=None if result.hi is None else result.hi[chosen],
            score=result.score[chosen],
            flags=result.flags[chosen],
            top=None if result.top is None else result.top[chosen],
            prob=None if result.prob is None else result.prob[chosen],
            spelling=self.origin.spelling,
            p=None if self._surprised is None else self._surprised.p[chosen].astype(np.float32),
            lasting=None if self._surprised is None else self._surprised.lasting[chosen].astype(np.float32),
        )
        if len(made):
            self.flags = np.concatenate([self.flags, made.flags])
            keys, values = predictions.encode(made, max_bytes=self.origin.max_bytes)
            self._writes.append(Encoded(Role.PREDICTIONS, partition, keys, values, self.now_ms))

    def add_states(
        self,
        store: StateStore,
        numbers: NDArray[np.int64],
        offsets: NDArray[np.int64],
        seen_ms: NDArray[np.int64],
        memories: Sequence[ModelState],
    ) -> None:
        """Encodes the dirty streams' rows: numbers [k], last offsets [k], when seen [k], memories of some of the k."""
        owner = store.partitions[numbers]
        for partition in np.unique(owner).tolist():
            mine = np.flatnonzero(owner == partition)
            its = tuple(_of(mine, len(numbers), memory) for memory in memories)
            dirty = StateRows(partition, store.names(numbers[mine]), offsets[mine], seen_ms[mine], its)
            keys, values = state_rows.encode(dirty)
            self._states.append(Encoded(Role.CHANGELOG, partition, keys, values, self.now_ms))

    def add_tombstones(self, store: StateStore, numbers: NDArray[np.int64]) -> None:
        """Forgets streams [k] that were idle for longer than their time to live."""
        owner = store.partitions[numbers]
        for partition in np.unique(owner).tolist():
            keys: list[bytes | None] = [*store.names(numbers[owner == partition])]
            self._states.append(Encoded(Role.CHANGELOG, partition, keys, [None] * len(keys), self.now_ms))

    def add_still(self, at: Mapping[int, int]) -> None:
        """Says again where partitions stand, so that Kafka does not forget it."""
        self._still.update(at)

    def seal(self, topic_ids: TopicIds, first: Mapping[int, int]) -> Commit:
        """All of it as one value. State rows come last: without transactions they must not overtake predictions; and
        a partition's sentinel comes after its rows. `first`: offset with which each partition of the changelog began.
        """
        offsets = {**self._still, **{part.partition: part.next_offset for part in self.batch.parts}}
        for partition, offset in offsets.items():
            self._add_sentinel(sentinels.Sentinel(partition, offset, first[partition], topic_ids))
        return Commit(
            started={**self._still, **{part.partition: part.started for part in self.batch.parts}},
            offsets=offsets,
            writes=(*self._writes, *self._states),
        )

    def _add_sentinel(self, sentinel: sentinels.Sentinel) -> None:
        value = sentinels.encode(sentinel)
        for rows in reversed(self._states):
            if rows.partition == sentinel.partition:  # one batch a partition: Kafka takes two after each other
                rows.keys.append(sentinels.KEY)
                rows.values.append(value)
                return
        alone = Encoded(Role.CHANGELOG, sentinel.partition, [sentinels.KEY], [value], self.now_ms)
        self._states.append(alone)


def _of(mine: NDArray[np.int64], n: int, memory: ModelState) -> ModelState:
    """The memory of streams `mine` of n, counted among themselves."""
    if len(mine) == n:
        return memory
    place = np.full(n, -1, np.int64)
    place[mine] = np.arange(len(mine))
    index = place[memory.index]
    chosen = np.flatnonzero(index >= 0)
    return ModelState(memory.name, memory.layout, index[chosen], memory.rows[chosen])


def _about(result: Result, chosen: NDArray[np.int64], readings: Readings, of: NDArray[np.int64]) -> ReadingRefs:
    """`of` [n]: which of the readings made each of the chosen [n] be said."""
    streams = [readings.streams[i] for i in of.tolist()]
    if result.tag is None or result.at_ms is None:
        return ReadingRefs(streams, readings.offsets[of], readings.rows[of], readings.at_ms[of])
    return ReadingRefs(streams, *untagged(result.tag[chosen]), result.at_ms[chosen])


def _by_record(chosen: NDArray[np.int64], tag: NDArray[np.int64], streams: NDArray[np.int64]) -> NDArray[np.int64]:
    """The chosen predictions [n], of streams [n], in the order of the records that they are about, so that the rows of
    a packed one stand together; as they are where that would change the order within a stream.
    """
    tags = tag[chosen]
    by_stream = np.argsort(streams, kind="stable")
    goes_on = np.diff(streams[by_stream]) == 0
    if (np.diff(tags[by_stream])[goes_on] < 0).any():
        return chosen
    return chosen[np.argsort(tags, kind="stable")]
