"""Restoring from a changelog that Kafka has really compacted, and whose end holds nothing to read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_for

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_changelog import KafkaChangelog
from services.brokers.kafka_client import ColumnProducer, read_topic
from services.brokers.kafka_connect import open_admin, open_producer
from services.predictor.ports import Refused, Retriable


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A broker whose log cleaner never rests."""
    overrides = {"log.cleaner.backoff.ms": "100"}
    broker = DevBroker(tmp_path_factory.mktemp("cleaning") / "broker", owned=True, overrides=overrides)
    try:
        broker.start()
        yield {"bootstrap_servers": broker.bootstrap}
    finally:
        broker.kill()


def write(options: dict[str, Any], topic: str, keys: list[bytes | None], values: list[bytes | None]) -> None:
    with ColumnProducer(options) as producer:
        producer.append(topic, 0, keys, values, time.time_ns() // 1_000_000)
        producer.flush()


def abort(options: dict[str, Any], topic: str) -> None:
    producer = open_producer(options, transactional_id="aborts")
    producer.init_transactions()
    producer.begin_transaction()
    for _ in range(3):
        producer.send(topic, b"never to be seen", b"a", partition=0)
    producer.flush()
    producer.abort_transaction()
    producer.close(timeout=2)


@pytest.mark.parametrize("columnar", [None, False])
def test_compacted_rows_an_aborted_end_and_markers(options: dict[str, Any], columnar: bool | None) -> None:
    topic = f"changelog-{columnar}"
    configs = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.01",
        "delete.retention.ms": "0",
    }
    with open_admin(options) as admin:
        admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1, "configs": configs}})
        admin.wait_for_topics([topic])
    for turn in range(20):
        write(options, topic, [b"a", b"b", b"gone"], [b"a%d" % turn, b"b%d" % turn, b"row"])
    write(options, topic, [b"gone", b"c"], [None, b"c"])
    abort(options, topic)

    def cleaned() -> bool:
        if len(read_topic(options, topic)[0]) <= 12:
            return True
        write(options, topic, [b"c"], [b"c"])  # segments roll when something is written
        abort(options, topic)
        return False

    wait_for(cleaned, "the log cleaner comes by", progress=lambda: None)
    changelog = KafkaChangelog(options, topic, columnar=columnar)
    first, end = changelog.span(0)
    rows: dict[bytes | None, bytes | None] = {}
    offsets: list[int] = []
    for records in changelog.read(0):
        rows.update(zip(records.keys, records.values, strict=True))
        offsets += records.offsets.tolist()
    changelog.close()
    assert {key: value for key, value in rows.items() if value is not None} == {b"a": b"a19", b"b": b"b19", b"c": b"c"}
    assert offsets == sorted(set(offsets))
    assert len(offsets) < end - first
    assert offsets[-1] < end - 1


def test_a_missing_changelog_is_refused_and_a_silent_broker_is_unsettled(options: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="no-such-changelog does not exist"):
        KafkaChangelog(options, "no-such-changelog").read(0)
    with pytest.raises(Retriable, match="does not answer"):
        KafkaChangelog({"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 300}, "t").span(0)
