"""Models change under live traffic, on real Kafka and Ray: by the numbers, by hand, with a SIGKILL in the middle."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from serving import Serving, streamrnn, write_config

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.io.card import Card, card_text
from rnn.nn.network import Network
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import ColumnProducer, read_topic
from services.brokers.kafka_models_in_use import models_named
from services.codecs import predictions
from services.registry import Registry

pytestmark = pytest.mark.usefixtures("shared_ray")

STREAMS, PARTITIONS = 16, 2
QUICK = {"margin": 0.02, "least_readings": 400, "watch_h": 0.002, "join_h": 0.001, "expires_h": 1}


def model(folder: Path, noise: float, seed: int = 5) -> Path:
    """The more noise in its weights, the worse it is: without any it says that nothing changes."""
    torch.manual_seed(seed)
    network = Network(ModelConfig(("flow", "level"), hidden=8)).eval()
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.mul_(0.1).add_(noise * torch.randn_like(parameter))
    weights.save(folder, network, created_ms=0)
    return folder


class Sensors:
    """Readings of all streams, steadily, until stopped; counts what was written."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer = ColumnProducer({"bootstrap_servers": bootstrap})
        self._topic, self._stop, self.rounds = topic, threading.Event(), 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sensors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Ends it. Returns how many readings were written."""
        self._stop.set()
        self._thread.join(20)
        self._producer.close()
        return self.rounds * STREAMS

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            t = self.rounds
            for partition in range(PARTITIONS):
                mine = range(partition, STREAMS, PARTITIONS)
                values = [
                    json.dumps({"at": 1_700_000_000_000 + 1000 * t, "x": [np.sin(0.05 * t + s), np.cos(0.03 * t - s)]})
                    for s in mine
                ]
                keys = [b"pump-%d" % s for s in mine]
                self._producer.append(
                    self._topic, partition, keys, [v.encode() for v in values], time.time_ns() // 1_000_000
                )
            self._producer.flush()
            self.rounds += 1


def predicted(bootstrap: str, pipeline: str) -> list[predictions.PredictionRows]:
    found = read_topic({"bootstrap_servers": bootstrap}, f"{pipeline}.predictions")
    return [predictions.decode(records) for records in found.values() if len(records)]


def told(bootstrap: str, topic: str) -> list[tuple[str, bytes]]:
    """Keys and values of the topic of events, the oldest first."""
    records = read_topic({"bootstrap_servers": bootstrap}, topic)[0]
    return [(key.decode(), value) for key, value in zip(records.keys, records.values, strict=True) if key and value]


def check_complete(bootstrap: str, pipeline: str, written: int) -> list[list[str]]:
    """Each reading once and in order; returns the models that each stream's predictions name, in order."""
    models = []
    total = 0
    for part in predicted(bootstrap, pipeline):
        total += len(part)
        names = np.array(part.streams, dtype=object)
        for stream in sorted(set(part.streams)):
            its = np.flatnonzero(names == stream)
            assert (np.diff(part.offsets[its]) > 0).all()
            models.append([part.models[row] for row in its])
    assert total == written
    return models


def test_a_better_challenger_takes_over_and_a_worse_one_is_withdrawn(broker: DevBroker, tmp_path: Path) -> None:
    bad, good = model(tmp_path / "bad", 0.5), model(tmp_path / "good", 0.0)
    where, pipeline = tmp_path / "registry", "improving"
    config = write_config(
        tmp_path, broker.bootstrap, bad, pipeline, registry=str(where), rollout=QUICK, fleet={"shards": 2}
    )
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    with Serving(config) as server:
        server.until(lambda: len(server.events("ready")) == 2, "two shards")
        registry = Registry(where)
        first = registry.aliases().champion
        with Sensors(broker.bootstrap, f"{pipeline}.readings") as sensors:
            server.until(lambda: predicted(broker.bootstrap, pipeline), "predictions", server.stepped)
            better = registry.add(good, reason="a test").model
            registry.challenge(better, reason="a test", by="test")
            server.until(lambda: len(server.events("models_activated")) >= 2, "the challenger runs in shadow")
            os.kill(actor_of(server), signal.SIGKILL)
            server.until(lambda: registry.aliases().champion == better, "promotion", server.stepped)
            os.kill(actor_of(server), signal.SIGKILL)  # in the middle of the swap: shards follow within a second or two
            server.until(lambda: "previous" not in metrics_roles(server), "both shards serve it")
            server.until(lambda: registry.aliases().challenger is None, "no challenger")
            worse = registry.add(model(tmp_path / "worse", 0.3, seed=6), reason="a test").model
            registry.challenge(worse, reason="a test", by="test")
            server.until(
                lambda: [v for v in registry.verdicts(worse) if v["verdict"] == "rejected"], "rejection", server.stepped
            )
            written = sensors.stop()
        server.until(
            lambda: sum(map(len, predicted(broker.bootstrap, pipeline))) >= written, "all predictions", server.stepped
        )
        events = {key: json.loads(value) for key, value in told(broker.bootstrap, f"{pipeline}.events")}
        assert events[f"verdict/{better}"]["outcome"] == "promoted"
        assert events[f"verdict/{worse}"]["outcome"] == "rejected"
        assert events["champion"]["model"] == better
        rows = models_named({"bootstrap_servers": broker.bootstrap}, f"{pipeline}.changelog").models
        assert better in rows and rows <= {first, better, worse}
        kept = streamrnn("models", "gc", "--config", str(config), "--older-than-days", "0", "--dry-run", "--json")
        assert not set(json.loads(kept.stdout)["would_go"]) & rows
        verdict = registry.verdicts(better)[0]
        assert verdict["verdict"] == "promoted" and verdict["gain"] > 0.02 and verdict["better"] >= 1 / 0.05
        assert [change.what for change in registry.history()] == ["promoted", "challenged", "promoted", "challenged",
                                                                   "withdrawn"]  # fmt: skip
        assert f'streamrnn_model_info{{model="{better}",shard="0"}} 1.0' in server.get("/metrics")[1]
    for models in check_complete(broker.bootstrap, pipeline, written):
        swap = models.index(better)
        assert set(models[:swap]) == {first} and set(models[swap:]) == {better}


