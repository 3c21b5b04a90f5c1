"""Which models a pipeline's state rows name: what must not be removed while a stream may come back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from services.brokers.kafka_changelog import KafkaChangelog
from services.brokers.kafka_connect import open_admin
from services.brokers.kafka_fetch import READ_BYTES
from services.brokers.kafka_options import Options
from services.brokers.kafka_topics import existing
from services.codecs import state_rows
from services.codecs.state_rows import StateRowOfAnotherVersion, StateRowRefused
from services.faults import by_halves
from services.records import RECENT, Records, StateRows

_IDS = re.compile(rb"(?=([0-9a-f]{12}))")  # a model's id anywhere, overlapping others


@dataclass
class ModelsInUse:
    """Models that made a memory in the newest row of some stream, and what could not be read on the way."""

    models: set[str] = field(default_factory=set)
    unread: int = 0  # records that are no state rows of this pipeline
    first: str = ""  # what the first of them is
    another_version: str = ""  # what the first row of another release is: it may name any model


def models_named(options: Options, changelog: str, most_bytes: int = READ_BYTES) -> ModelsInUse:
    """Reads the whole topic. Of a row that cannot be read counts whatever in it could be a model's id, and so does what
    came before it under its key. Raises Retriable, and Refused for a missing topic or a batch that unpacks to too much.
    """
    with open_admin(options) as admin:
        partitions = existing(options, admin, [changelog])[0].partitions
    source = KafkaChangelog(options, changelog, most_bytes=most_bytes)
    named = ModelsInUse()
    try:
        for partition in range(partitions):
            whose: dict[bytes | None, set[str]] = {}
            for records in source.read(partition):
                rows, ended, unread = _read(records, named)
                for stream in ended:
                    whose.pop(stream, None)
                for stream in rows.streams:
                    whose[stream] = set()
                for memory in rows.memories:
                    for row in memory.index.tolist():
                        whose[rows.streams[row]].add(memory.name)
                for key, value in zip(records.keys, records.values, strict=True) if unread else ():
                    if key in unread:
                        whose.setdefault(key, set()).update(found.decode() for found in _IDS.findall(value or b""))
            named.models = named.models.union(*whose.values())
    finally:
        source.close()
    named.models.discard(RECENT)
    return named


def _read(records: Records, named: ModelsInUse) -> tuple[StateRows, list[bytes], set[bytes | None]]:
    """State rows, streams that ended, and the keys whose newest record here cannot be read, which are counted."""
    try:
        return *state_rows.decode(records), set()
    except StateRowRefused as error:
        newest = state_rows.newest(records)

        def decoded(some: np.ndarray) -> tuple[StateRows, list[bytes]]:
            return state_rows.decode(newest.take(some.tolist()))

        unread = list(by_halves(len(newest), decoded, error))
    for row in unread:
        try:
            decoded(np.array([row]))
        except StateRowRefused as error:
            named.first = named.first or str(error)
            if isinstance(error, StateRowOfAnotherVersion):
                named.another_version = named.another_version or str(error)
    named.unread += len(unread)
    return *decoded(np.setdiff1d(np.arange(len(newest)), unread)), {newest.keys[row] for row in unread}
