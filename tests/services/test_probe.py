"""What a cluster's jobs call: a broker in the foreground, topics made when it comes, a probe, a retraining."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from chaos import random_model
from readings_topic import ReadingsTopic
from serving import Serving, streamrnn, write_config

from services.brokers.devbroker import DevBroker
from services.brokers.devbroker.server_settings import free_ports
from services.registry import Registry
from services.settings import load
from services.trainer.job import RetrainRequest, retrain


def test_topics_are_made_as_soon_as_a_broker_in_the_foreground_is_there(
    tmp_path: Path, topic_names: Callable[[], str]
) -> None:
    port = free_ports(1)[0]
    config = write_config(tmp_path, f"127.0.0.1:{port}", tmp_path / "none", topic_names())
    command = [sys.executable, "-m", "services.cli.main"]
    checking = subprocess.Popen([*command, "topics", "check", "-c", str(config), "--wait", "600"])
    making = subprocess.Popen([*command, "topics", "create", "-c", str(config), "--wait", "600"])
    run = ["broker", "run", "--folder", str(tmp_path / "broker"), "--port", str(port), "--host", "localhost"]
    broker = subprocess.Popen([*command, *run], stdout=subprocess.PIPE, text=True)
    try:
        assert making.wait() == 0
        assert checking.wait() == 0
        assert broker.stdout is not None
        assert broker.stdout.readline() == f"Apache Kafka runs at localhost:{port}\n"
        written = (tmp_path / "broker" / "server.properties").read_text()
        assert f"advertised.listeners=CLIENTS://localhost:{port}" in written
        broker.send_signal(signal.SIGTERM)
        assert broker.wait() == 0
        assert (tmp_path / "broker" / "data" / ".kafka_cleanshutdown").exists(), "it was not stopped in order"
    finally:
        for one in (checking, making, broker):
            if one.poll() is None:
                one.kill()


def test_a_probe_gets_its_answer_or_says_what_to_look_at(
    broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path
) -> None:
    name = topic_names()
    config = write_config(tmp_path, broker.bootstrap, random_model(tmp_path / "model", seed=1), name)
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    silent = streamrnn("probe", "-c", str(config), "--wait", "1")
    assert silent.returncode == 1
    assert f"is `streamrnn serve` ready, and does it read {name}.readings?" in silent.stderr
    with Serving(config) as server:
        server.ready()
        done = streamrnn("probe", "-c", str(config), "--wait", "600")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["stream"].startswith("streamrnn-probe-")
    assert answer["flags"] is not None
    assert "answered in" in done.stderr


def test_a_retraining_for_a_scheduler_challenges_the_champion(
    broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path
) -> None:
    name, quick = topic_names(), {"updates": 40, "lanes": 8, "lane_steps": 256, "burn_in": 16}
    config = write_config(
        tmp_path, broker.bootstrap, tmp_path / "none", name, registry=str(tmp_path / "registry"),
        retrain={"runs": str(tmp_path / "runs"), "recipe": quick, "last": "1000"},
    )  # fmt: skip
    empty = streamrnn("retrain", "-c", str(config), "--workers", "0")
    assert empty.returncode == 1
    assert "has no champion" in empty.stderr
    ReadingsTopic(broker.bootstrap, name).fill({"a": 0, "b": 1}, 1500)
    model = {"hidden": 8, "targets": ["flow"]}
    request = RetrainRequest(
        tmp_path / "runs", None, str(tmp_path / "registry"), workers=0, model=model, features=("flow", "level"),
        recipe=quick,
    )  # fmt: skip
    first = retrain(load(config), request)
    registry = Registry(tmp_path / "registry")
    assert first.model is not None, first.message
    registry.promote(first.model, reason="first", by="test")
    done = streamrnn("retrain", "-c", str(config), "--workers", "0", "--reason", "CronJob")
    assert done.returncode == 0, done.stderr
    challenger = registry.aliases().challenger
    assert challenger is not None
    assert done.stdout.startswith(f"{challenger} challenges {first.model}: trained on 1,000 readings"), done.stdout
    assert registry.card(challenger).parent == first.model
    assert registry.added(challenger).reason == "CronJob"
    again = streamrnn("retrain", "-c", str(config), "--workers", "0", "--reason", "CronJob")
    assert again.returncode == 0 and again.stdout.startswith(f"{challenger} is on trial"), again.stdout
    assert registry.aliases().challenger == challenger and len(registry.models()) == 2


def test_a_retraining_by_hand_needs_a_registry_and_says_so(broker: DevBroker, tmp_path: Path) -> None:
    config = write_config(tmp_path, broker.bootstrap, tmp_path / "none", "unregistered")
    done = streamrnn("retrain", "-c", str(config))
    assert done.returncode == 1
    assert "registry: name the one whose champion is to be challenged" in done.stderr
