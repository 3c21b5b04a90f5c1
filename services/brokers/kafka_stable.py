"""Transactions that have not ended, and so hide what lies behind them from whoever reads committed records only.

Kafka's last stable offset is the first offset of the oldest open transaction. kafka-python lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.protocol.consumer import IsolationLevel

from services.brokers.kafka_connect import asked, open_admin
from services.brokers.kafka_options import Options, brokers


class Holder(NamedTuple):
    """The oldest open transaction of a partition."""

    since: int  # its first offset
    sentence: str  # whose it is, and what to do


def held_open(
    options: Options, topic: str, partitions: Iterable[int], ours: Callable[[str], bool] = lambda name: False
) -> dict[int, str]:
    """The sentences of `holders`."""
    return {partition: one.sentence for partition, one in holders(options, topic, partitions, ours).items()}


def holders(
    options: Options, topic: str, partitions: Iterable[int], ours: Callable[[str], bool] = lambda name: False
) -> dict[int, Holder]:
    """Partition -> who holds it open; without those that nobody does, and those that are held by a transactional id of
    `ours`. Raises Retriable when the broker does not answer.
    """
    tps = [TopicPartition(topic, partition) for partition in partitions]
    doing = f"looking for open transactions in {topic}"
    with open_admin(options) as admin:

        def at(isolation: int) -> dict[TopicPartition, int]:
            wanted = dict.fromkeys(tps, OffsetSpec.LATEST)
            found = asked(options, doing, admin.list_partition_offsets, wanted, isolation_level=isolation)
            return {tp: one.offset for tp, one in found.items()}

        # The end first: what is appended between the two questions must not look as if it were held.
        end = at(IsolationLevel.READ_UNCOMMITTED)
        stable = at(IsolationLevel.READ_COMMITTED)
        suspects = {tp: _holder(admin, tp, stable[tp]) for tp in tps if stable[tp] < end[tp]}
        if not suspects:
            return {}
        later = at(IsolationLevel.READ_COMMITTED)  # one that ended while we asked whose it is holds nothing
    return {
        tp.partition: Holder(stable[tp], _sentence(options, tp, stable[tp], end[tp], producer, name))
        for tp, (producer, name) in suspects.items()
        if later[tp] == stable[tp] and not ours(name)
    }


def _holder(admin: KafkaAdminClient, tp: TopicPartition, stable: int) -> tuple[int, str]:
    """Producer id and transactional id; -1 and empty where Kafka does not say, or not any more."""
    producer, name = -1, ""
    with suppress(Exception):
        for one in admin.describe_producers([tp])[tp].active_producers:
            if one.current_transaction_start_offset == stable:
                producer = one.producer_id
    if producer >= 0:
        with suppress(Exception):  # a hanging transaction is one that its coordinator knows nothing of
            for found in admin.list_transactions(producer_id_filters=[producer]).values():
                name = next((one.transactional_id for one in found), name)
    return producer, name


def _sentence(options: Options, tp: TopicPartition, stable: int, end: int, producer: int, name: str) -> str:
    whose = f"producer id {producer}" if producer >= 0 else "a producer that Kafka does not name"
    known = f", transactional id {name}" if name else ""
    return (
        f"topic {tp.topic}, partition {tp.partition}: a transaction of {whose}{known} has been open since offset "
        f"{stable} and hides what was committed behind it, up to {end}. End that program, or its transaction with "
        f"`kafka-transactions.sh --bootstrap-server {brokers(options)} abort --topic {tp.topic} "
        f"--partition {tp.partition} --start-offset {stable}`"
    )
