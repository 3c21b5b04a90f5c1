"""Fixtures of the archive's tests: a topic of its own, and the command that archives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from archiving import Archive, make_topic

from services.brokers.devbroker import DevBroker


@pytest.fixture
def options(broker: DevBroker) -> dict[str, Any]:
    return {"bootstrap_servers": broker.bootstrap}


@pytest.fixture
def topic(options: dict[str, Any], topic_names: Callable[[], str]) -> str:
    return make_topic(options, topic_names())


@pytest.fixture
def archive(tmp_path: Path, broker: DevBroker, topic: str) -> Iterator[Archive]:
    made = Archive(tmp_path, broker.bootstrap, topic)
    yield made
    made.stop()
