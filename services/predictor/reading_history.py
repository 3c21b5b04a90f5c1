"""The latest readings of every stream in a slot: what a model without a memory of the stream is warmed up with.

Not of any model: raw values as they came, so that every model that reads them can. Lies in host memory, a slot each, as
the device's state table does, and is committed, dropped and restored with it. Imports numpy only.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LAYOUT_VERSION = 1
CLOCK = 3  # columns of rnn.nn.clock


class ReplayedReadings(NamedTuple):
    """Readings of streams, in the order in which they came within each stream."""

    slots: NDArray[np.int64]  # [n]
    x: NDArray[np.float32]  # [n, features]
    at_ms: NDArray[np.int64]  # [n]
    end: NDArray[np.uint8]  # [n]


class ReadingHistory:
    """Up to `most` readings of `features` values each, of every slot."""

    def __init__(self, slots: int, features: int, most: int) -> None:
        self.most = most
        self._kind = np.dtype(
            [
                ("clock", "<i8", (CLOCK,)),  # of the stream after its last reading, see rnn.nn.clock
                ("count", "<i8"),  # readings since the stream's first
                ("at_ms", "<i8", (most,)),
                ("x", "<f4", (most, features)),  # reading number n stands in place n mod most
                ("end", "u1", (most,)),
            ]
        )
        self._table = np.zeros(slots, self._kind)
        self.row_bytes = self._kind.itemsize
        self.layout = hashlib.sha256(f"recent {LAYOUT_VERSION};{self._kind}".encode()).hexdigest()

    def rows(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """[k, row_bytes]"""
        return self._table[slots].view(np.uint8).reshape(len(slots), self.row_bytes)

    def load(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Puts rows [k, row_bytes] of `rows` into distinct slots [k]."""
        self._table[slots] = np.ascontiguousarray(rows).view(self._kind).reshape(len(slots))

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Slots [k] hold no reading."""
        self._table[slots] = np.zeros((), self._kind)

    def fold(
        self,
        slots: NDArray[np.int64],
        rank: NDArray[np.int64],
        x: NDArray[np.float32],
        at_ms: NDArray[np.int64],
        end: NDArray[np.uint8],
    ) -> None:
        """Takes readings [n] in; rank [n] counts, from 0, those of the same slot that stand before it."""
        if not len(slots):
            return
        count = self._table["count"]
        ordinal = count[slots] + rank
        place = ordinal % self.most  # of readings that share a place the last one stays, which is the newest
        for name, values in (("at_ms", at_ms), ("x", x), ("end", end)):
            self._table[name][slots, place] = values
        np.maximum.at(count, slots, ordinal + 1)

    def stamp(self, slots: NDArray[np.int64], clock: NDArray[np.int64]) -> None:
        """Remembers the clocks [k, 3] of slots [k] beside their readings."""
        self._table["clock"][slots] = clock

    def clocks(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """[k, 3], as they were stamped."""
        clock: NDArray[np.int64] = self._table["clock"][slots]
        return clock

    def replay(self, slots: NDArray[np.int64]) -> ReplayedReadings:
        """What distinct slots [k] remember."""
        held = self._table[slots]
        ordinal = held["count"][:, None] - self.most + np.arange(self.most)  # [k, most]
        row, column = np.nonzero(ordinal >= 0)  # stream after stream, the oldest reading first
        place = ordinal[row, column] % self.most
        return ReplayedReadings(slots[row], held["x"][row, place], held["at_ms"][row, place], held["end"][row, place])
