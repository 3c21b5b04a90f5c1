"""Every query of every panel, rule and alert, asked of a real Prometheus that scrapes a real server under load.

Each must parse, have data where a healthy pipeline has some, and none where it has not: EMPTY says which and why.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scraping import Scraping

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from rnn.train.fit import fit
from rnn.train.recipe import Recipe
from services.brokers import kafka_topics
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import ColumnProducer
from services.fleet.assembly import topic_names
from services.fleet.server import Server
from services.registry import Registry
from services.settings import load

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
BOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
}
STREAMS, PARTITIONS = 16, 2
CONFIG = ModelConfig(("flow", "level"), hidden=8)
READ = "sum(streamrnn_readings_total)"  # how far the server is
RATE = {"$__rate_interval": "10s", "$__interval": "1s"}

NO_GPU = "this machine's shards run on the CPU"
EMPTY = {
    "ray: GPU memory by shard": NO_GPU,
    "ray: GPU memory that is free": NO_GPU,
    "ray: GPU load": NO_GPU,
    "ray: GPU memory in use": NO_GPU,
    "streamrnn:shard_gpu_memory_free:ratio": NO_GPU,
    "overview: Restarts": "nothing was restarted",
    "quality: Last retraining": "no retraining was asked for",
}
"""Queries that have no data in this healthy run, and why."""
ONCE = {"overview: Swap", "pipeline: Swap", "quality: Swap"}
"""Marks that must be there exactly once: the champion was changed once."""
SLOW = {"StreamrnnLag", "StreamrnnLatencyBudgetFast", "StreamrnnLatencyBudgetSlow"}
"""Alerts whose expressions depend on how fast this machine is; that they do not fire is still asked."""


def series(turns: np.ndarray, stream: int, rng: np.random.Generator) -> np.ndarray:
    """[turns, 2]: a wave, and one whose noise makes persistence a bad forecast."""
    level = np.cos(0.03 * turns) + 0.1 * rng.normal(size=len(turns))
    return np.stack([np.sin(0.05 * turns + stream), level], axis=1)


def poor_model(folder: Path) -> Path:
    """It has learned nothing."""
    torch.manual_seed(5)
    weights.save(folder, Network(CONFIG).eval(), created_ms=0)
    return folder


def good_model(folder: Path) -> Path:
    """It has learned enough to beat persistence."""
    turns = np.arange(3000)
    x = series(turns, 0, np.random.default_rng(0)).astype(np.float32)
    recipe = Recipe(updates=60, lanes=8, lane_steps=128, window=32, burn_in=16)
    weights.save(folder, fit(CONFIG, x, 1000 * turns, recipe).network, created_ms=0)
    return folder


class Load:
    """Readings of all streams, at first many, so that drift can be seen; some incomplete, a few no readings."""

    def __init__(self, options: dict[str, Any], topic: str) -> None:
        self._producer, self._topic = ColumnProducer(options), topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        self._producer.close()

    def _run(self) -> None:
        rng = np.random.default_rng(1)
        turn = 0
        while not self._stop.wait(0.1):
            now_ms = time.time_ns() // 1_000_000
            for partition in range(PARTITIONS):
                keys, values = [], []
                for _ in range(50 if self.sent < 14_000 else 5):
                    turn += 1
                    for stream in range(partition, STREAMS, PARTITIONS):
                        x = series(np.array([turn]), stream, rng)[0].tolist()
                        at_ms = 1_700_000_000_000 + 1000 * turn
                        keys.append(b"pump-%d" % stream)
                        values.append(json.dumps({"at": at_ms, "x": x if turn % 50 else [x[0], None]}).encode())
                if turn % 400 < 50:
                    keys.append(b"pump-0")
                    values.append(b"not json")
                self._producer.append(self._topic, partition, keys, values, now_ms)
                self.sent += len(keys)
            self._producer.flush()


@dataclass
class Live:
    """What the tests ask."""

    prometheus: Scraping
    began_s: float
    pipeline: str
    events: list[dict[str, Any]]

    def filled(self, query: str, cluster: str = "here") -> str:
        """The query with its variables' values in it, as Grafana would put them."""
        chosen = {"$cluster": cluster, "$pipeline": self.pipeline, "$shard": ".*", "$stream": "pump-1",
                  "$target": "level"}  # fmt: skip
        for name, value in {**RATE, **chosen}.items():
            query = query.replace(name, value)
        assert "$" not in query, query
        return query


