"""The columnar record types that travel between the rooms, one type a stage.

Struct of arrays: a field holds one value for each of `n` rows, and no Python object stands for one reading.
Every type is frozen; arrays are not copied and must not be written to by the receiver. Within one value all rows
come from one partition, in offset order. Imports numpy and the standard library only.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Header = tuple[str, bytes | None]

NO_SEQ = -1
"""`Readings.seq` where the producer gave no sequence number."""


class Reason(enum.StrEnum):
    """Why a record became a dead letter. The word is the metric's label and stands in the documentation."""

    TOMBSTONE = "tombstone"  # a record without a value
    MISSING_KEY = "missing_key"  # null or empty key: no stream to step
    KEY_TOO_LONG = "key_too_long"  # more than 256 bytes
    NOT_JSON = "not_json"  # neither JSON nor Arrow
    TOO_LARGE = "too_large"  # more bytes than a JSON reading can have, or more headers than are read
    TOO_DEEP = "too_deep"  # JSON nested beyond any reading
    WRONG_VERSION = "wrong_version"  # a contract version this release does not read
    WRONG_SCHEMA = "wrong_schema"  # a field is missing, unknown or of the wrong type
    WRONG_LENGTH = "wrong_length"  # x has another number of features than the model
    UNKNOWN_FEATURE = "unknown_feature"  # x names a feature the model does not have
    NOT_FINITE = "not_finite"  # NaN, Infinity or a number beyond float32
    BAD_TIME = "bad_time"  # `at` is not a time, or outside the years 1970 to 9999
    BAD_SYMBOL = "bad_symbol"  # a symbol that is empty or longer than 256 bytes
    BAD_ARROW = "bad_arrow"  # truncated or malformed Arrow IPC
    TOO_MANY_ROWS = "too_many_rows"  # a packed record with more rows than the limit
    TOO_MANY_STREAMS = "too_many_streams"  # of a new stream, in a partition that has as many as it may
    BATCH_TOO_LARGE = "batch_too_large"  # a batch of records that unpacks to more than may be held in memory
    BAD_BATCH = "bad_batch"  # a batch of records with the right checksum whose inside cannot be read
    INTERNAL = "internal"  # an error of streamrnn's own that no check foresaw


class Flag(enum.IntFlag):
    """What was unusual about a reading. Bits of `Predictions.flags`, spelled in lower case on the wire."""

    NEW = 1  # first reading of its stream
    LATE = 2  # timestamp not after the stream's last one; folded in arrival order
    MISSING = 4  # at least one value was missing and was imputed with the stream's last one
    DUPLICATE = 8  # sequence number already seen; not folded, the last prediction is repeated
    RESET = 16  # the step gave a non-finite state; the stream starts anew
    UNKNOWN = 32  # a symbol that is not in the model's vocabulary
    EMPTY = 64  # a sequence ended that had not begun
    OVERLONG = 128  # beyond the length that the model takes; not folded in
    CUT = 256  # the answer reached its greatest length without ending by itself
    ENDED = 512  # its sequence ended with this reading


class SequenceEnd(enum.IntEnum):
    """What a reading says of its sequence's end. Values of `Readings.end`."""

    NONE = 0  # the sequence goes on
    LAST = 1  # it ends with this reading
    END_ONLY = 2  # it has ended before: the reading says so and nothing else, all its values are missing


