"""The newest sentinels of a changelog, found at its end without reading all of it."""

from __future__ import annotations

from kafka import KafkaConsumer, TopicPartition

from services.brokers.kafka_changelog import open_reader, read_span, span
from services.brokers.kafka_connect import check_partitions, close_consumer
from services.brokers.kafka_options import Options
from services.codecs import sentinels
from services.codecs.sentinels import Sentinel

TAIL = 1000
"""Offsets from the end that are looked through first: what an epoch writes ends with its sentinel."""


def newest(options: Options, topic: str, partitions: int) -> dict[int, Sentinel]:
    """By partition, of those that have one. Raises Unsettled, Refused for a missing topic, and SentinelRefused
    for records of something else.
    """
    consumer = open_reader(options)
    try:
        check_partitions(options, consumer, topic, range(partitions))
        found = {one: _newest(options, consumer, TopicPartition(topic, one)) for one in range(partitions)}
    finally:
        close_consumer(consumer)
    return {partition: sentinel for partition, sentinel in found.items() if sentinel is not None}


def _newest(options: Options, consumer: KafkaConsumer, tp: TopicPartition) -> Sentinel | None:
    first, end = span(options, consumer, tp)
    until, tail = end, TAIL
    while until > first:
        begin = max(first, until - tail)
        last = None
        for records in read_span(options, consumer, tp, begin, until):
            last = sentinels.newest(records) or last
        if last is not None:
            return last
        until, tail = begin, tail * 10
    return None
