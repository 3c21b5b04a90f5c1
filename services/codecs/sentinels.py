"""A sentinel: the record of a changelog's partition that says how far its state rows go, and of which topics they are.

Whatever an epoch writes to a partition ends with one, in the same transaction. Its key is empty, which no stream's is,
so compaction keeps the newest. Together with the group's offsets it tells a restored store from one that is behind,
and when the group's offsets have expired it is what is left of them (ADR 26). Imports `services.records` only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from services.records import Records, Role, TopicIds

KEY = b""
ROLES = tuple(Role)
_LAYOUT = struct.Struct("<2sHiqq" + "8s" * len(ROLES))
_MARK, _VERSION = b"SE", 1


FIX = "Only the service's own user should be allowed to write to topics.changelog."


class SentinelRefused(ValueError):
    """A record without a stream's name, at `offset`, is no sentinel of this pipeline: `said` says which; see FIX."""

    def __init__(self, offset: int, said: str) -> None:
        super().__init__(f"{said}. {FIX}")
        self.offset, self.said = offset, said


class Sentinel(NamedTuple):
    """How far a partition's state rows go."""

    partition: int
    next_offset: int  # of the first reading that is not folded in
    first: int  # offset with which the changelog's partition began; compaction leaves it where it is
    topic_ids: TopicIds


def encode(sentinel: Sentinel) -> bytes:
    """The record's value."""
    ids = (sentinel.topic_ids.get(role, "").encode() for role in ROLES)
    return _LAYOUT.pack(_MARK, _VERSION, sentinel.partition, sentinel.next_offset, sentinel.first, *ids)


@dataclass(slots=True)
class Search:
    """For the newest sentinel of a partition that is of today's topics, among records that are shown oldest first.
    Whoever may write to the changelog can put another record in its place: then an older one counts.
    """

    ours: Callable[[Sentinel], bool]  # whether it is of today's topics
    found: Sentinel | None = None
    other: Sentinel | None = None  # the newest one of topics before today's
    stray: SentinelRefused | None = None  # of the last record with an empty key, where that is not the one found

    def see(self, records: Records) -> None:
        """The next records of the partition."""
        newer: SentinelRefused | None = None
        other: Sentinel | None = None
        for row in _rows(records):
            try:
                sentinel = _decoded(records, row)
            except SentinelRefused as error:
                newer = newer or error
                continue
            if self.ours(sentinel):
                self.found, self.stray = sentinel, None
                break
            other = other or sentinel
            newer = newer or _refused(records, row, "is a sentinel of other topics")
        self.other, self.stray = other or self.other, newer or self.stray


def _rows(records: Records) -> Iterator[int]:
    """Of the records with an empty key, the newest first."""
    if KEY in records.keys:
        yield from (row for row in range(len(records.keys) - 1, -1, -1) if records.keys[row] == KEY)


def _decoded(records: Records, row: int) -> Sentinel:
    """Raises SentinelRefused for a record that is no sentinel, or of another partition."""
    value = records.values[row] or b""
    if len(value) == _LAYOUT.size:
        mark, version, partition, next_offset, first, *ids = _LAYOUT.unpack(value)
        known = {role: one.rstrip(b"\0") for role, one in zip(ROLES, ids, strict=True)}
        true = next_offset >= 0 and all(one.isascii() for one in known.values())
        if true and (mark, version, partition) == (_MARK, _VERSION, records.partition):
            return Sentinel(partition, next_offset, first, {role: one.decode() for role, one in known.items() if one})
    raise _refused(records, row, "is no sentinel of this release and partition")


def _refused(records: Records, row: int, what: str) -> SentinelRefused:
    return SentinelRefused(
        int(records.offsets[row]),
        f"changelog, partition {records.partition}, offset {int(records.offsets[row])}: the record without a stream's "
        f"name {what}",
    )
