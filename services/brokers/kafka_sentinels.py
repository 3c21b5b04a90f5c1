"""The newest sentinels of a changelog, found at its end without reading all of it."""

from __future__ import annotations

from collections.abc import Callable

from kafka import KafkaConsumer, TopicPartition

from services.brokers.kafka_changelog import open_reader, read_span, span
from services.brokers.kafka_connect import check_partitions, close_consumer
from services.brokers.kafka_options import Options
from services.codecs.sentinels import Search, Sentinel

TAIL = 1000
"""Offsets from the end that are looked through first: what an epoch writes ends with its sentinel."""


def newest(options: Options, topic: str, partitions: int, ours: Callable[[Sentinel], bool]) -> dict[int, Search]:
    """What was found in each partition, as by a start that reads all of it; `ours` as in `Search`. Raises Retriable,
    and Refused for a missing topic.
    """
    consumer = open_reader(options)
    try:
        check_partitions(options, consumer, topic, range(partitions))
        return {one: _newest(options, consumer, TopicPartition(topic, one), ours) for one in range(partitions)}
    finally:
        close_consumer(consumer)


def _newest(options: Options, consumer: KafkaConsumer, tp: TopicPartition, ours: Callable[[Sentinel], bool]) -> Search:
    first, end = span(options, consumer, tp)
    whole = Search(ours)
    until, tail = end, TAIL
    while until > first and whole.found is None:
        begin = max(first, until - tail)
        older = Search(ours)
        for records in read_span(options, consumer, tp, begin, until):
            older.see(records)
        whole = Search(ours, older.found, whole.other or older.other, whole.stray or older.stray)
        until, tail = begin, tail * 10
    return whole
