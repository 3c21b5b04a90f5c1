"""Which stream sits in which slot of the device's state table. Plain arrays; may import numpy only.

A slot is free, clean (equal to the committed row, may be taken from its stream at any time) or dirty (holds readings
of the open epoch, is never taken). After every epoch all slots are clean again: kept ones by `kept`, dropped ones are
freed by `dropped`, because the device then holds a state that never became true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NONE = -1


class NoRoom(Exception):
    """More distinct streams in one epoch than there are slots. The shard cuts its polls so that this cannot happen."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Slots of the asked-for streams, and which of them do not hold their stream's state yet."""

    slots: NDArray[np.int64]  # [n]
    fresh: NDArray[np.bool_]  # [n], True: load the committed row, or clear, before stepping


class Slots:
    """Assignment of stream numbers to `capacity` slots, oldest clean one evicted first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.evicted = 0  # clean streams that lost their slot to another, since the start
        self._turn = 0
        self._slot_of = np.zeros(0, np.int64)  # [numbers], NONE = not on the device
        self._number_of = np.full(capacity, NONE, np.int64)  # [capacity]
        self._used_turn = np.zeros(capacity, np.int64)  # [capacity]
        self._dirty = np.zeros(capacity, bool)  # [capacity]
        self._free = np.arange(capacity - 1, -1, -1)  # a stack: the top is the end
        self._free_count = capacity

    @property
    def used(self) -> int:
        """Slots that hold a stream."""
        return self.capacity - self._free_count

    def place(self, numbers: NDArray[np.int64]) -> Placed:
        """Gives each of the distinct `numbers` [n] a slot and marks it dirty. Raises NoRoom, changing nothing."""
        self._turn += 1
        self._cover(numbers)
        slots = self._slot_of[numbers]
        fresh = slots == NONE
        need = int(fresh.sum())
        if need:
            self._used_turn[slots[~fresh]] = self._turn  # so that none of them is evicted for its neighbour
            if need > self._free_count:
                self._evict(need - self._free_count, keep_turn=self._turn)
            taken = self._free[self._free_count - need : self._free_count].copy()
            self._free_count -= need
            slots[fresh] = taken
            self._slot_of[numbers[fresh]] = taken
            self._number_of[taken] = numbers[fresh]
        self._used_turn[slots] = self._turn
        self._dirty[slots] = True
        return Placed(slots, fresh)

    def spare(self) -> int:
        """A slot that holds no stream; it stays free. Raises NoRoom."""
        if not self._free_count:
            raise NoRoom("no slot is free")
        return int(self._free[self._free_count - 1])

    def kept(self) -> None:
        """The epoch was kept: every slot equals its committed row."""
        self._dirty[:] = False

    def dropped(self) -> None:
        """The epoch was dropped: dirty streams lose their slots."""
        self._release(np.flatnonzero(self._dirty))

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Streams that ended lose their slots; their numbers may be given to others."""
        self._cover(numbers)
        slots = self._slot_of[numbers]
        self._release(slots[slots != NONE])

    def check_integrity(self) -> None:
        """Raises AssertionError unless every live stream has exactly one slot and the free slots are the others."""
        held = np.flatnonzero(self._number_of != NONE)
        assert len(held) + self._free_count == self.capacity
        assert np.array_equal(self._slot_of[self._number_of[held]], held)
        assert int((self._slot_of != NONE).sum()) == len(held)
        assert not np.intersect1d(held, self._free[: self._free_count]).size
        assert not self._dirty[self._number_of == NONE].any()

    def _evict(self, at_least: int, keep_turn: int) -> None:
        candidates = np.flatnonzero((self._number_of != NONE) & ~self._dirty & (self._used_turn != keep_turn))
        if len(candidates) < at_least:
            raise NoRoom(f"{at_least} more slots are needed and {len(candidates)} are clean; raise state.slots")
        count = min(len(candidates), max(at_least, self.capacity // 64))  # in bulk: the search costs O(capacity)
        if count < len(candidates):
            oldest = np.argpartition(self._used_turn[candidates], count - 1)[:count]
            candidates = candidates[oldest]
        self._release(candidates)
        self.evicted += count

    def _release(self, slots: NDArray[np.int64]) -> None:
        self._slot_of[self._number_of[slots]] = NONE
        self._number_of[slots] = NONE
        self._dirty[slots] = False
        self._free[self._free_count : self._free_count + len(slots)] = slots
        self._free_count += len(slots)

    def _cover(self, numbers: NDArray[np.int64]) -> None:
        top = int(numbers.max(initial=-1)) + 1
        if top > len(self._slot_of):
            grown = np.full(max(top, 2 * len(self._slot_of)), NONE, np.int64)
            grown[: len(self._slot_of)] = self._slot_of
            self._slot_of = grown
