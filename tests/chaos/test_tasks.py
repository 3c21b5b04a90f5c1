"""Every task shape on real Kafka and real Ray: actors die of SIGKILL, and predictions are what they would have been.

That is what one shard over the in-memory broker makes of the same readings, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chaos import FEATURES, Chaos

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import read_topic
from services.codecs import sentinels
from services.driver import StreamDriver
from services.records import Role

SEED = 20_261_124
WORDS = ("the", "cat", "chased", "a", "mouse", "not")

TASKS = {
    "one-to-one": ModelConfig(FEATURES, ("flow",), task="one-to-one", predicts="now"),
    "one-to-many": ModelConfig(FEATURES, labels=WORDS, task="one-to-many", predicts="now", head="categorical",
                               horizon=5),
    "many-to-one": ModelConfig(vocabulary=WORDS, labels=("yes", "no"), task="many-to-one", predicts="now",
                               head="categorical", max_length=8),
    "encoder-decoder": ModelConfig(FEATURES, ("flow", "level"), task="encoder-decoder", horizon=24, cell="gru"),
    "translation": ModelConfig(vocabulary=WORDS, labels=("le", "chat"), task="encoder-decoder", predicts="now",
                               head="categorical", horizon=6, temperature=0.8),
    "next symbol": ModelConfig(vocabulary=WORDS, head="categorical", temperature=1.0, cell="elman"),
    "both ways": ModelConfig(vocabulary=WORDS, labels=("O", "PERSON"), predicts="now", head="categorical", lag=3,
                             direction="concat", layers=2),
}  # fmt: skip
SHORT = ("many-to-one", "translation", "both ways")
"""Those of `make test`: answers at a sequence's end, answers that are drawn, answers that wait. All: `make chaos`."""


class TaskChaos(Chaos):
    """One task under load."""

    def __init__(self, config: ModelConfig, pipeline: str, broker: DevBroker) -> None:
        super().__init__(SEED, streams=12, partitions=2, shards=1, rate=200.0, pipeline=pipeline, broker=broker)
        self.config = config

    def make_model(self, folder: Path, seed: int) -> Path:
        torch.manual_seed(seed)
        network = Network(self.config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        weights.save(folder, network, created_ms=0)
        return folder

    def make_reading(self, rng: np.random.Generator, stream: int) -> dict[str, Any]:
        ends = {"end": True} if rng.random() < 0.15 else {}
        if ends and rng.random() < 0.3:
            return ends
        if not self.config.symbolic:
            return {**super().make_reading(rng, stream), **ends}
        return {"x": (*WORDS, "dog")[int(rng.integers(len(WORDS) + 1))], **ends}

    def check(self, readings: dict[int, Any]) -> None:
        """Replays the readings topic in memory and compares what came of it."""
        driver = StreamDriver(self.model, partitions=self.partitions, slots=64)
        for partition, records in readings.items():
            for key, value in zip(records.keys, records.values, strict=True):
                driver.send_record(key, value, partition=partition)
        driver.run()
        predicted = read_topic(self.settings.kafka, self.settings.topics.predictions)
        changelog = read_topic(self.settings.kafka, self.settings.topics.changelog)
        for partition in readings:
            wanted = driver.broker.records(Role.PREDICTIONS, partition)
            assert by_stream(predicted[partition]) == by_stream(wanted)
            states = driver.broker.records(Role.CHANGELOG, partition)
            theirs, ours = (last_rows(records) for records in (states, changelog[partition]))
            assert ours == theirs
            self.report.predictions += len(wanted)


def by_stream(records: Any) -> dict[bytes, list[bytes]]:
    """What was said of each stream, in order. Between streams there is no order: it depends on the batches."""
    said: dict[bytes, list[bytes]] = {}
    for key, value in zip(records.keys, records.values, strict=True):
        said.setdefault(key, []).append(value)
    return said


def last_rows(records: Any) -> dict[bytes, bytes]:
    """Each stream's last state, without the header in front, which holds the time of its commit."""
    return {key: value[24:] for key, value in zip(records.keys, records.values, strict=True) if key != sentinels.KEY}


@pytest.mark.chaos
@pytest.mark.parametrize("name", [one if one in SHORT else pytest.param(one, marks=pytest.mark.long) for one in TASKS])
def test_a_kill_changes_no_prediction_of(name: str, broker: DevBroker, topic_names: Callable[[], str]) -> None:
    with TaskChaos(TASKS[name], topic_names(), broker) as chaos:
        for _ in range(2):
            chaos.kill_actor(0)
        chaos.progress(0)
        report = chaos.finish()
    assert report.kills == 2 and report.predictions > 100
