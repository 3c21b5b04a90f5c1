"""The committed state row of every stream, on the host. May import numpy and records only.

A stream is interned once to a small int, its *number*, which is its row here and in `slots`. Rows change only when an
epoch is kept, so the store equals what the changelog holds, but for memories that nobody here has a use for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from services.records import ModelState

NO_ROW = -1
NO_SALT = -1
NAMES = 64
"""Memories whose names are kept: a change of rows costs time for each, and rows may be full of made-up ones."""
_FIRST_CAPACITY = 1024


def salt_of(stream: bytes) -> int:
    """63 bits that follow from a stream's name; what is drawn for a stream follows from them."""
    return int.from_bytes(hashlib.blake2b(stream, digest_size=8).digest(), "little") >> 1


@dataclass(slots=True)
class Held:
    """One memory of all streams that have it."""

    rows: NDArray[np.uint8]  # [capacity, row_bytes]; means nothing where `has` is False
    has: NDArray[np.bool_]  # [capacity]


class StateStore:
    """Rows by stream number. A number whose offset is NO_ROW is interned but has never been committed."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._numbers: dict[int, dict[bytes, int]] = {}  # partition -> stream -> number
        self._streams: list[bytes] = []  # number -> stream
        self._free: list[int] = []
        self.partitions = np.zeros(0, np.int32)  # [capacity]
        self.offsets = np.zeros(0, np.int64)  # [capacity], of the last reading folded in
        self.seen_ms = np.zeros(0, np.int64)  # [capacity], see records.StateRows
        self._salts = np.zeros(0, np.int64)  # [capacity], NO_SALT = not worked out yet

    @property
    def capacity(self) -> int:
        """Numbers below this may be used as indices."""
        return len(self.offsets)

    @property
    def live(self) -> int:
        """Streams that have a committed row."""
        return int(np.count_nonzero(self.offsets != NO_ROW))

    @property
    def known(self) -> int:
        """Streams that have a number."""
        return len(self._streams) - len(self._free)

    def numbers(self, partition: int, streams: Sequence[bytes]) -> NDArray[np.int64]:
        """The number of each stream [n]; unknown ones are interned."""
        known = self._numbers.setdefault(partition, {})
        found = np.fromiter(map(known.get, streams, repeat(-1)), np.int64, len(streams))
        for i in np.flatnonzero(found < 0).tolist():
            stream = streams[i]
            number = known.get(stream, -1)  # a stream may be new twice in one call
            found[i] = number if number >= 0 else self._intern(partition, stream)
        return found

    def count(self, partition: int) -> int:
        """How many of the partition's streams have a number."""
        return len(self._numbers.get(partition, ()))

    @property
    def most(self) -> int:
        """The same of the partition that has the most."""
        return max(map(len, self._numbers.values()), default=0)

    def find(self, partition: int, streams: Sequence[bytes]) -> list[int]:
        """The number of each stream [n]; -1 of those that have none."""
        known = self._numbers.get(partition, {})
        return [known.get(stream, -1) for stream in streams]

    def names(self, numbers: NDArray[np.int64]) -> list[bytes]:
        """The streams of `numbers` [n]."""
        return [self._streams[number] for number in numbers.tolist()]

    def salts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """63 bits for each of `numbers` [n], which follow from the stream's name alone."""
        for number in np.unique(numbers[self._salts[numbers] == NO_SALT]).tolist():
            self._salts[number] = salt_of(self._streams[number])
        return self._salts[numbers]

    def hold(self, name: str, row_bytes: int) -> None:
        """From now on keeps the memory of that name; no stream has it yet. Does nothing where it is held already."""
        if name not in self._held or self._held[name].rows.shape[1] != row_bytes:
            rows = np.empty((self.capacity, row_bytes), np.uint8)
            self._held[name] = Held(rows, np.zeros(self.capacity, np.bool_))

    def let_go(self, name: str) -> None:
        """The memory of that name is of no use any more; which streams' rows name it is still known."""
        if (held := self._held.get(name)) is not None:
            held.rows = np.empty((self.capacity, 0), np.uint8)

    def named(self) -> dict[str, int]:
        """How many streams' committed rows hold a memory of each name, whether it is of use here or not."""
        return {name: count for name, held in self._held.items() if (count := int(held.has.sum()))}

    def held(self, name: str) -> Held:
        """The memory of that name. Raises KeyError."""
        return self._held[name]

    def keep(
        self,
        numbers: NDArray[np.int64],
        offsets: NDArray[np.int64],
        seen_ms: NDArray[np.int64],
        memories: Sequence[ModelState],
    ) -> None:
        """Takes committed rows of distinct streams [n]. A stream whose row comes without a memory has it no more. Of
        memories that are not held only the name is kept, and of no more than NAMES.
        """
        self.offsets[numbers] = offsets
        self.seen_ms[numbers] = seen_ms
        for held in self._held.values():
            held.has[numbers] = False
        for memory in memories:
            mine = self._held.get(memory.name)
            if mine is None:
                if len(self._held) >= NAMES:
                    continue
                self.hold(memory.name, 0)
                mine = self._held[memory.name]
            its = numbers[memory.index]
            if mine.rows.shape[1]:
                mine.rows[its] = memory.rows
            mine.has[its] = True

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Drops rows and numbers after their tombstones were committed; the numbers are given to others."""
        for number in numbers.tolist():
            del self._numbers[int(self.partitions[number])][self._streams[number]]
            self._streams[number] = b""
            self._free.append(number)
        self.drop(numbers)

    def drop(self, numbers: NDArray[np.int64]) -> None:
        """Streams [k] have no row any more; they keep their numbers."""
        self.offsets[numbers] = NO_ROW
        for held in self._held.values():
            held.has[numbers] = False

    def _intern(self, partition: int, stream: bytes) -> int:
        if self._free:
            number = self._free.pop()
            self._streams[number] = stream
        else:
            number = len(self._streams)
            self._streams.append(stream)
            if number >= self.capacity:
                self._grow()
        self._numbers[partition][stream] = number
        self.partitions[number] = partition
        self._salts[number] = NO_SALT
        return number

    def _grow(self) -> None:
        capacity = max(_FIRST_CAPACITY, 2 * self.capacity)
        used = self.capacity
        for held in self._held.values():
            rows = np.empty((capacity, held.rows.shape[1]), np.uint8)  # pages above `used` stay untouched: no memory
            rows[:used] = held.rows
            held.rows = rows
            held.has = np.concatenate([held.has, np.zeros(capacity - used, np.bool_)])
        self.partitions = np.concatenate([self.partitions, np.zeros(capacity - used, np.int32)])
        self.offsets = np.concatenate([self.offsets, np.full(capacity - used, NO_ROW, np.int64)])
        self.seen_ms = np.concatenate([self.seen_ms, np.zeros(capacity - used, np.int64)])
        self._salts = np.concatenate([self._salts, np.full(capacity - used, NO_SALT, np.int64)])
