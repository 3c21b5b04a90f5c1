"""Faults that nobody foresaw, on real Kafka: the loop goes on, and what was set aside is in the dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from broker_worlds import PARTITIONS, KafkaWorld

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from services.brokers.devbroker import DevBroker
from services.codecs import predictions
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.predictor.deployed_models import DeployedModel
from services.predictor.epoch import EpochContext
from services.predictor.shard import Shard
from services.records import Readings, Records, Role

FEATURES = ("flow", "level")
BUG = 4096.0
torch.manual_seed(5)
NETWORK = Network(ModelConfig(FEATURES, cell="lstm", hidden=6)).eval()


class Decoder(ReadingDecoder):
    """Raises for a poll that holds the word `bug`."""

    def _decode(self, records: Records) -> tuple[Readings, Any]:
        if any(b"bug" in (value or b"") for value in records.values):
            raise IndexError("planted")
        return super()._decode(records)


def deployed() -> DeployedModel:
    """Its engine raises for a reading of `x[0] == BUG`."""
    engine = engine_of(NETWORK, 64)
    run = engine.run

    def raising(slots: Any, x: Any, *args: Any, **told: Any) -> Any:
        result = run(slots, x, *args, **told)
        if (x[:, 0] == BUG).any():
            raise IndexError("planted")
        return result

    engine.run = raising  # type: ignore[method-assign]
    return DeployedModel("0123456789ab", engine)


def test_the_loop_goes_on(broker: DevBroker, topic_names: Callable[[], str]) -> None:
    world = KafkaWorld(broker.bootstrap, topic_names(), fast=True)
    told: list[dict[str, Any]] = []
    try:
        values = [json.dumps({"at": n, "x": [BUG if n == 70 else n, 1]}).encode() for n in range(100)]
        values[30] = b'{"at":30,"x":[1,1]} bug'
        keys: list[bytes | None] = [b"s%d" % (n % 10) for n in range(100)]
        keys[70] = b"felled"
        world.send(0, keys, list(values))
        world.send(1, keys[:1], list(values[:1]))
        shard = Shard(
            world.source(), world.sink(), world.changelog(), deployed(), Decoder(Schema(FEATURES)),
            EpochContext("0123456789ab", world.group, world.names[Role.READINGS]), PARTITIONS,
            notify=lambda event, **fields: told.append({"event": event, **fields}),
        )  # fmt: skip
        shard.start()
        while shard.stats.readings < 99:
            shard.turn()
        assert shard.position == {0: 100, 1: 1}
        letters = world.read(Role.DEAD_LETTERS, 0)
        assert letters.values == [values[30], values[70]]
        assert [dict(letters.headers[row])["streamrnn.reason"] for row in range(2)] == [b"internal"] * 2
        made = predictions.decode(world.read(Role.PREDICTIONS, 0))
        assert sorted(made.offsets.tolist()) == [n for n in range(100) if n not in (30, 70)]
        places = [(one["place"], one["error"].split(":")[0]) for one in told if one["event"] == "internal_error"]
        assert places == [
            ("decode", "IndexError at test_aside_kafka.py"),
            ("step", "IndexError at test_aside_kafka.py"),
        ]
        assert shard.stats.internal_errors == {"decode": 1, "step": 1}

        engine = engine_of(NETWORK, 64)  # offline, each stream by itself
        for name in {key for n, key in enumerate(keys) if n not in (30, 70)}:
            mine = [n for n, key in enumerate(keys) if key == name and n not in (30, 70)]
            slots, at = np.full(len(mine), int((name or b"")[1:])), np.array(mine)
            x = np.array([[n, 1] for n in mine], np.float32)
            want = engine.run(slots, x, at, np.full(len(mine), -1))
            rows = np.flatnonzero([stream == name for stream in made.streams])
            assert made.offsets[rows].tolist() == mine
            assert made.y[rows].tobytes() == want.y.tobytes()
    finally:
        world.close()
