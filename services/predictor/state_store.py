"""The committed state row of every stream, on the host. May import numpy and records only.

A stream is interned once to a small int, its *number*, which is its row here and in `slots`. Rows change only when an
epoch is kept, so the store always equals what the changelog holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

NO_ROW = -1
NO_SALT = -1
_FIRST_CAPACITY = 1024


def salt_of(stream: bytes) -> int:
    """63 bits that follow from a stream's name; what is drawn for a stream follows from them."""
    return int.from_bytes(hashlib.blake2b(stream, digest_size=8).digest(), "little") >> 1


class StateStore:
    """Rows by stream number. A number whose offset is NO_ROW is interned but has never been committed."""

    def __init__(self, row_bytes: int) -> None:
        self.row_bytes = row_bytes
        self._numbers: dict[int, dict[bytes, int]] = {}  # partition -> stream -> number
        self._streams: list[bytes] = []  # number -> stream
        self._free: list[int] = []
        self.partitions = np.zeros(0, np.int32)  # [capacity]
        self.offsets = np.zeros(0, np.int64)  # [capacity], of the last reading folded in
        self.saved_ms = np.zeros(0, np.int64)  # [capacity]
        self.rows = np.zeros((0, row_bytes), np.uint8)  # [capacity, row_bytes]
        self._salts = np.zeros(0, np.int64)  # [capacity], NO_SALT = not worked out yet

    @property
    def capacity(self) -> int:
        """Numbers below this may be used as indices."""
        return len(self.offsets)

    @property
    def live(self) -> int:
        """Streams that have a committed row."""
        return int((self.offsets != NO_ROW).sum())

    def numbers(self, partition: int, streams: Sequence[bytes]) -> NDArray[np.int64]:
        """The number of each stream [n]; unknown ones are interned."""
        known = self._numbers.setdefault(partition, {})
        found = np.fromiter(map(known.get, streams, repeat(-1)), np.int64, len(streams))
        for i in np.flatnonzero(found < 0).tolist():
            stream = streams[i]
            number = known.get(stream, -1)  # a stream may be new twice in one call
            found[i] = number if number >= 0 else self._intern(partition, stream)
        return found

    def names(self, numbers: NDArray[np.int64]) -> list[bytes]:
        """The streams of `numbers` [n]."""
        return [self._streams[number] for number in numbers.tolist()]

    def salts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """63 bits for each of `numbers` [n], which follow from the stream's name alone."""
        for number in np.unique(numbers[self._salts[numbers] == NO_SALT]).tolist():
            self._salts[number] = salt_of(self._streams[number])
        return self._salts[numbers]

    def keep(self, numbers: NDArray[np.int64], offsets: NDArray[np.int64], saved_ms: NDArray[np.int64] | int,
             rows: NDArray[np.uint8]) -> None:  # fmt: skip
        """Takes committed rows [n, row_bytes]; the numbers must be distinct."""
        self.rows[numbers] = rows
        self.offsets[numbers] = offsets
        self.saved_ms[numbers] = saved_ms

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Drops rows and numbers after their tombstones were committed."""
        for number in numbers.tolist():
            del self._numbers[int(self.partitions[number])][self._streams[number]]
            self._streams[number] = b""
            self._free.append(number)
        self.offsets[numbers] = NO_ROW

    def idle(self, before_ms: int) -> NDArray[np.int64]:
        """Numbers of the committed streams whose last reading was folded in before `before_ms` (wall clock)."""
        return np.flatnonzero((self.offsets != NO_ROW) & (self.saved_ms < before_ms))

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
        rows = np.empty((capacity, self.row_bytes), np.uint8)  # pages above `used` stay untouched, so cost no memory
        rows[:used] = self.rows
        self.rows = rows
        self.partitions = np.concatenate([self.partitions, np.zeros(capacity - used, np.int32)])
        self.offsets = np.concatenate([self.offsets, np.full(capacity - used, NO_ROW, np.int64)])
        self.saved_ms = np.concatenate([self.saved_ms, np.zeros(capacity - used, np.int64)])
        self._salts = np.concatenate([self._salts, np.full(capacity - used, NO_SALT, np.int64)])
