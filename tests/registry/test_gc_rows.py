"""`streamrnn models gc --config`: what a changelog names stays, and so does what nobody can read may need."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import write_config
from typer.testing import CliRunner

from services.brokers import kafka_topics
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import open_producer
from services.cli.models import app
from services.codecs import state_rows
from services.fleet.assembly import topic_names
from services.records import ModelState, StateRows
from services.registry import Registry
from services.settings import Settings, load

LAYOUT = "0123456789abcdef"


@pytest.fixture
def config(broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path) -> Path:
    return write_config(
        tmp_path, broker.bootstrap, tmp_path / "none", topic_names(), registry=str(tmp_path / "registry")
    )


@pytest.fixture
def settings(config: Path) -> Settings:
    found = load(config)
    kafka_topics.create(found.kafka, kafka_topics.spec(found, topic_names(found)))
    return found


@pytest.fixture
def published(settings: Settings, make_model: Any) -> list[str]:
    """Six models that nothing but rows can name."""
    registry = Registry(str(settings.registry))
    return [registry.add(make_model(seed), reason="test", by="test").model for seed in range(6)]


def row(model: str, partition: int = 0) -> bytes:
    memory = ModelState(model, LAYOUT, np.zeros(1, np.int64), np.zeros((1, 8), np.uint8))
    states = StateRows(partition, [b"any"], np.array([7]), np.array([1_000_000]), (memory,))
    (value,) = state_rows.encode(states)[1]
    assert value is not None
    return value


def write(settings: Settings, *records: tuple[bytes, bytes | None]) -> None:
    with open_producer(settings.kafka) as producer:
        keys, values = zip(*records, strict=True)
        producer.append(settings.topics.changelog, 0, list(keys), list(values), time.time_ns() // 1_000_000)
        producer.flush()


def gc(config: Path, *args: str) -> Any:
    return CliRunner().invoke(app, ["gc", "--config", str(config), "--older-than-days", "0", *args])


def test_junk_rows_are_counted_and_keep_what_they_may_name(
    config: Path, settings: Settings, published: list[str]
) -> None:
    plain, before, torn, elsewhere, ended, nowhere = published
    write(
        settings,
        (b"plain", row(plain)),
        (b"overwritten", row(before)),
        (b"overwritten", b"junk"),
        (b"ended", row(ended)),
        (b"ended", None),
    )
    write(settings, (b"torn", row(torn)[:-3]), (b"stray", row(elsewhere, partition=5)))
    done = gc(config, "--dry-run")
    assert done.exit_code == 0, done.output or done.exception
    assert "unread    3 records; the first: changelog, partition 0, offset 2: the record has 4 bytes" in done.output
    assert set(json.loads(gc(config, "--json").output)["gone"]) == {ended, nowhere}
    assert {entry.model for entry in Registry(str(settings.registry)).models()} == {plain, before, torn, elsewhere}


def test_rows_of_another_release_keep_all(config: Path, settings: Settings, published: list[str]) -> None:
    theirs = bytearray(row(published[0]))
    struct.pack_into("<H", theirs, 2, 99)
    write(settings, (b"a", row(published[1])), (b"b", bytes(theirs)))
    for args in ((), ("--dry-run",)):
        done = gc(config, *args)
        assert done.exit_code and "partition 0, offset 1: the record has version 99" in str(done.exception)
        assert "gc` of the release that wrote them" in str(done.exception)
    assert len(Registry(str(settings.registry)).models()) == 6
