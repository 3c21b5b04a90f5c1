"""The Kafka sink beyond the contract: what it refuses, what other tools see, and calls that never return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from tcp_proxy import TcpProxy
from waiting import STILL_S

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import ColumnProducer, group_lag, group_offsets, read_topic
from services.brokers.kafka_connect import open_admin, open_producer
from services.brokers.kafka_sink import KafkaSink, fence_all
from services.brokers.kafka_topics import TopicSpec, create
from services.predictor.ports import Fenced, Refused, Retriable
from services.records import Commit, Encoded, Role


@pytest.fixture
def options(broker: DevBroker) -> dict[str, Any]:
    return {"bootstrap_servers": broker.bootstrap}


@pytest.fixture
def pipeline(topic_names: Callable[[], str]) -> str:
    return topic_names()


@pytest.fixture
def names(options: dict[str, Any], pipeline: str) -> dict[Role, str]:
    found = {role: f"{pipeline}.{role.value}" for role in Role}
    create(options, TopicSpec(found, 2))
    return found


@pytest.fixture
def sink(options: dict[str, Any], pipeline: str, names: dict[Role, str]) -> Iterator[KafkaSink]:
    made = own(options, pipeline, names)
    yield made
    made.close()


def own(options: dict[str, Any], pipeline: str, names: dict[Role, str], **more: Any) -> KafkaSink:
    return KafkaSink(options, group=pipeline, transactional_id=f"{pipeline}-0", topics=names, partitions=(0, 1), **more)


def predictions(*values: bytes) -> Encoded:
    return Encoded(Role.PREDICTIONS, 0, [b"key"] * len(values), list(values), time.time_ns() // 1_000_000)


@pytest.mark.parametrize("bulk", [True, False])
def test_a_record_too_large_for_its_topic_is_refused_before_anything_is_written(
    options: dict[str, Any], pipeline: str, names: dict[Role, str], bulk: bool
) -> None:
    sink = own(options, pipeline, names, bulk=bulk)
    sink.fence()
    limit = sink.max_value_bytes
    with pytest.raises(Refused, match=rf"topic {names[Role.PREDICTIONS]} .*max\.message\.bytes.*at least \d+"):
        sink.commit(Commit({0: 0}, {0: 1}, (predictions(b"small", b"x" * (limit + 400)),)))
    sink.commit(Commit({0: 0}, {0: 1}, (predictions(b"x" * limit, b"last"),)))  # the sink goes on
    sink.close()
    assert read_topic(options, names[Role.PREDICTIONS])[0].values == [b"x" * limit, b"last"]


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("bulk", [True, False])
def test_a_record_whose_time_the_broker_never_takes_is_refused_with_its_topic_and_the_setting(
    options: dict[str, Any], pipeline: str, names: dict[Role, str], bulk: bool, delivery: str, rows: int
) -> None:
    sink = own(options, pipeline, names, bulk=bulk, delivery=delivery)
    sink.fence()
    early = Encoded(Role.PREDICTIONS, 0, [b"key"] * rows, [b"early"] * rows, time.time_ns() // 1_000_000 + 7_200_000)
    states = Encoded(Role.CHANGELOG, 0, [b"key"], [b"state"], time.time_ns() // 1_000_000)
    with pytest.raises(Refused, match=rf"{names[Role.PREDICTIONS]} is refused .*clock.*timestamp\.after\.max\.ms"):
        sink.commit(Commit({0: 0}, {0: 1}, (states, early)))
    sink.fence()
    sink.commit(Commit({0: 0}, {0: 1}, (states, predictions(b"now"))))
    sink.close()
    assert read_topic(options, names[Role.PREDICTIONS])[0].values == [b"now"]


def test_a_dead_letter_without_a_key_is_refused_where_its_topic_is_compacted(
    options: dict[str, Any], pipeline: str, names: dict[Role, str]
) -> None:
    compacted = f"{pipeline}.compacted"
    with open_admin(options) as admin:
        configs = {"cleanup.policy": "compact"}
        admin.create_topics({compacted: {"num_partitions": 2, "replication_factor": 1, "configs": configs}})
        admin.wait_for_topics([compacted])
    sink = own(options, pipeline, {**names, Role.DEAD_LETTERS: compacted})
    sink.fence()
    letter = Encoded(Role.DEAD_LETTERS, 0, [None], [b"no reading"], time.time_ns() // 1_000_000)
    with pytest.raises(Refused, match=rf"topic {compacted} is refused .*cleanup\.policy of {compacted} back to delete"):
        sink.commit(Commit({0: 0}, {0: 1}, (predictions(b"never to be seen"), letter)))
    sink.close()
    assert len(read_topic(options, names[Role.PREDICTIONS])[0]) == 0


def test_a_group_that_somebody_has_joined_is_refused_before_predictions_are_written_again(
    options: dict[str, Any], pipeline: str, names: dict[Role, str]
) -> None:
    def written() -> list[bytes | None]:
        return read_topic(options, names[Role.PREDICTIONS])[0].values

    sink = own(options, pipeline, names, delivery="at_least_once")
    sink.fence()
    sink.commit(Commit({0: 0}, {0: 1}, (predictions(b"one"),)))
    with ColumnProducer(options) as producer:
        producer.append(names[Role.READINGS], 0, [b"k"] * 2, [b"v"] * 2, time.time_ns() // 1_000_000)
        producer.flush()
    member = KafkaConsumer(names[Role.READINGS], group_id=pipeline, enable_auto_commit=False, **options)
    # One poll, which ends with the reading that is left. A member that joins before it knows the topic's partitions
    # joins a second time, and when that outlasts a poll kafka-python forgets it: nothing assigned, heartbeats off.
    assert member.poll(STILL_S * 1000), "it has not joined"
    refused = rf"group {pipeline}, .*has joined it.*End the consumer .*`group`"
    with pytest.raises(Refused, match=refused):
        sink.commit(Commit({0: 1}, {0: 2}, (predictions(b"two"),)))
    sink.close()
    again = own(options, pipeline, names, delivery="at_least_once")
    for _ in range(3):
        with pytest.raises(Refused, match=refused):
            again.fence()
    assert written() == [b"one", b"two"]
    member.close()
    again.fence()
    assert again.committed() == {0: 1}
    again.commit(Commit({0: 1}, {0: 2}, (predictions(b"two"),)))
    again.close()
    assert written() == [b"one", b"two", b"two"]


def test_missing_topics_and_partitions_are_refused(
    options: dict[str, Any], pipeline: str, names: dict[Role, str]
) -> None:
    elsewhere = {**names, Role.DEAD_LETTERS: f"{pipeline}.elsewhere"}
    with pytest.raises(Refused, match=r"elsewhere does not exist"):
        own(options, pipeline, elsewhere).fence()
    sink = KafkaSink(options, group=pipeline, transactional_id="x", topics=names, partitions=[2])
    with pytest.raises(Refused, match="2 partitions and needs 3"):
        sink.fence()


def test_ordinary_tools_see_the_offsets(
    options: dict[str, Any], pipeline: str, names: dict[Role, str], sink: KafkaSink
) -> None:
    with ColumnProducer(options) as producer:
        producer.append(names[Role.READINGS], 0, [b"k"] * 5, [b"v"] * 5, time.time_ns() // 1_000_000)
        producer.flush()
    sink.fence()
    sink.commit(Commit({0: 0}, {0: 3}, (predictions(b"p"),)))
    with open_admin(options) as admin:
        found = admin.list_group_offsets({pipeline: None})[pipeline]
    assert {tp: offset.offset for tp, offset in found.items()} == {TopicPartition(names[Role.READINGS], 0): 3}
    assert group_offsets(options, pipeline, names[Role.READINGS]) == {0: 3}
    assert group_lag(options, pipeline, names[Role.READINGS]) == {0: 2, 1: 0}


def test_fence_aborts_what_a_dead_owner_left_open(
    options: dict[str, Any], pipeline: str, names: dict[Role, str], sink: KafkaSink
) -> None:
    dead = open_producer(options, transactional_id=f"{pipeline}-0")
    dead.init_transactions()
    dead.begin_transaction()
    dead.send(names[Role.PREDICTIONS], b"never to be seen", b"key", partition=0)
    dead.flush()
    sink.fence()
    sink.commit(Commit({0: 0}, {0: 1}, (predictions(b"seen"),)))
    assert read_topic(options, names[Role.PREDICTIONS])[0].values == [b"seen"]
    everything = read_topic(options, names[Role.PREDICTIONS], isolation="read_uncommitted")[0].values
    assert everything == [b"never to be seen", b"seen"]
    dead.close(timeout=1)


def test_readers_stop_at_an_open_transaction(
    options: dict[str, Any], pipeline: str, names: dict[Role, str], sink: KafkaSink
) -> None:
    sink.fence()
    sink.commit(Commit({0: 0}, {0: 1}, (predictions(b"seen"),)))
    other = open_producer(options, transactional_id=f"{pipeline}-other")
    other.init_transactions()
    other.begin_transaction()
    other.send(names[Role.PREDICTIONS], b"open", b"key", partition=0)
    other.flush()
    assert read_topic(options, names[Role.PREDICTIONS])[0].values == [b"seen"]
    other.commit_transaction()
    other.close(timeout=1)
    assert read_topic(options, names[Role.PREDICTIONS])[0].values == [b"seen", b"open"]


def test_fence_all_shuts_out_every_owner(
    options: dict[str, Any], pipeline: str, names: dict[Role, str], sink: KafkaSink
) -> None:
    sink.fence()
    sink.commit(Commit({0: 0}, {0: 1}, (predictions(b"seen"),)))
    fence_all(options, [f"{pipeline}-0", f"{pipeline}-1"])
    with pytest.raises(Fenced, match=f"{pipeline}-0"):
        sink.commit(Commit({0: 1}, {0: 2}, (predictions(b"never to be seen"),)))
    with pytest.raises(RuntimeError, match="settle"):
        sink.commit(Commit({0: 1}, {0: 2}, (predictions(b"never to be seen"),)))
    assert read_topic(options, names[Role.PREDICTIONS])[0].values == [b"seen"]


def test_a_takeover_that_lost_its_connection_before_it_had_signed_is_tried_again(
    options: dict[str, Any], pipeline: str, names: dict[Role, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predecessor, sink, newer = (own(options, pipeline, names) for _ in range(3))
    predecessor.fence()
    predecessor.commit(Commit({0: 0}, {0: 1}, (predictions(b"old"),)))
    with monkeypatch.context() as broken:

        def lost(_: KafkaProducer) -> None:
            raise kafka_errors.KafkaConnectionError("the broker was gone for a moment")

        broken.setattr(KafkaProducer, "begin_transaction", lost)
        with pytest.raises(Retriable, match="gone for a moment"):
            sink.fence()
    sink.fence()
    sink.commit(Commit({0: 1}, {0: 2}, (predictions(b"new"),)))
    with pytest.raises(Fenced):
        predecessor.commit(Commit({0: 1}, {0: 2}, (predictions(b"never to be seen"),)))
    newer.fence()
    with pytest.raises(Fenced, match="another owner"):
        sink.fence()  # it replaces whom it found at first, nobody else
    for each in (predecessor, sink, newer):
        each.close()
    assert read_topic(options, names[Role.PREDICTIONS])[0].values == [b"old", b"new"]


def test_a_broker_that_is_away_is_unsettled(names: dict[Role, str]) -> None:
    away = {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 300}
    sink = own(away, "away", names)
    for call in (sink.fence, sink.committed, lambda: sink.max_value_bytes, lambda: fence_all(away, ["x"])):
        with pytest.raises(Retriable, match="does not answer"):
            call()


@pytest.mark.chaos
def test_a_commit_that_never_returns_is_told_to_the_watchdog(tmp_path: Path) -> None:
    with TcpProxy() as proxy:
        broker = DevBroker(tmp_path / "broker", advertised_port=proxy.port, owned=True)
        try:
            broker.start()
            proxy.forward_to(broker.proxied_port)
            patience = {"request_timeout_ms": 60_000, "transaction_timeout_ms": 4_000}
            options = {"bootstrap_servers": proxy.bootstrap, **patience}
            names = {role: f"stuck.{role.value}" for role in Role}
            create(options, TopicSpec(names, 2))
            told: list[str] = []
            rang = threading.Event()

            def expire(sentence: str) -> None:
                told.append(sentence)
                rang.set()

            warm = own({"bootstrap_servers": proxy.bootstrap}, "warm", names)  # Kafka makes its topic of transactions
            warm.fence()
            warm.close()
            sink = own(options, "stuck", names, on_expiry=expire)
            sink.fence()
            proxy.stall()
            # Records have a timeout of their own; the calls for offsets and the end of the transaction have none.
            commit = Commit({0: 0}, {0: 1}, ())
            threading.Thread(target=lambda: sink.commit(commit), daemon=True).start()
            assert rang.wait(300)
            assert told == ["a commit did not end within 9 s; leaving, to start afresh"]
        finally:
            broker.kill()
