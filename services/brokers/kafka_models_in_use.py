"""Which models a pipeline's state rows name: what must not be removed while a stream may come back."""

from __future__ import annotations

from services.brokers.kafka_changelog import KafkaChangelog
from services.brokers.kafka_connect import open_admin
from services.brokers.kafka_fetch import READ_BYTES
from services.brokers.kafka_options import Options
from services.brokers.kafka_topics import existing
from services.codecs import state_rows
from services.records import RECENT


def models_named(options: Options, changelog: str, most_bytes: int = READ_BYTES) -> set[str]:
    """Models that made a memory in the newest row of some stream. Reads the whole topic. Raises Retriable, Refused for
    a missing topic or a batch that unpacks to too much, and StateRowRefused for records that are no state rows.
    """
    with open_admin(options) as admin:
        partitions = existing(options, admin, [changelog])[0].partitions
    source = KafkaChangelog(options, changelog, most_bytes=most_bytes)
    named: set[str] = set()
    try:
        for partition in range(partitions):
            whose: dict[bytes, set[str]] = {}
            for records in source.read(partition):
                rows, ended = state_rows.decode(records)
                for stream in ended:
                    whose.pop(stream, None)
                for stream in rows.streams:
                    whose[stream] = set()
                for memory in rows.memories:
                    for row in memory.index.tolist():
                        whose[rows.streams[row]].add(memory.name)
            named = named.union(*whose.values())
    finally:
        source.close()
    return named - {RECENT}