def test_a_champion_that_does_worse_than_the_one_before_is_rolled_back(broker: DevBroker, tmp_path: Path) -> None:
    good, bad = model(tmp_path / "good", 0.0), model(tmp_path / "bad", 0.5)
    where, pipeline = tmp_path / "registry", "relapsing"
    rules = {**QUICK, "watch_h": 1, "canary": 0.5, "canary_h": 1}
    config = write_config(
        tmp_path, broker.bootstrap, good, pipeline, registry=str(where), rollout=rules, fleet={"shards": 2}
    )
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    with Serving(config) as server:
        server.until(lambda: len(server.events("ready")) == 2, "two shards")
        registry = Registry(where)
        first = registry.aliases().champion
        with Sensors(broker.bootstrap, f"{pipeline}.readings") as sensors:
            server.until(lambda: predicted(broker.bootstrap, pipeline), "predictions", server.stepped)
            second = registry.add(bad, reason="a test").model
            done = streamrnn("models", "promote", second, "--registry", str(where), "--reason", "I like it")
            assert done.returncode == 0, done.stderr
            server.until(lambda: registry.aliases().champion == first, "rollback", server.stepped)
            assert registry.aliases().previous == second
            server.until(lambda: len(server.events("models_activated")) >= 4, "both shards are back")
            written = sensors.stop()
        server.until(
            lambda: sum(map(len, predicted(broker.bootstrap, pipeline))) >= written, "all predictions", server.stepped
        )
        assert [change.what for change in registry.history()] == ["promoted", "promoted", "rolled back"]
    parts = predicted(broker.bootstrap, pipeline)
    assert second in parts[0].models and second not in parts[1].models  # the canary's shard alone
    check_complete(broker.bootstrap, pipeline, written)


def test_a_challenger_that_does_not_fit_is_refused_and_the_champion_serves_on(
    broker: DevBroker, tmp_path: Path
) -> None:
    where, pipeline = tmp_path / "registry", "picky"
    config = write_config(
        tmp_path, broker.bootstrap, model(tmp_path / "good", 0.0), pipeline, registry=str(where), rollout=QUICK
    )
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    with Serving(config) as server:
        server.ready()
        registry = Registry(where)
        other = registry.add(model(tmp_path / "other", 0.2), reason="a test").model
        registry.challenge(other, reason="a test", by="test")
        server.until(lambda: len(server.events("models_activated")) == 1, "the challenger runs")
        registry.withdraw(reason="a test", by="test")
        server.until(lambda: len(server.events("models_activated")) == 2, "it is gone")
        damaged = registry.add(model(tmp_path / "damaged", 0.3), reason="a test").model
        registry.challenge(damaged, reason="a test", by="test")
        (where / "models" / damaged / "model.safetensors").write_bytes(b"damaged")
        server.until(lambda: registry.verdicts(damaged), "it is judged")
        assert registry.verdicts(damaged)[0]["verdict"] == "rejected" and registry.aliases().challenger is None
        with Sensors(broker.bootstrap, f"{pipeline}.readings"):
            server.until(lambda: predicted(broker.bootstrap, pipeline), "predictions", server.stepped)


