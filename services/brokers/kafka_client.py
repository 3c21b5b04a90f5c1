"""Plain ways in and out of Kafka for the demo, the tests and the tools: append columns, read topics, see offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from kafka import TopicPartition

from services.brokers import kafka_append, kafka_connect
from services.brokers.kafka_changelog import open_reader, read_span, span
from services.brokers.kafka_connect import asked, check_partitions, close_consumer, drop, open_admin
from services.brokers.kafka_merged import merged
from services.brokers.kafka_options import Options
from services.brokers.kafka_topics import max_message_bytes
from services.records import Encoded, Header, Records, Role

Isolation = Literal["read_committed", "read_uncommitted"]


class ColumnProducer:
    """An idempotent producer that is given columns. Not for the service itself: nothing here is transactional."""

    def __init__(self, options: Options, bulk: bool | None = None) -> None:
        self._options = options
        self._producer = kafka_connect.open_producer(options)
        self._appender = kafka_append.appender(self._producer, bulk)
        self._max_bytes: dict[str, int] = {}  # topic -> its max.message.bytes
        self._futures: list[Any] = []

    def append(
        self,
        topic: str,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamp_ms: int,
        headers: Sequence[Sequence[Header]] | None = None,
    ) -> None:
        """Sends without waiting. Raises Refused for a missing topic or a record that is too large for it."""
        if topic not in self._max_bytes:
            self._max_bytes |= max_message_bytes(self._options, [topic], partition + 1)
            asked(self._options, f"looking for topic {topic}", self._producer.partitions_for, topic)
        given = None if headers is None else list(headers)
        encoded = Encoded(Role.READINGS, partition, list(keys), list(values), timestamp_ms, given)
        self._futures += self._appender.append([kafka_append.prepare(topic, encoded, self._max_bytes[topic])])

    def flush(self, timeout_s: float = 60.0) -> None:
        """Returns when all that was appended has been written. Raises Retriable when some of it may not have been."""
        futures, self._futures = self._futures, []
        for future in futures:
            asked(self._options, "writing", future.get, timeout=timeout_s)

    def close(self) -> None:
        """Lets go; what was not flushed may be lost."""
        drop(self._producer, wait_s=5.0)

    def __enter__(self) -> ColumnProducer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_producer(options: Options, bulk: bool | None = None) -> ColumnProducer:
    """A producer of readings. Raises Retriable when the broker does not answer."""
    return ColumnProducer(options, bulk)


def read_topic(
    options: Options,
    topic: str,
    partitions: Iterable[int] | None = None,
    *,
    isolation: Isolation = "read_committed",
    starts: Mapping[int, int] | None = None,
) -> dict[int, Records]:
    """Everything in a topic up to its end now, by partition; `starts` leaves out what is before those offsets."""
    consumer = open_reader(options, isolation=isolation)
    try:
        check_partitions(options, consumer, topic, partitions or ())
        chosen = sorted(consumer.partitions_for_topic(topic) if partitions is None else partitions)
        result = {}
        for partition in chosen:
            tp = TopicPartition(topic, partition)
            first, end = span(options, consumer, tp)
            first = max(first, (starts or {}).get(partition, 0))
            result[partition] = merged(partition, list(read_span(options, consumer, tp, first, end)))
        return result
    finally:
        close_consumer(consumer)


def end_offsets(options: Options, topic: str, isolation: Isolation = "read_committed") -> dict[int, int]:
    """The end of each partition; for read_committed the last stable offset."""
    consumer = open_reader(options, isolation=isolation)
    try:
        check_partitions(options, consumer, topic, ())
        tps = [TopicPartition(topic, partition) for partition in sorted(consumer.partitions_for_topic(topic))]
        return {tp.partition: span(options, consumer, tp)[1] for tp in tps}
    finally:
        close_consumer(consumer)


def group_offsets(options: Options, group: str, topic: str) -> dict[int, int]:
    """The group's committed next offsets, as lag tools see them."""
    with open_admin(options) as admin:
        found = asked(options, f"reading group {group}", admin.list_group_offsets, {group: None})[group]
    return {tp.partition: offset.offset for tp, offset in found.items() if tp.topic == topic and offset.offset >= 0}


def group_lag(options: Options, group: str, topic: str) -> dict[int, int]:
    """Offsets between the group's position and the end of each partition; markers count."""
    ends, offsets = end_offsets(options, topic), group_offsets(options, group, topic)
    return {partition: end - offsets.get(partition, 0) for partition, end in ends.items()}
