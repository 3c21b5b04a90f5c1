"""State rows as they were committed: `ports.Changelog` on kafka-python, and reading partitions from end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from kafka import KafkaConsumer, TopicPartition

from services.brokers import kafka_fetch, kafka_stable
from services.brokers.kafka_connect import ANSWER_MS, asked, check_partitions, close_consumer, open_consumer
from services.brokers.kafka_fetch import READ_BYTES, PollBudget
from services.brokers.kafka_merged import merged
from services.brokers.kafka_options import Options
from services.predictor.ports import Refused, Retriable
from services.predictor.topic_ids import START_OVER
from services.records import Records

CHUNK_RECORDS = 20_000
"""About so many records are decoded at a time."""

SILENT_S = 10.0
"""A broker that sends nothing for so long, though there is more to read, is away."""


GIVE_UP = (
    "The states in it would be lost, so it is not passed over. To give all states up, delete the topic, make it anew "
    f"with `streamrnn topics create` and start over with `{START_OVER}`."
)


class KafkaChangelog:
    """See ports.Changelog. Raises Retriable when the broker does not answer, Refused when the topic is missing, and for
    a batch of records that unpacks to more than `most_bytes`, or READ_BYTES where that is more: rows stay readable
    however little polls may hold.
    """

    def __init__(
        self, options: Options, topic: str, *, columnar: bool | None = None, most_bytes: int = READ_BYTES
    ) -> None:
        self._options, self._topic, self._columnar = options, topic, columnar
        self._room = PollBudget(max(most_bytes, READ_BYTES), refuses=False)
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
        tp = TopicPartition(self._topic, partition)
        return read_span(self._options, self._opened(partition), tp, first, end, otherwise=GIVE_UP)

    def close(self) -> None:
        """See ports.Changelog."""
        if self._consumer is not None:
            close_consumer(self._consumer)
            self._consumer = None

    def _opened(self, partition: int) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = open_reader(self._options, columnar=self._columnar, room=self._room)
        check_partitions(self._options, self._consumer, self._topic, [partition])
        return self._consumer


def open_reader(
    options: Options,
    *,
    isolation: str = "read_committed",
    columnar: bool | None = None,
    room: PollBudget | None = None,
) -> KafkaConsumer:
    """A consumer to read whole partitions with, each poll of which may take so much `room`; None: READ_BYTES."""
    consumer = open_consumer(options, isolation_level=isolation)
    if columnar is not False:
        kafka_fetch.install(consumer, room or PollBudget(READ_BYTES, refuses=False))
    return consumer


def span(options: Options, consumer: KafkaConsumer, tp: TopicPartition) -> tuple[int, int]:
    """First offset and end of a partition; for a read-committed consumer the end is the last stable offset."""
    doing = f"looking for the span of {tp.topic}"
    first = asked(options, doing, consumer.beginning_offsets, [tp], timeout_ms=ANSWER_MS)[tp]
    return first, asked(options, doing, consumer.end_offsets, [tp], timeout_ms=ANSWER_MS)[tp]


def read_span(
    options: Options, consumer: KafkaConsumer, tp: TopicPartition, first: int, end: int, *, otherwise: str | None = ""
) -> Iterator[Records]:
    """Records from `first` up to but not including `end`, oldest first. Raises Refused for a batch that the consumer
    has no room for, with what to do `otherwise`; with None it comes as one refused record.

    Ends by position, not by the offsets of records: the last offsets can be markers, aborted, or compacted away.
    """
    if first >= end:
        return
    consumer.assign([tp])
    consumer.seek(tp, first)
    moved_s, position = time.monotonic(), first
    while position < end:
        kafka_fetch.renew(consumer)
        fetched = asked(options, f"reading {tp.topic}", consumer.poll, 500, max_records=CHUNK_RECORDS)
        part = up_to(merged(tp.partition, fetched.get(tp, [])), end)
        if otherwise is not None and part.refused:
            _, why = part.refused[min(part.refused)]
            raise Refused(f"topic {tp.topic}, partition {tp.partition}: {why} {otherwise}".rstrip())
        if len(part):
            yield part
        now_s, before = time.monotonic(), position
        position = asked(options, f"reading {tp.topic}", consumer.position, tp, timeout_ms=ANSWER_MS)
        if position != before:
            moved_s = now_s
        elif now_s - moved_s > SILENT_S:
            raise Retriable(f"{tp.topic}, partition {tp.partition}: nothing came after offset {position} of {end}")


def up_to(records: Records, end: int) -> Records:
    """The rows up to but not including `end`; of a refused batch that goes on behind it, what lies before."""
    stop = int(np.searchsorted(records.offsets, end))
    if records.begins.get(stop, end) >= end:
        return records.rows(0, stop)
    some = records.rows(0, stop + 1)
    return replace(some, offsets=np.minimum(some.offsets, end - 1))
