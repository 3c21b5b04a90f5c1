"""A transaction that hides readings is told, once it has been open for long; those that come and go are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_connect import Producer, drop, open_producer
from services.brokers.kafka_topics import TopicSpec, create
from services.fleet import held_readings
from services.fleet.assembly import topic_names
from services.fleet.topic_watch import TopicWatch
from services.records import Role
from services.settings import Settings


@pytest.fixture
def settings(broker: DevBroker, topic_names: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(held_readings, "HELD_S", 0.0)
    kafka = {"bootstrap_servers": broker.bootstrap, "metadata_max_age_ms": 100}
    return Settings(pipeline=topic_names(), model=Path("model"), kafka=kafka)


@pytest.fixture
def readings(settings: Settings) -> str:
    names = topic_names(settings)
    create(settings.kafka, TopicSpec(names, 2, 1))
    return names[Role.READINGS]


@pytest.fixture
def foreigner(settings: Settings, readings: str) -> Iterator[Producer]:
    producer = open_producer(settings.kafka, transactional_id=f"{readings}-foreign")
    producer.init_transactions()
    yield producer
    drop(producer)


def begin(producer: Producer, topic: str) -> None:
    producer.begin_transaction()
    producer.send(topic, b"v", b"k", partition=1)
    producer.flush()


def test_a_transaction_that_stays_open_is_told_once_and_its_end_too(
    settings: Settings, readings: str, foreigner: Producer
) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    watch = TopicWatch(settings, lambda event, **fields: told.append((event, fields)))
    begin(foreigner, readings)
    watch.start()
    try:
        watch.behind = {0, 1}
        wait_for(lambda: told, "it is told")
        ((event, fields),) = told
        assert event == "readings_held_open" and fields["partition"] == 1
        assert f"transactional id {readings}-foreign" in fields["reason"]
        assert "kafka-transactions.sh" in fields["reason"]
        foreigner.abort_transaction()
        watch.behind = set()
        wait_for(lambda: len(told) > 1, "its end is told")
        assert told[1:] == [("readings_released", {"partition": 1})]
    finally:
        watch.stop()


def test_transactions_that_come_and_go_are_not_told(settings: Settings, readings: str, foreigner: Producer) -> None:
    told: list[str] = []
    looks = held_readings.HeldReadings(settings.kafka, readings, lambda event, **fields: told.append(event))
    for _ in range(3):
        begin(foreigner, readings)
        looks.look({0, 1})
        foreigner.commit_transaction()
    looks.look({0, 1})
    begin(foreigner, readings)
    looks.look(set())
    looks.look(set())
    assert told == []
