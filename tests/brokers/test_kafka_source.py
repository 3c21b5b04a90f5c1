"""The Kafka source beyond the contract: topics that are not right, brokers that come and go, readings that are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecordBatch
from waiting import wait_for

from services.brokers import kafka_source
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import ColumnProducer
from services.brokers.kafka_connect import open_admin, open_producer
from services.brokers.kafka_source import KafkaSource
from services.predictor.ports import Refused, Retriable
from services.records import Records


@pytest.fixture
def options(broker: DevBroker) -> dict[str, Any]:
    return {"bootstrap_servers": broker.bootstrap}


@pytest.fixture
def topic(options: dict[str, Any], topic_names: Callable[[], str]) -> str:
    return make(options, topic_names())


@pytest.fixture
def opened() -> Iterator[Callable[..., KafkaSource]]:
    """Makes sources that are closed after the test."""
    sources: list[KafkaSource] = []

    def make_source(*arguments: Any, **named: Any) -> KafkaSource:
        sources.append(KafkaSource(*arguments, **named))
        return sources[-1]

    yield make_source
    for source in sources:
        source.close()


def make(options: dict[str, Any], name: str, partitions: int = 2) -> str:
    with open_admin(options) as admin:
        admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1}})
        admin.wait_for_topics([name])
    return name


def send(options: dict[str, Any], topic: str, *values: bytes, partition: int = 0) -> None:
    with ColumnProducer(options) as producer:
        producer.append(topic, partition, [b"k"] * len(values), list(values), time.time_ns() // 1_000_000)
        producer.flush()


def until(source: KafkaSource, rows: int) -> list[bytes | None]:
    polled: list[Records] = []
    while sum(map(len, polled)) < rows:
        polled += source.poll(1000, 1.0)
    return [value for records in polled for value in records.values]


def test_a_missing_topic_is_refused(options: dict[str, Any], opened: Callable[..., KafkaSource]) -> None:
    source = opened(options, "no-such-topic", [0])
    for call in (source.beginning, lambda: source.poll(10, 0.1)):
        with pytest.raises(Refused, match=r"topic no-such-topic does not exist .*streamrnn topics create"):
            call()


def test_too_few_partitions_are_refused(
    options: dict[str, Any], topic: str, opened: Callable[..., KafkaSource]
) -> None:
    with pytest.raises(Refused, match="has 2 partitions, and partition 2 is expected"):
        opened(options, topic, [1, 2]).beginning()


@pytest.mark.parametrize("columnar", [None, False])
def test_aborted_records_and_markers_are_passed_over(
    options: dict[str, Any], topic: str, opened: Callable[..., KafkaSource], columnar: bool | None
) -> None:
    producer = open_producer(options, transactional_id=topic)
    producer.init_transactions()
    for word, keep in ((b"a", False), (b"b", True), (b"c", False), (b"d", True), (b"e", False)):
        producer.begin_transaction()
        for _ in range(3):
            producer.send(topic, word, b"k", partition=0)
        producer.flush()
        if keep:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close()
    source = opened(options, topic, [0], columnar=columnar)
    source.seek({0: 0})
    assert until(source, 6) == [b"b"] * 3 + [b"d"] * 3
    while source.lag()[0]:  # the aborted tail
        assert source.poll(10, 0.2) == []
    send(options, topic, b"f")
    assert until(source, 1) == [b"f"]


def test_readings_deleted_before_they_were_read_are_refused_by_name(
    options: dict[str, Any], topic: str, opened: Callable[..., KafkaSource]
) -> None:
    send(options, topic, *[b"v"] * 10)
    with open_admin(options) as admin:
        admin.delete_records({TopicPartition(topic, 0): 6})
    source = opened(options, topic, [0])
    assert source.beginning() == {0: 6}
    source.seek({0: 2})
    with pytest.raises(Refused, match=r"raise retention\.ms"):
        until(source, 1)
    fresh = opened(options, topic, [0])
    assert len(until(fresh, 4)) == 4


def test_large_backlogs_come_whole_and_in_order(
    options: dict[str, Any], topic: str, opened: Callable[..., KafkaSource]
) -> None:
    values = [[b"%d %06d " % (partition, n) + b"x" * (n % 400) for n in range(30_000)] for partition in (0, 1)]
    with ColumnProducer(options) as producer:
        for start in range(0, 30_000, 1000):
            for partition in (0, 1):
                part = values[partition][start : start + 1000]
                producer.append(topic, partition, [b"k"] * len(part), part, time.time_ns() // 1_000_000)
        producer.flush()
    source = opened(options, topic, [0, 1])
    source.seek({0: 0, 1: 0})
    found: dict[int, list[bytes | None]] = {0: [], 1: []}
    while sum(map(len, found.values())) < 60_000:
        polled = source.poll(700, 2.0)
        assert sum(map(len, polled)) <= 700
        for records in polled:
            found[records.partition] += records.values
    assert found == {0: values[0], 1: values[1]}


# ---- one partition's trouble ----------------------------------------------------------------------------------------


@pytest.fixture
def spares(
    options: dict[str, Any], topic: str, opened: Callable[..., KafkaSource], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[KafkaSource, list[str]]]:
    """Makes sources that set partitions aside and try them again with every poll, and the list of what they tell."""
    monkeypatch.setattr(kafka_source, "AGAIN_S", 0.0)

    def make_source(**named: Any) -> tuple[KafkaSource, list[str]]:
        told: list[str] = []
        notify = lambda event, **fields: told.append(event)  # noqa: E731
        return opened(options, topic, [0, 1], spares=True, notify=notify, **named), told

    return make_source


def test_a_partition_that_retention_overtakes_goes_on_behind_the_gap(
    options: dict[str, Any], topic: str, spares: Callable[..., tuple[KafkaSource, list[str]]]
) -> None:
    for partition in (0, 1):
        send(options, topic, *[b"%d" % partition] * 10, partition=partition)
    with open_admin(options) as admin:
        admin.delete_records({TopicPartition(topic, 0): 6})
    source, told = spares()
    source.seek({0: 2, 1: 0})
    assert sorted(until(source, 14)) == [b"0"] * 4 + [b"1"] * 10  # type: ignore[type-var]
    assert source.overtaken == {0: 6} and source.unreadable == {} and told == []


def test_an_offset_beyond_the_end_sets_its_partition_aside(
    options: dict[str, Any], topic: str, spares: Callable[..., tuple[KafkaSource, list[str]]]
) -> None:
    send(options, topic, *[b"v"] * 3, partition=1)
    source, told = spares()
    source.seek({0: 7, 1: 0})
    assert until(source, 3) == [b"v"] * 3
    wait_for(lambda: source.poll(10, 0.1) != [] or source.unreadable, "it is set aside")
    assert source.unreadable.keys() == {0} and "start-over" in source.unreadable[0]
    send(options, topic, b"w", partition=1)
    assert until(source, 1) == [b"w"]
    assert told == ["partition_set_aside"] and source.overtaken == {}


def test_a_partition_that_the_broker_calls_corrupt_is_set_aside_and_its_lag_is_told(
    options: dict[str, Any],
    topic: str,
    spares: Callable[..., tuple[KafkaSource, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse = Fetcher._parse_fetched_data

    def corrupt(fetcher: Fetcher, completed: Any) -> Any:
        if completed.topic_partition.partition == 0:
            completed.partition_data.error_code = 2
        return parse(fetcher, completed)

    for partition in (0, 1):
        send(options, topic, *[b"%d" % partition] * 3, partition=partition)
    source, told = spares()
    with monkeypatch.context() as broken:
        broken.setattr(Fetcher, "_parse_fetched_data", corrupt)
        assert until(source, 3) == [b"1"] * 3
        wait_for(lambda: source.poll(10, 0.1) != [] or source.unreadable, "it is set aside")
        assert "CORRUPT_MESSAGE" in source.unreadable[0] and source.lag() == {0: 3, 1: 0}
        send(options, topic, *[b"0"] * 2)
        send(options, topic, b"1", partition=1)
        assert until(source, 1) == [b"1"]
        wait_for(lambda: source.poll(10, 0.1) != [] or source.lag() == {0: 5, 1: 0}, "its lag grows")
        source.close()  # so that no answer of the broken time is read later
    assert until(source, 5) == [b"0"] * 5
    assert told == ["partition_set_aside", "partition_readable"] and source.unreadable == {}


def test_a_damaged_batch_is_its_partition_s_also_where_records_come_one_by_one(
    options: dict[str, Any],
    topic: str,
    spares: Callable[..., tuple[KafkaSource, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send(options, topic, *[b"0"] * 5)
    send(options, topic, *[b"damaged"] * 2)
    send(options, topic, *[b"1"] * 10, partition=1)
    source, told = spares(columnar=False)
    with monkeypatch.context() as broken:
        broken.setattr(DefaultRecordBatch, "validate_crc", lambda batch: batch.base_offset != 5)
        assert sorted(until(source, 15)) == [b"0"] * 5 + [b"1"] * 10  # type: ignore[type-var]
        wait_for(lambda: source.poll(10, 0.1) != [] or source.unreadable, "it is set aside")
        assert "partition 0: the record batch at offset 5 is malformed" in source.unreadable[0]
        assert source.lag() == {0: 2, 1: 0}
        send(options, topic, b"1", partition=1)
        assert until(source, 1) == [b"1"]
    assert until(source, 2) == [b"damaged"] * 2
    assert told == ["partition_set_aside", "partition_readable"]


@pytest.mark.chaos
def test_a_broker_that_is_away_gives_nothing_and_is_told_about_once(
    tmp_path: Path, opened: Callable[..., KafkaSource]
) -> None:
    broker = DevBroker(tmp_path / "broker", owned=True)
    try:
        broker.start()
        broker.stop()
        options = {"bootstrap_servers": broker.bootstrap, "bootstrap_timeout_ms": 500}
        events: list[str] = []
        source = opened(options, "topic", [0], notify=lambda event, **fields: events.append(event))
        with pytest.raises(Retriable, match="does not answer"):
            source.beginning()
        for _ in range(3):
            assert source.poll(10, 0.1) == []
        assert events == ["broker_away"]

        broker.start()
        make(options, "topic")
        send(options, "topic", b"one")
        assert until(source, 1) == [b"one"]
        assert events == ["broker_away", "broker_back"]

        broker.kill()
        while events.count("broker_away") < 2:
            assert source.poll(10, 0.2) == []
        for _ in range(5):
            assert source.poll(10, 0.2) == []
        broker.start()
        send(options, "topic", b"two")
        assert until(source, 1) == [b"two"]
        assert events == ["broker_away", "broker_back"] * 2
    finally:
        broker.kill()