@dataclass(frozen=True, slots=True)
class Records:
    """Raw records of one partition as they were polled."""

    partition: int
    offsets: NDArray[np.int64]  # [n], increasing; gaps are markers or compacted records
    timestamps_ms: NDArray[np.int64]  # [n], the record's Kafka timestamp
    keys: list[bytes | None]  # [n]
    values: list[bytes | None]  # [n]
    headers: Mapping[int, Sequence[Header]] = field(default_factory=dict)  # row -> its headers, only rows with any
    refused: Mapping[int, tuple[Reason, str]] = field(default_factory=dict)  # row -> why nobody looked at its bytes
    begins: Mapping[int, int] = field(default_factory=dict)  # refused row, of a whole batch -> its first offset

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, index: Sequence[int]) -> Records:
        """The records at `index`, which is ascending."""
        return Records(
            self.partition,
            self.offsets[index] if len(index) else np.zeros(0, np.int64),
            self.timestamps_ms[index] if len(index) else np.zeros(0, np.int64),
            [self.keys[i] for i in index],
            [self.values[i] for i in index],
            {row: self.headers[i] for row, i in enumerate(index) if i in self.headers} if self.headers else {},
            {row: self.refused[i] for row, i in enumerate(index) if i in self.refused} if self.refused else {},
            {row: self.begins[i] for row, i in enumerate(index) if i in self.begins} if self.begins else {},
        )

    def rows(self, start: int, stop: int) -> Records:
        """Rows `start` to `stop`, or to the end where there are fewer."""
        stop = min(stop, len(self))
        if start == 0 and stop == len(self):
            return self
        return Records(
            self.partition,
            self.offsets[start:stop],
            self.timestamps_ms[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            {row - start: found for row, found in self.headers.items() if start <= row < stop},
            {row - start: why for row, why in self.refused.items() if start <= row < stop},
            {row - start: first for row, first in self.begins.items() if start <= row < stop},
        )


@dataclass(frozen=True, slots=True)
class Readings:
    """Accepted readings of one partition, checked and decoded."""

    partition: int
    offsets: NDArray[np.int64]  # [n], of the record that held the reading
    rows: NDArray[np.int32]  # [n], row in a packed record; -1 for a JSON reading
    streams: list[bytes]  # [n], 1..256 bytes each
    at_ms: NDArray[np.int64]  # [n], the reading's own time
    x: NDArray[np.float32]  # [n, features], NaN = missing
    seq: NDArray[np.int64]  # [n], NO_SEQ where absent
    arrived_ms: NDArray[np.int64]  # [n], the record's Kafka timestamp
    end: NDArray[np.uint8]  # [n], values of SequenceEnd

    def __len__(self) -> int:
        return len(self.streams)


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that nobody foresaw: streamrnn's own fault, whatever led to it."""

    kind: str  # the error's class and where it was raised; never holds input
    stack: str  # for a person, at most 4,000 characters


@dataclass(frozen=True, slots=True)
class Rejected:
    """Records that were refused, with everything needed to write them to the dead letters as they came."""

    records: Records  # [k], only the refused ones
    reasons: list[Reason]  # [k]
    details: list[str]  # [k], a sentence for a person; never holds more than 200 characters of input
    faults: tuple[Fault, ...] = ()  # one of each kind that made a record INTERNAL

    def __len__(self) -> int:
        return len(self.reasons)


@dataclass(frozen=True, slots=True, eq=False)
class AnswerFormat:
    """How a model's answers are written. Compared by identity, so that what follows from one is worked out once."""

    horizon: int = 1  # steps of an answer
    classes: tuple[str, ...] = ()  # what class numbers stand for; empty: answers are real values

    @property
    def generated(self) -> bool:
        """Whether an answer is a sequence of symbols."""
        return bool(self.classes) and self.horizon > 1


REAL = AnswerFormat()
"""One step of real values."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of one partition. Those of a stream are in the order of the readings that they are about."""

    model: str
    partition: int
    offsets: NDArray[np.int64]  # [n], of the reading that the prediction is about
    rows: NDArray[np.int32]  # [n], as in Readings
    streams: list[bytes]  # [n]
    at_ms: NDArray[np.int64]  # [n], of that reading
    y: NDArray[np.float32]  # [n, width], NaN = none (null on the wire). Real: steps x targets; else class numbers
    lo: NDArray[np.float32] | None  # [n, width], lower edge of the band; None for a head without one
    hi: NDArray[np.float32] | None  # [n, width]
    score: NDArray[np.float32]  # [n], surprise of the reading in nats per value; NaN = nothing was predicted for it
    flags: NDArray[np.uint16]  # [n], bits of Flag
    top: NDArray[np.int32] | None = None  # [n, k], most probable classes, the most probable first; labels only
    prob: NDArray[np.float32] | None = None  # [n, k], theirs, NaN = none; [n, 1], of the whole answer, where generated
    spelling: AnswerFormat = REAL
    p: NDArray[np.float32] | None = None  # [n], chance that a normal reading is as surprising; None: nobody knows
    lasting: NDArray[np.float32] | None = None  # [n], the same of all that the stream has done lately

    def __len__(self) -> int:
        return len(self.streams)


@dataclass(frozen=True, slots=True)
class ModelState:
    """What one model, or the latest readings, holds of some of n streams."""

    name: str  # a model's id, or RECENT
    layout: str  # fingerprint of what the bytes mean, hex
    index: NDArray[np.int64]  # [k], which of the n streams have it
    rows: NDArray[np.uint8]  # [k, row_bytes]


RECENT = "recent"
"""Name of the memory that holds a stream's latest readings."""


@dataclass(frozen=True, slots=True)
class StateRows:
    """States of streams as bytes."""

    partition: int
    streams: list[bytes]  # [n]
    offsets: NDArray[np.int64]  # [n], of the last reading folded in
    seen_ms: NDArray[np.int64]  # [n], when the stream was last read, by the latest of all clocks
    memories: tuple[ModelState, ...]

    def __len__(self) -> int:
        return len(self.streams)

    def memory(self, name: str) -> ModelState:
        """The one of that name. Raises KeyError."""
        for memory in self.memories:
            if memory.name == name:
                return memory
        raise KeyError(name)


class Role(enum.StrEnum):
    """What a topic is for. Each pipeline has one topic a role, all with the same partitions."""

    READINGS = "readings"
    PREDICTIONS = "predictions"
    CHANGELOG = "changelog"
    DEAD_LETTERS = "dead_letters"


TopicIds = Mapping[Role, str]
"""The first 8 hex digits of the id that Kafka gave each topic when it was made; absent where it does not say."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Records ready to be written to one partition of one topic. A None value is a tombstone."""

    role: Role
    partition: int
    keys: list[bytes | None]  # [n]
    values: list[bytes | None]  # [n]
    timestamp_ms: int  # of all records
    headers: list[Sequence[Header]] | None = None  # [n], None = no record has any

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Commit:
    """A sealed epoch: all of it becomes visible, or none of it."""

    started: Mapping[int, int]  # partition -> the group's committed offset before the epoch
    offsets: Mapping[int, int]  # partition -> next offset to read once the epoch is kept
    writes: tuple[Encoded, ...]  # predictions and dead letters first, then state rows
