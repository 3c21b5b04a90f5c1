"""A stretch of a topic: what is left of it, which offsets a time stands for, and its committed records in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from kafka import TopicPartition

from services.brokers.kafka_changelog import open_reader, read_span
from services.brokers.kafka_connect import ANSWER_MS, asked, check_partitions, close_consumer
from services.brokers.kafka_fetch import READ_BYTES, PollBudget, Unreadable
from services.brokers.kafka_options import Options
from services.records import Records

Trouble = Literal["codec", "damaged", "refused"]
"""Why a batch cannot be read: what unpacks it is not installed, its bytes are wrong, or a server makes one dead letter
of it.
"""
LOOK_BYTES = 64 << 10
"""What is fetched of a partition to look at one batch; a larger one comes whole all the same."""


def bounds(options: Options, topic: str) -> dict[int, tuple[int, int]]:
    """Partition -> (first offset that is left, stable end). Raises Refused for a missing topic, Retriable."""
    consumer = open_reader(options)
    try:
        check_partitions(options, consumer, topic, ())
        tps = [TopicPartition(topic, partition) for partition in sorted(consumer.partitions_for_topic(topic))]
        doing = f"looking for the span of {topic}"
        first = asked(options, doing, consumer.beginning_offsets, tps, timeout_ms=ANSWER_MS)
        end = asked(options, doing, consumer.end_offsets, tps, timeout_ms=ANSWER_MS)
        return {tp.partition: (first[tp], end[tp]) for tp in tps}
    finally:
        close_consumer(consumer)


def unreadable(
    options: Options,
    topic: str,
    places: Mapping[int, Sequence[int]],
    bounds: Mapping[int, tuple[int, int]],
    most_bytes: int = READ_BYTES,
) -> list[tuple[str, Trouble]]:
    """What keeps the record batches at these offsets of each partition from being read, a sentence each, by a server
    that polls `most_bytes`. `bounds` as the function of that name gives them. Raises Retriable.
    """
    found: dict[str, Trouble] = {}
    consumer = open_reader({**options, "max_partition_fetch_bytes": LOOK_BYTES}, room=PollBudget(most_bytes))
    try:
        for partition, offsets in sorted(places.items()):
            for offset in offsets:
                tp = TopicPartition(topic, partition)
                span = read_span(options, consumer, tp, offset, bounds[partition][1], otherwise=None)
                try:
                    records = next(span, None)
                except Unreadable as error:
                    found[str(error)] = "codec" if error.is_codec else "damaged"
                    continue
                if records is not None and 0 in records.refused:
                    found[f"topic {topic}, partition {partition}: {records.refused[0][1]}"] = "refused"
        return list(found.items())
    finally:
        close_consumer(consumer)


def offsets_at(options: Options, topic: str, partitions: Mapping[int, int]) -> dict[int, int | None]:
    """Partition -> the first offset whose record has at least the time given for it (ms, the record's Kafka timestamp);
    None where no record has. Raises Retriable.
    """
    consumer = open_reader(options)
    try:
        times = {TopicPartition(topic, partition): at_ms for partition, at_ms in partitions.items()}
        doing = f"looking for times in {topic}"
        found = asked(options, doing, consumer.offsets_for_times, times, timeout_ms=ANSWER_MS)
        known = {tp.partition: one.offset for tp, one in found.items() if one is not None}
        return {partition: known.get(partition) for partition in partitions}
    finally:
        close_consumer(consumer)


def read_range(
    options: Options, topic: str, wanted: Mapping[int, tuple[int, int]], most_bytes: int = READ_BYTES
) -> Iterator[Records]:
    """The committed records of [from, to) of each partition, oldest first, partition after partition, in parts of some
    ten thousand. A batch that unpacks to more than `most_bytes` is one refused record without key and value. Raises
    Retriable, also where retention eats the range while it is read.
    """
    consumer = open_reader(options, room=PollBudget(most_bytes, refuses=False))
    try:
        check_partitions(options, consumer, topic, wanted)
        for partition, (first, end) in sorted(wanted.items()):
            yield from read_span(options, consumer, TopicPartition(topic, partition), first, end, otherwise=None)
    finally:
        close_consumer(consumer)
