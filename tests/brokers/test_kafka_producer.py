"""The sink against a client library that loses requests, says what is not true and forgets what has failed."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import kafka.producer.kafka
import pytest
from commit_loop import names
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.producer import transaction_manager
from kafka.producer.transaction_manager import TransactionManager
from waiting import wait_for

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import group_offsets, read_topic
from services.brokers.kafka_connect import drop, open_admin, open_producer
from services.brokers.kafka_producer import unfit
from services.brokers.kafka_sink import KafkaSink
from services.brokers.kafka_topics import TopicSpec, create
from services.predictor.ports import Refused, Retriable
from services.records import Commit, Encoded, Role


@pytest.fixture
def options(broker: DevBroker) -> dict[str, Any]:
    return {"bootstrap_servers": broker.bootstrap}


@pytest.fixture
def pipeline(options: dict[str, Any], topic_names: Callable[[], str]) -> str:
    pipeline = topic_names()
    create(options, TopicSpec(names(pipeline), 2))
    return pipeline


@pytest.fixture
def expired() -> list[str]:
    return []


@pytest.fixture
def sink(options: dict[str, Any], pipeline: str, expired: list[str]) -> Iterator[KafkaSink]:
    made = own(options, pipeline, on_expiry=expired.append)
    yield made
    made.close()


def own(options: dict[str, Any], pipeline: str, **more: Any) -> KafkaSink:
    topics, name = names(pipeline), f"{pipeline}-0"
    return KafkaSink(options, group=pipeline, transactional_id=name, topics=topics, partitions=(0, 1), **more)


def epoch(at: int) -> Commit:
    written = Encoded(Role.PREDICTIONS, 0, [b"key"], [b"%d" % at], time.time_ns() // 1_000_000)
    return Commit({0: at}, {0: at + 1}, (written,))


def kept(options: dict[str, Any], pipeline: str) -> list[bytes | None]:
    return read_topic(options, names(pipeline)[Role.PREDICTIONS])[0].values


def lower_max_message_bytes(options: dict[str, Any], topic: str, to: str) -> None:
    with open_admin(options) as admin:
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": to})
        admin.alter_configs([wanted])
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic)]
        wait_for(  # the broker hears of it from the controller
            lambda: admin.describe_configs(asked)["topic"][topic]["max.message.bytes"]["value"] == to, "the new limit"
        )


def test_this_client_library_shows_its_requests() -> None:
    assert unfit() is None


@pytest.mark.parametrize(
    ("lost", "is_kept"),
    [("AddPartitionsToTxn", False), ("AddOffsetsToTxn", False), ("TxnOffsetCommit", False), ("EndTxn", True)],
)
def test_a_request_that_the_library_lost_is_unsettled_at_once(
    lost: str,
    is_kept: bool,
    options: dict[str, Any],
    pipeline: str,
    sink: KafkaSink,
    expired: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink.fence()
    sink.commit(epoch(0))
    with monkeypatch.context() as broken:

        def lose(*_: object) -> None:
            raise RuntimeError("an exception in a callback, which the library logs and forgets")

        broken.setattr(getattr(transaction_manager, f"{lost}Handler"), "handle_response", lose)
        with pytest.raises(Retriable, match="has lost a request"):
            sink.commit(epoch(1))
    assert sink.settle(epoch(1)) is is_kept
    if not is_kept:
        sink.commit(epoch(1))
    sink.commit(epoch(2))
    assert kept(options, pipeline) == [b"0", b"1", b"2"]
    assert not expired


def test_a_takeover_whose_request_the_library_lost_can_be_tried_again(
    sink: KafkaSink, expired: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def lose(*_: object) -> None:
            raise RuntimeError("an exception in a callback, which the library logs and forgets")

        broken.setattr(transaction_manager.InitProducerIdHandler, "handle_response", lose)
        with pytest.raises(Retriable, match="has lost a request"):
            sink.fence()
    sink.fence()
    sink.commit(epoch(0))
    assert not expired


def test_a_commit_that_the_library_only_says_to_have_done_is_noticed(
    options: dict[str, Any], pipeline: str, sink: KafkaSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.fence()
    sink.commit(epoch(0))
    with monkeypatch.context() as lying:
        begin_commit = TransactionManager.begin_commit

        def begin(transactions: TransactionManager) -> Any:
            with transactions._lock:  # an error of a batch in flight, which is answered by a new epoch of the producer
                result = begin_commit(transactions)
                transactions.bump_producer_id_and_epoch()
                return result

        lying.setattr(TransactionManager, "begin_commit", begin)
        with pytest.raises(Retriable, match="reported success"):
            sink.commit(epoch(1))
    assert kept(options, pipeline) == [b"0"]
    assert sink.settle(epoch(1)) is False
    sink.commit(epoch(1))
    assert kept(options, pipeline) == [b"0", b"1"]


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("bulk", [True, False])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_record_that_was_not_written_is_noticed_before_its_offset_is_committed(
    options: dict[str, Any], pipeline: str, delivery: Any, bulk: bool, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is the first, the last, or one among others."""
    roles = (Role.PREDICTIONS, Role.DEAD_LETTERS, Role.PREDICTIONS)
    texts = [b"x" * 5000 if row == place else b"1" for row in range(3)]
    now_ms = time.time_ns() // 1_000_000
    written = tuple(Encoded(roles[row], row // 2, [b"key"], [texts[row]], now_ms) for row in range(3))
    sink = own(options, pipeline, delivery=delivery, bulk=bulk)
    sink.fence()
    sink.commit(epoch(0))
    lower_max_message_bytes(options, names(pipeline)[roles[place]], "2000")
    with monkeypatch.context() as forgetting:
        # What the library does with a record whose time has run out: the transaction does not know that it has failed.
        forget = TransactionManager.ERROR_CLASS_RETRIABLE
        forgetting.setattr(TransactionManager, "classify_batch_error", lambda *_, **__: forget)
        with pytest.raises(Refused, match=r"max\.message\.bytes of \S+ lowered"):
            sink.commit(Commit({0: 1}, {0: 2}, written))
    sink.close()
    assert group_offsets(options, pipeline, names(pipeline)[Role.READINGS]) == {0: 1}
    if delivery == "exactly_once":
        assert kept(options, pipeline) == [b"0"]


def test_a_producer_that_is_forgotten_takes_nobodys_log_away(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A plain producer of the library, collected in a test before this one, may have taken it.
    monkeypatch.setattr(kafka.producer.kafka, "log", logging.getLogger("kafka.producer.kafka"))
    forgotten = open_producer(options)
    collected = weakref.ref(forgotten)
    drop(forgotten, wait_s=30.0)
    del forgotten
    gc.collect()
    assert collected() is None
    later = open_producer(options)
    with caplog.at_level(logging.INFO, "kafka"):
        drop(later, wait_s=30.0)
    assert "Closing the Kafka producer" in caplog.text