def test_damaged_models_in_the_registry_keep_no_shard_from_starting(broker: DevBroker, tmp_path: Path) -> None:
    where, pipeline = tmp_path / "registry", "scarred"
    good = model(tmp_path / "good", 0.0)
    config = write_config(
        tmp_path, broker.bootstrap, good, pipeline, registry=str(where), rollout=QUICK, fleet={"shards": 1}
    )
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    registry = Registry(where)
    first = registry.add(good, reason="a test").model
    registry.promote(first, reason="a test", by="test")
    challenger, champion = (
        registry.add(model(tmp_path / name, noise), reason="a test").model
        for name, noise in (("challenger", 0.2), ("champion", 0.3))
    )
    registry.challenge(challenger, reason="a test", by="test")

    def damage(which: str) -> None:
        (where / "models" / which / "model.safetensors").write_bytes(b"damaged")

    damage(challenger)
    with Serving(config) as server, Sensors(broker.bootstrap, f"{pipeline}.readings") as sensors:
        server.ready()
        server.until(lambda: registry.aliases().challenger is None, "the challenger is withdrawn")
        server.until(lambda: predicted(broker.bootstrap, pipeline), "predictions", server.stepped)
        actor = actor_of(server)
        os.kill(actor, signal.SIGSTOP)  # it must not take the model before it is damaged
        registry.promote(champion, reason="a test", by="test")
        damage(champion)
        os.kill(actor, signal.SIGKILL)
        server.until(lambda: server.events("model_refused"), "the champion is refused")
        server.until(lambda: len(server.events("ready")) == 2, "another actor serves")
        before = sensors.rounds
        server.until(lambda: sensors.rounds > before + 20, "readings go on")
        written = sensors.stop()
        server.until(
            lambda: sum(map(len, predicted(broker.bootstrap, pipeline))) == written, "all is predicted", server.stepped
        )
    assert {name for one in check_complete(broker.bootstrap, pipeline, written) for name in one} == {first}
    assert f"model_refused/{champion}" in dict(told(broker.bootstrap, f"{pipeline}.events"))


def too_large(where: Path) -> str:
    """A model in the registry that no machine like this one holds, of 40 GiB at least; on the disk it takes nothing."""
    hidden = max(51_800, int((psutil.virtual_memory().total / 32) ** 0.5))
    config = ModelConfig(("flow", "level"), hidden=hidden)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Network(config).state_dict().items()}
    card = Card("abad1dea" * 8, "abad1dea" * 8, config, 0, shapes=shapes)
    card = replace(card, model=card.sha256[:12])
    folder = where / "models" / card.model
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(card_text(card))
    with (folder / weights.WEIGHTS).open("wb") as file:
        file.truncate(4 * sum(math.prod(shape) for shape in shapes.values()))
    return card.model


class Elsewhere(Registry):
    """As a machine sees it that has room for every model."""

    def _check_models(self, *_: object) -> None:
        pass


def test_a_model_that_is_too_large_is_refused_by_a_sentence_and_the_champion_serves_on(
    broker: DevBroker, tmp_path: Path
) -> None:
    where, pipeline = tmp_path / "registry", "crowded"
    config = write_config(
        tmp_path, broker.bootstrap, model(tmp_path / "good", 0.0), pipeline, registry=str(where), rollout=QUICK
    )
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    with Serving(config) as server, Sensors(broker.bootstrap, f"{pipeline}.readings") as sensors:
        server.ready()
        registry = Elsewhere(where)
        first = registry.aliases().champion
        large = too_large(where)
        here = streamrnn("models", "challenge", large, "--registry", str(where), "--reason", "a test")
        assert here.returncode == 1 and f"model {large} needs" in here.stderr, here.stderr
        registry.challenge(large, reason="a test", by="test")
        server.until(lambda: registry.verdicts(large), "it is judged")
        (verdict,) = registry.verdicts(large)
        assert verdict["verdict"] == "rejected" and registry.aliases().challenger is None
        assert f"model {large} needs" in verdict["reason"] and "are free" in verdict["reason"]
        registry.promote(large, reason="a test", by="test")
        server.until(lambda: len(server.events("model_refused")) > 1, "word of the champion")
        looked = streamrnn("doctor", "-c", str(config), "--json")
        assert looked.returncode and f"model {large} needs" in looked.stdout
        before = sensors.rounds
        server.until(lambda: sensors.rounds > before + 20, "readings go on")
        written = sensors.stop()
        server.until(lambda: sum(map(len, predicted(broker.bootstrap, pipeline))) == written, "all is predicted")
        assert not server.events("shard_died"), server.tail()
    assert {name for one in check_complete(broker.bootstrap, pipeline, written) for name in one} == {first}
    with Serving(config) as server:
        assert server.ended() == 4
        assert f"model {large} needs" in server.events("leaving")[0]["reason"]


def actor_of(server: Serving) -> int:
    """The process of an actor."""
    assert server.process.poll() is None
    actors = [one for one in psutil.Process().children(recursive=True) if "ShardActor" in " ".join(one.cmdline())]
    return min(actors, key=lambda one: one.create_time()).pid  # the spare came last


def metrics_roles(server: Serving) -> str:
    """`previous` as long as a shard runs another model beside its champion."""
    page = server.get("/metrics")[1]
    return "previous" if "streamrnn_challenger_info{" in page else ""
