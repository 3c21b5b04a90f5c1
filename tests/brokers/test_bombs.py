"""Batches that unpack to more than may be held, met by those who read whole partitions, on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bombs import BOMB_MIB, send_bombs, taking

from services.brokers import kafka_range, kafka_sentinels
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_changelog import KafkaChangelog
from services.brokers.kafka_client import ColumnProducer, read_topic
from services.brokers.kafka_connect import open_admin
from services.brokers.kafka_named import models_named
from services.predictor.ports import Refused
from services.records import Reason, Records

FEW_MIB = 60
"""Less than any of the bombs but one, and more than reading takes."""


@pytest.fixture
def options(broker: DevBroker) -> dict[str, Any]:
    return {"bootstrap_servers": broker.bootstrap}


@pytest.fixture
def topic(options: dict[str, Any], topic_names: Callable[[], str]) -> str:
    name = topic_names()
    with open_admin(options) as admin:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics([name])
    return name


def write(options: dict[str, Any], topic: str, *values: bytes) -> None:
    with ColumnProducer(options) as producer:
        producer.append(topic, 0, [b"pump-1"] * len(values), list(values), time.time_ns() // 1_000_000)
        producer.flush()


def ranged(options: dict[str, Any], topic: str, first: int, end: int, most_bytes: int = 8 << 20) -> list[Records]:
    return list(kafka_range.read_range(options, topic, {0: (first, end)}, most_bytes))


def test_a_range_has_one_refused_record_for_each_and_all_that_is_around_them(
    broker: DevBroker, options: dict[str, Any], topic: str
) -> None:
    write(options, topic, b"a", b"b")
    for kind, mib in BOMB_MIB.items():
        send_bombs(broker.bootstrap, topic, kind, mib=min(100, mib))
        write(options, topic, kind.encode())
    parts, more_mib = taking(lambda: ranged(options, topic, 0, 10))
    assert more_mib < FEW_MIB
    values = [value for part in parts for value in part.values]
    assert values == [b"a", b"b", None, b"gzip", None, b"lz4", None, b"zstd", None, b"snappy"]
    assert np.concatenate([part.offsets for part in parts]).tolist() == list(range(10))
    refused = {int(part.offsets[row]): why for part in parts for row, why in part.refused.items()}
    assert {at: reason for at, (reason, _) in refused.items()} == dict.fromkeys((2, 4, 6, 8), Reason.BATCH_TOO_LARGE)
    for at, (_, why) in refused.items():
        assert f"at offsets {at} to {at} unpacks to more than 8 MiB" in why


def test_a_range_that_begins_or_ends_inside_of_one_names_it(
    broker: DevBroker, options: dict[str, Any], topic: str
) -> None:
    write(options, topic, b"a")
    send_bombs(broker.bootstrap, topic, mib=20, records=4)
    write(options, topic, b"b")

    def seen(first: int, end: int) -> list[tuple[int, bool]]:
        return [
            (offset, row in part.refused)
            for part in ranged(options, topic, first, end)
            for row, offset in enumerate(part.offsets.tolist())
        ]

    assert seen(0, 6) == [(0, False), (4, True), (5, False)]
    assert seen(0, 3) == [(0, False), (2, True)]
    assert seen(3, 6) == [(4, True), (5, False)]
    assert seen(0, 1) == [(0, False)] and seen(5, 6) == [(5, False)]


def test_many_small_batches_are_not_held_at_once(broker: DevBroker, options: dict[str, Any], topic: str) -> None:
    send_bombs(broker.bootstrap, topic, mib=20, times=20)

    def sizes_mib() -> list[int]:
        parts = kafka_range.read_range(options, topic, {0: (0, 20)}, 24 << 20)
        return [len(value or b"") >> 20 for part in parts for value in part.values]

    sizes, more_mib = taking(sizes_mib)
    assert sizes == [20] * 20
    assert more_mib < 300


def test_a_changelog_is_refused_with_what_to_do_and_not_passed_over(
    broker: DevBroker, options: dict[str, Any], topic: str
) -> None:
    send_bombs(broker.bootstrap, topic)
    said = rf"topic {topic}, partition 0: .* at offsets 0 to 0 unpacks to more than 128 MiB \(epoch.max_poll_mib\)"
    changelog = KafkaChangelog(options, topic, most_bytes=1 << 20)
    readers: list[Callable[[], object]] = [
        lambda: list(changelog.read(0)),
        lambda: models_named(options, topic),
        lambda: kafka_sentinels.newest(options, topic, 1, lambda sentinel: True),
        lambda: read_topic(options, topic),
    ]

    def refused(read: Callable[[], object]) -> str:
        with pytest.raises(Refused, match=said) as raised:
            read()
        return str(raised.value)

    sentences = []
    for read in readers:
        sentence, more_mib = taking(lambda read=read: refused(read))  # type: ignore[misc]
        assert more_mib < 300  # unbounded it would be three times the bomb
        sentences.append(sentence)
    changelog.close()
    assert "delete the topic, make it anew with `streamrnn topics create` and start over with" in sentences[0]
    raised = KafkaChangelog(options, topic, most_bytes=512 << 20)
    assert [len(records.values[0] or b"") >> 20 for records in raised.read(0)] == [BOMB_MIB["gzip"]]
    raised.close()
