"""From decoded polls to batches: which readings are stepped together, and committed together.

A batch becomes one epoch. A poll is one batch unless it names more distinct streams than there are slots; then it is
cut, never inside a packed record and never leaving a hole in a partition's offsets. Imports numpy, records and the
state store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.predictor.state_store import StateStore
from services.records import Readings, Records, Rejected

ROW_BITS = 15
"""Of a reading's tag, which is its offset in the bits above and its row in the packed record plus one in these."""
TAGGED_ROWS = (1 << ROW_BITS) - 1
"""Rows of a packed record that tags can tell from each other."""


@dataclass(frozen=True, slots=True)
class Part:
    """One partition's share of a batch: everything between two offsets, accepted or rejected."""

    partition: int
    started: int  # the group's committed offset before it
    next_offset: int  # offset where the partition's next part begins
    readings: Readings  # [n]
    numbers: NDArray[np.int64]  # [n], stream numbers of the readings
    rejected: Rejected
    records: Records  # as they were polled, of this part and of those cut from the same poll


@dataclass(frozen=True, slots=True)
class Batch:
    """Parts that are stepped and committed together."""

    parts: tuple[Part, ...]

    @property
    def readings(self) -> int:
        """Accepted readings in all parts."""
        return sum(len(part.readings) for part in self.parts)

    def x(self) -> NDArray[np.float32]:
        """Values of all parts' readings, one after the other [readings, features]."""
        return np.concatenate([part.readings.x for part in self.parts])

    def column(self, name: str) -> NDArray[Any]:
        """Field `name` of all parts' readings, one after the other [readings]."""
        return np.concatenate([getattr(part.readings, name) for part in self.parts])

    def numbers(self) -> NDArray[np.int64]:
        """Stream numbers of all parts' readings [readings]."""
        return np.concatenate([part.numbers for part in self.parts])

    def tags(self) -> NDArray[np.int64]:
        """By which a prediction that comes later names its reading [readings]."""
        tags: NDArray[np.int64] = self.column("offsets") << ROW_BITS | self.column("rows").astype(np.int64) + 1
        return tags


def untagged(tags: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offsets and rows [n] of the readings named by tags [n]; see `Batch.tags`. Raises ValueError for a tag that names
    none: it came from a state row that nobody here has written.
    """
    if (tags < 0).any():
        raise ValueError(f"a state row names reading {int(tags.min())}, which cannot be")
    return tags >> ROW_BITS, ((tags & TAGGED_ROWS) - 1).astype(np.int32)


def part_of(records: Records, readings: Readings, rejected: Rejected, started: int, store: StateStore) -> Part:
    """The whole of one poll's records of a partition as a part."""
    numbers = store.numbers(records.partition, readings.streams)
    return Part(records.partition, started, int(records.offsets[-1]) + 1, readings, numbers, rejected, records)


def without_folded(part: Part, store: StateStore) -> Part:
    """The part without the readings whose stream's state row holds them already (at-least-once after a crash)."""
    new = part.readings.offsets > store.offsets[part.numbers]
    if new.all():
        return part
    return replace(part, readings=select(part.readings, np.flatnonzero(new)), numbers=part.numbers[new])


def batches(parts: Sequence[Part], slots: int) -> Iterator[Batch]:
    """Cuts `parts` so that no batch names more than `slots` distinct streams."""
    gathered: list[Part] = []
    distinct = 0
    for part in parts:
        while True:
            # Streams of different partitions are different numbers, so distinct counts add up.
            _, first = np.unique(part.numbers, return_index=True)
            room = slots - distinct
            if len(first) <= room:
                gathered.append(part)
                distinct += len(first)
                break
            head, part = _cut(part, int(np.sort(first)[room]))
            if head is not None:
                gathered.append(head)
            elif not gathered:
                raise ValueError(f"a packed record names more than {slots} streams; raise state.slots")
            yield Batch(tuple(gathered))
            gathered, distinct = [], 0
    if gathered:
        yield Batch(tuple(gathered))


def _cut(part: Part, row: int) -> tuple[Part | None, Part]:
    """Cuts before reading `row`, moved back to the start of its record. None when nothing would be left in front."""
    offset = int(part.readings.offsets[row])
    row = int(np.searchsorted(part.readings.offsets, offset, side="left"))
    if row == 0 and not (part.rejected.records.offsets < offset).any():
        return None, part
    rejected = int(np.searchsorted(part.rejected.records.offsets, offset, side="left"))
    n, k = len(part.numbers), len(part.rejected)
    head = replace(
        part,
        next_offset=offset,
        readings=select(part.readings, np.arange(row)),
        numbers=part.numbers[:row],
        rejected=_select_rejected(part.rejected, 0, rejected),
    )
    tail = replace(
        part,
        started=offset,
        readings=select(part.readings, np.arange(row, n)),
        numbers=part.numbers[row:],
        rejected=_select_rejected(part.rejected, rejected, k),
    )
    return head, tail


def select(readings: Readings, rows: NDArray[np.int64]) -> Readings:
    """The readings at `rows`, in that order."""
    return replace(
        readings,
        offsets=readings.offsets[rows],
        rows=readings.rows[rows],
        streams=[readings.streams[row] for row in rows.tolist()],
        at_ms=readings.at_ms[rows],
        x=readings.x[rows],
        seq=readings.seq[rows],
        arrived_ms=readings.arrived_ms[rows],
        end=readings.end[rows],
    )


def _select_rejected(rejected: Rejected, start: int, end: int) -> Rejected:
    records = rejected.records
    headers: Mapping[int, Sequence[tuple[str, bytes | None]]] = {
        row - start: value for row, value in records.headers.items() if start <= row < end
    }
    cut = replace(
        records,
        offsets=records.offsets[start:end],
        timestamps_ms=records.timestamps_ms[start:end],
        keys=records.keys[start:end],
        values=records.values[start:end],
        headers=headers,
    )
    return Rejected(cut, rejected.reasons[start:end], rejected.details[start:end])
