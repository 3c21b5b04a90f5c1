"""Batches that unpack to more than may be held, met by those who read whole partitions, on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bombs import BOMB_MIB, send_bombs, send_odd, taking

from services.brokers import kafka_range, kafka_sentinels
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_changelog import KafkaChangelog
from services.brokers.kafka_client import ColumnProducer, read_topic
from services.brokers.kafka_connect import open_admin
from services.brokers.kafka_models_in_use import models_named
from services.brokers.kafka_source import KafkaSource
from services.codecs import dead_letters
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.predictor.ports import Refused
from services.records import Encoded, Reason, Records

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


def test_one_of_too_many_headers_and_one_of_too_much_json_are_dead_letters_and_what_is_behind_them_is_read(
    broker: DevBroker, options: dict[str, Any], topic: str
) -> None:
    good = b'{"at":2,"x":[2.0]}'
    send_odd(broker.bootstrap, topic, headers=2_000_000, lists=5_000_000)
    write(options, topic, good)
    decoder = ReadingDecoder(Schema(("flow",)))
    told: list[str] = []

    def read() -> tuple[list[int], list[Encoded]]:
        offsets: list[int] = []
        letters: list[Encoded] = []
        source = KafkaSource(options, topic, [0], max_poll_bytes=64 << 20, notify=lambda event, **_: told.append(event))
        try:
            while 2 not in offsets:
                for records in source.poll(1000, 1.0):
                    readings, rejected = decoder.decode(records)
                    offsets += readings.offsets.tolist()
                    letters.append(dead_letters.encode(rejected, topic, "group", 0))
        finally:
            source.close()
        return offsets, letters

    (offsets, letters), more_mib = taking(read)
    assert offsets == [2] and more_mib < 2 * FEW_MIB  # unpacked they have 23 MiB, for a moment three times
    assert not told  # of single records the dead letters tell
    found = [(value, dict(own)) for one in letters for value, own in zip(one.values, one.headers or [], strict=True)]
    assert [own["streamrnn.reason"] for _, own in found] == [b"too_large"] * 2
    assert found[0][0] == b'{"at":1,"x":[1.0]}' and "ab" not in found[0][1]
    assert found[0][1]["__connect.errors.exception.message"].startswith(b"The record at offset 0 has 2,000,000 headers")
    assert found[1][1]["__connect.errors.exception.message"].startswith(b"The value has 15,000,0")
    # So do an archive and a training, which take ranges, and the doctor, who looks at what comes next.
    parts, more_mib = taking(lambda: ranged(options, topic, 0, 3, 64 << 20))
    refused = {int(part.offsets[row]): why for part in parts for row, (why, _) in part.refused.items()}
    assert sum(map(len, parts)) == 3 and refused == {0: Reason.TOO_LARGE} and more_mib < 2 * FEW_MIB
    ((said, trouble),) = kafka_range.unreadable(options, topic, {0: [0, 2]}, {0: (0, 3)}, 64 << 20)
    assert trouble == "refused" and "partition 0: The record at offset 0 has 2,000,000 headers" in said


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
