"""A sentinel: the record of a changelog's partition that says how far its state rows go, and of which topics they are.

Whatever an epoch writes to a partition ends with one, in the same transaction. Its key is empty, which no stream's is,
so compaction keeps the newest. Together with the group's offsets it tells a restored store from one that is behind,
and when the group's offsets have expired it is what is left of them (ADR 26). Imports `services.records` only.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from services.records import Records, Role, TopicIds

KEY = b""
ROLES = tuple(Role)
_LAYOUT = struct.Struct("<2sHiq" + "8s" * len(ROLES))
_MARK, _VERSION = b"SE", 1


class SentinelRefused(ValueError):
    """A record without a stream's name is no sentinel of this pipeline. The sentence says which, and the fix."""


class Sentinel(NamedTuple):
    """How far a partition's state rows go."""

    partition: int
    next_offset: int  # of the first reading that is not folded in
    topic_ids: TopicIds


def encode(sentinel: Sentinel) -> bytes:
    """The record's value."""
    ids = (sentinel.topic_ids.get(role, "").encode() for role in ROLES)
    return _LAYOUT.pack(_MARK, _VERSION, sentinel.partition, sentinel.next_offset, *ids)


def newest(records: Records) -> Sentinel | None:
    """The last sentinel among the records of a partition; None where there is none. Raises SentinelRefused for a
    record with an empty key that is none, or of another partition.
    """
    if KEY not in records.keys:
        return None
    row = len(records.keys) - 1 - records.keys[::-1].index(KEY)
    value = records.values[row]
    if value is None:
        return None
    if len(value) == _LAYOUT.size:
        mark, version, partition, next_offset, *ids = _LAYOUT.unpack(value)
        if (mark, version, partition) == (_MARK, _VERSION, records.partition):
            known = {role: one.rstrip(b"\0").decode() for role, one in zip(ROLES, ids, strict=True)}
            return Sentinel(partition, next_offset, {role: one for role, one in known.items() if one})
    raise SentinelRefused(
        f"changelog, partition {records.partition}, offset {int(records.offsets[row])}: the record without a stream's "
        "name is no sentinel of this release and partition; point topics.changelog at the pipeline's own topic"
    )
