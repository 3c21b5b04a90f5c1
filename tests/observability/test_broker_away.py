"""A shard that waits for Kafka says so in a metric, whichever of its ways to it is closed."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.brokers.kafka_source import KafkaSource
from services.driver import START_MS, StreamDriver
from services.predictor.ports import Retriable, Sink
from services.predictor.stats import ShardStats
from services.records import Commit
from services.telemetry.collector import StatsCollector, new_registry
from services.telemetry.exposition import exposed


def away_s(stats: ShardStats) -> float:
    """What a scrape says of shard 0."""
    registry = new_registry()
    StatsCollector(registry).update({0: stats.snapshot()}, {0: {}})
    found = registry.get_sample_value("streamrnn_broker_away_seconds", {"shard": "0"})
    assert found is not None and b'streamrnn_broker_away_seconds{shard="0"}' in exposed(registry)
    return found


@pytest.fixture
def nobody() -> str:
    """An address where no broker listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def driver() -> StreamDriver:
    return StreamDriver(Network(ModelConfig(("flow",), hidden=4)))


def test_a_shard_whose_readings_cannot_be_polled(nobody: str) -> None:
    one = driver()
    shard = one.restart()
    shard.turn()
    answering = shard.source.source
    assert away_s(shard.stats) == 0
    shard.source.source = KafkaSource({"bootstrap_servers": nobody, "bootstrap_timeout_ms": 100}, "readings", [0])
    shard.turn()
    turned_s = shard.stats.last_progress_s
    first = away_s(shard.stats)
    assert first > 0
    shard.turn()
    assert away_s(shard.stats) > first, "it waits since the first turn"
    assert shard.stats.last_progress_s >= turned_s, "which does not tell"
    shard.source.source = answering
    shard.turn()
    assert away_s(shard.stats) == 0


class Unreachable:
    """A sink whose coordinator is away for a while; all else is that of the sink in it."""

    def __init__(self, sink: Sink) -> None:
        self.sink, self.tries = sink, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sink, name)

    def commit(self, commit: Commit) -> None:
        raise Retriable("nobody answers")

    def settle(self, commit: Commit) -> bool:
        self.tries += 1
        if self.tries < 4:
            raise Retriable("nobody answers")
        return self.sink.settle(commit)


def test_a_shard_whose_epoch_cannot_be_settled() -> None:
    one = driver()
    shard = one.restart()
    shard.sink = Unreachable(shard.sink)
    heard: list[float] = []
    shard._patiently._pause = lambda seconds: heard.append(away_s(shard.stats))
    one.send("pump-1", START_MS, [1.0])
    one.turn()
    assert len(heard) == 3 and 0 < heard[0] < heard[1] < heard[2]
    assert away_s(shard.stats) == 0
