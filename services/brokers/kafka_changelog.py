"""State rows as they were committed: `ports.Changelog` on kafka-python, and reading partitions from end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kafka import KafkaConsumer, TopicPartition

from services.brokers import kafka_fetch, kafka_stable
from services.brokers.kafka_connect import ANSWER_MS, asked, check_partitions, close_consumer, open_consumer
from services.brokers.kafka_options import Options
from services.predictor.ports import Unsettled
from services.records import Records

CHUNK_RECORDS = 20_000
"""About so many records are decoded at a time."""

SILENT_S = 10.0
"""A broker that sends nothing for so long, though there is more to read, is away."""


class KafkaChangelog:
    """See ports.Changelog. Raises Unsettled when the broker does not answer, Refused when the topic is missing."""

    def __init__(self, options: Options, topic: str, *, columnar: bool | None = None) -> None:
        self._options, self._topic, self._columnar = options, topic, columnar
        self._consumer: KafkaConsumer | None = None

    def span(self, partition: int) -> tuple[int, int]:
        """See ports.Changelog."""
        return span(self._options, self._opened(partition), TopicPartition(self._topic, partition))

    def held_open(self, partition: int) -> str:
        """See ports.Changelog."""
        return kafka_stable.held_open(self._options, self._topic, [partition]).get(partition, "")

    def read(self, partition: int) -> Iterator[Records]:
        """See ports.Changelog."""
        # The end is taken now: a generator would begin only when it is first asked.
        first, end = self.span(partition)
        return read_span(self._options, self._opened(partition), TopicPartition(self._topic, partition), first, end)

    def close(self) -> None:
        """See ports.Changelog."""
        if self._consumer is not None:
            close_consumer(self._consumer)
            self._consumer = None

    def _opened(self, partition: int) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = open_reader(self._options, columnar=self._columnar)
        check_partitions(self._options, self._consumer, self._topic, [partition])
        return self._consumer


def open_reader(options: Options, *, isolation: str = "read_committed", columnar: bool | None = None) -> KafkaConsumer:
    """A consumer to read whole partitions with."""
    consumer = open_consumer(options, isolation_level=isolation)
    if columnar is not False:
        kafka_fetch.install(consumer)
    return consumer


def span(options: Options, consumer: KafkaConsumer, tp: TopicPartition) -> tuple[int, int]:
    """First offset and end of a partition; for a read-committed consumer the end is the last stable offset."""
    doing = f"looking for the span of {tp.topic}"
    first = asked(options, doing, consumer.beginning_offsets, [tp], timeout_ms=ANSWER_MS)[tp]
    return first, asked(options, doing, consumer.end_offsets, [tp], timeout_ms=ANSWER_MS)[tp]


def read_span(options: Options, consumer: KafkaConsumer, tp: TopicPartition, first: int, end: int) -> Iterator[Records]:
    """Records from `first` up to but not including `end`, oldest first.

    Ends by position, not by the offsets of records: the last offsets can be markers, aborted, or compacted away.
    """
    if first >= end:
        return
    consumer.assign([tp])
    consumer.seek(tp, first)
    moved_s, position = time.monotonic(), first
    while position < end:
        fetched = asked(options, f"reading {tp.topic}", consumer.poll, 500, max_records=CHUNK_RECORDS)
        records = kafka_fetch.merged(tp.partition, fetched.get(tp, []))
        if len(records) and len(part := kafka_fetch.before(records, end)):
            yield part
        now_s, before = time.monotonic(), position
        position = asked(options, f"reading {tp.topic}", consumer.position, tp, timeout_ms=ANSWER_MS)
        if position != before:
            moved_s = now_s
        elif now_s - moved_s > SILENT_S:
            raise Unsettled(f"{tp.topic}, partition {tp.partition}: nothing came after offset {position} of {end}")
