"""A real service under load, with streams in the spotlight, and a browser to look at it with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from binaries import chromium
from browser import started
from chaos import random_model
from otlp import Collector
from sensors import WATCHED, Sensors
from serving import Serving, streamrnn, write_config

from services.brokers.devbroker import DevBroker


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def serving(broker: DevBroker, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("page")
    model = random_model(folder / "model", seed=1)
    told = {"host": "127.0.0.1", "port": 0, "spotlight": WATCHED, "traces": collector.endpoint}
    config = write_config(folder, broker.bootstrap, model, "watched", telemetry=told)
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    with Serving(config) as server, Sensors(broker.bootstrap, "watched.readings"):
        server.ready()
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started(chromium()) as running:
        yield running