@pytest.fixture(scope="module")
def live(broker: DevBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with two shards, load, a champion and a challenger that takes its place, and Prometheus watching."""
    work, pipeline = tmp_path_factory.mktemp("live"), "observed"
    config = work / "streamrnn.yaml"
    config.write_text(json.dumps({
        "pipeline": pipeline,
        "model": str(poor_model(work / "first")),
        "registry": str(work / "registry"),
        "kafka": {"bootstrap_servers": broker.bootstrap},
        "topics": {"partitions": PARTITIONS, "replication": 1},
        "fleet": {"shards": 2},
        "state": {"slots": 8 * 16},
        "telemetry": {"port": 0, "host": "127.0.0.1", "spotlight": ["pump-1", "pump-2"]},
        "rollout": {"least_readings": 10_000_000, "most_readings": 20_000_000},
    }))  # fmt: skip
    settings = load(config, [])
    kafka_topics.create(settings.kafka, kafka_topics.spec(settings, topic_names(settings)))
    events: list[dict[str, Any]] = []
    server = Server(settings, lambda event, **fields: events.append({"event": event, **fields}))
    running = threading.Thread(target=server.run, daemon=True)
    try:
        server.start()
        running.start()
        import ray

        node = ray.nodes()[0]
        targets = {
            "streamrnn": [server.url.removeprefix("http://").removesuffix("/metrics")],
            "ray": [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"],
        }
        labels = {"cluster": "here", "pipeline": pipeline}
        with Scraping(work / "prometheus", RULES, targets, labels) as prometheus:
            ready = "sum(streamrnn_shard_ready) == 2"
            prometheus.until(lambda: prometheus.now(ready), "two shards are ready", READ)
            began_s = time.time()
            with Load(settings.kafka, settings.topics.readings):
                _happens(prometheus, Registry(work / "registry"), good_model(work / "second"))
                yield Live(prometheus, began_s, pipeline, events)
    finally:
        server.stop()
        if running.ident is not None:
            running.join(60)
        server.close()


def _happens(prometheus: Scraping, registry: Registry, better: Path) -> None:
    """A challenger runs beside the champion and then takes its place; each step is seen by Prometheus."""
    prometheus.until(lambda: prometheus.now("count(streamrnn_drift_ratio) > 1"), "drift is measured", READ)
    card = registry.add(better, reason="a test")
    registry.challenge(card.model, reason="a test", by="test")
    contest = 'count(streamrnn_challenger_mse) > 0 and on () count(streamrnn_contest{figure="gain"}) > 0'
    prometheus.until(lambda: prometheus.now(contest), "a contest is on", READ)
    registry.promote(card.model, reason="a test", by="test")
    swapped = f'count(streamrnn_model_info{{model="{card.model}"}}) == 2'
    prometheus.until(lambda: prometheus.now(swapped), "both shards serve the better one", READ)
    prometheus.until(lambda: prometheus.now('ray_actors{Source="gcs"}'), "Ray's own numbers", READ)
    seen_s = time.time()
    prometheus.until(
        lambda: time.time() > seen_s + 3 and prometheus.now("streamrnn_forecast_mse"), "three more scrapes"
    )


def targets() -> list[tuple[str, str]]:
    """Where it stands and the query, of all panels."""
    return [
        (f"{name}: {panel['title']}", target["expr"])
        for name, board in BOARDS.items()
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


def marks() -> list[tuple[str, str]]:
    """The same of all annotations."""
    return [
        (f"{name}: {mark['name']}", mark["expr"])
        for name, board in BOARDS.items()
        for mark in board["annotations"].get("list", [])
    ]


def test_every_panel_shows_something(live: Live) -> None:
    wrong = []
    assert EMPTY.keys() <= {where for where, _ in targets()} | {
        rule.get("record") for group in GROUPS for rule in group["rules"]
    }
    for where, query in targets():
        found = live.prometheus.over(live.filled(query), live.began_s, 1)
        if (where in EMPTY) == bool(found):
            wrong.append(f"{where}: {'' if found else 'no '}data of {query}")
    assert not wrong, "\n".join(wrong)


def test_no_panel_shows_another_cluster(live: Live) -> None:
    for where, query in targets():
        found = live.prometheus.over(live.filled(query, cluster="elsewhere"), live.began_s, 1)
        assert not found or {value for values in found for value in values} == {0.0}, where


def test_marks_are_at_the_change_only(live: Live) -> None:
    for where, query in marks():
        if where == "overview: Server start":
            continue
        found = live.prometheus.over(live.filled(query), live.began_s, 1)
        points = sum(len(values) for values in found)
        assert points == (1 if where in ONCE else 0), f"{where}: {points} points of {query}"


def test_the_start_of_the_server_is_one_mark(live: Live) -> None:
    (query,) = [query for where, query in marks() if where == "overview: Server start"]
    found = live.prometheus.over(live.filled(query), live.began_s - 120, 1)
    assert [len(values) for values in found] == [1]


def test_every_variable_has_values(live: Live) -> None:
    wanted = {"cluster": {"here"}, "pipeline": {live.pipeline}, "shard": {"0", "1"}, "stream": {"pump-1", "pump-2"},
              "target": {"flow", "level"}}  # fmt: skip
    for name, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
                assert asked, variable["query"]
                found = live.prometheus.ask(f"label/{asked[2]}/values", **{"match[]": live.filled(asked[1])})
                assert set(found) == wanted[variable["name"]], f"{name}: {variable['name']}"


def test_every_rule_records(live: Live) -> None:
    wrong = []
    for rule in [rule for group in GROUPS for rule in group["rules"] if "record" in rule]:
        written = live.prometheus.now(rule["expr"]), live.prometheus.now(rule["record"])
        wrong += [f"{rule['record']}: {found}" for found in written if bool(found) == (rule["record"] in EMPTY)]
    assert not wrong, "\n".join(wrong)
    (health,) = {rule["health"] for group in live.prometheus.ask("rules")["groups"] for rule in group["rules"]}
    assert health == "ok"


def test_no_alert_is_near_firing(live: Live) -> None:
    for rule in [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]:
        found = live.prometheus.now(rule["expr"])
        assert not found or rule["alert"] in SLOW, f"{rule['alert']}: {found}"
    assert not live.prometheus.now('ALERTS{alertstate="firing"}')


def test_what_is_counted_is_what_was_sent(live: Live) -> None:
    """Readings of all shards together, and latency of each of them: nothing of the sum is missing."""
    both = live.prometheus.now(
        "sum(streamrnn_readings_total) - sum(streamrnn_end_to_end_latency_seconds_count) == 0"
        " and sum(streamrnn_readings_total) > 14000 and sum(streamrnn_rejected_total) > 0"
    )
    assert both, live.prometheus.now("sum(streamrnn_readings_total)")
