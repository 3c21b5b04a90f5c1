"""`streamrnn doctor` on a real Kafka, a real registry, a real Ray: green where all is well, and each fault by name."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bombs import send_bombs, taking
from chaos import random_model
from kafka import TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourceType,
)
from kafka.structs import OffsetAndMetadata
from serving import streamrnn, write_config

from services.brokers import kafka_topics
from services.brokers.devbroker import DevBroker
from services.brokers.devbroker.server_settings import free_ports
from services.brokers.kafka_client import open_producer
from services.brokers.kafka_connect import close_consumer, open_admin, open_consumer
from services.doctor import CheckResult, Target, examined
from services.doctor.examination import CHECKS
from services.doctor.lines import Check
from services.fleet.assembly import topic_names
from services.records import Role
from services.registry import Registry
from services.settings import Settings, load
from services.telemetry.collector import StatsCollector, new_registry
from services.telemetry.endpoint import Endpoint, Health


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("model") / "model", seed=1)


@pytest.fixture
def pipeline(broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path, model: Path) -> Path:
    """Settings of a pipeline that has everything it needs: topics, and a registry with a champion."""
    registry = Registry(tmp_path / "registry")
    registry.promote(registry.add(model, reason="first", by="test").model, reason="first", by="test")
    config = write_config(tmp_path, broker.bootstrap, model, topic_names(), registry=str(tmp_path / "registry"))
    make_topics(load(config))
    return config


def make_topics(settings: Settings) -> None:
    kafka_topics.create(settings.kafka, kafka_topics.spec(settings, topic_names(settings)))
    kafka_topics.create_events(settings.kafka, settings.topics.events, 1)


def said(settings: Settings, *names: str, **more: Any) -> list[CheckResult]:
    """The lines of some checks."""
    chosen = tuple(Check(check.name, check.look) for check in CHECKS if check.name in names)
    assert len(chosen) == len(names)
    return list(examined(Target(settings, 30.0, **more), chosen))


def worst(lines: list[CheckResult]) -> list[CheckResult]:
    """All that is not well; each says what to do."""
    found = [line for line in lines if line.level != "ok"]
    assert all(line.fix for line in found)
    return found


def changed(settings: Settings, topic: str, **configs: str) -> None:
    """Returns once the broker says so itself: it hears of it from the controller."""
    with open_admin(settings.kafka) as admin:
        named = {key.replace("_", "."): value for key, value in configs.items()}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=named)])
        while True:
            found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])["topic"][topic]
            if all(str(found[key]["value"]) == value for key, value in named.items()):
                return


def written(settings: Settings, topic: str, count: int, at_ms: int | None = None) -> None:
    with open_producer(settings.kafka) as producer:
        producer.append(topic, 0, [b"a"] * count, [b"{}"] * count, at_ms or time.time_ns() // 1_000_000)
        producer.flush()


def stands_at(settings: Settings, offset: int) -> None:
    consumer = open_consumer(settings.kafka, group_id=settings.group)
    try:
        consumer.commit({TopicPartition(settings.topics.readings, 0): OffsetAndMetadata(offset, "", -1)})
    finally:
        close_consumer(consumer)


def test_all_is_green_where_all_is_well_and_nothing_is_changed(pipeline: Path, tmp_path: Path) -> None:
    settings = load(pipeline)

    def everything() -> Any:
        with open_admin(settings.kafka) as admin:
            topics = admin.describe_topics(sorted(admin.list_topics()))
        files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        return {(topic["name"], len(topic["partitions"])) for topic in topics}, files

    before = everything()
    done = streamrnn("doctor", "-c", str(pipeline), "--json", "--strict")
    found = json.loads(done.stdout)
    assert [line for line in found["lines"] if line["level"] != "ok"] == []
    assert done.returncode == 0 and found["ok"]
    assert {line["check"] for line in found["lines"]} == {"settings", *(check.name for check in CHECKS)}
    assert everything() == before


def test_with_kafka_away_it_says_so_and_goes_on_with_the_rest(tmp_path: Path, model: Path) -> None:
    port = free_ports(1)[0]
    config = write_config(tmp_path, f"127.0.0.1:{port}", model, "away", kafka={"sasl_plain_password": "s3cr3t-x"})
    done = streamrnn("doctor", "-c", str(config))
    assert done.returncode == 1, done.stdout + done.stderr
    lines = {words[1]: words[0] for line in done.stdout.splitlines() if len(words := line.split()) > 2}
    assert lines["kafka"] == "fail" and {lines["python"], lines["model"], lines["port"]} == {"ok"}
    assert {lines[name] for name in ("clock", "topics", "rights", "retention", "offsets", "fit")} == {"unknown"}
    assert f"127.0.0.1:{port} does not answer" in done.stdout and "kafka.bootstrap_servers" in done.stdout
    assert "s3cr3t-x" not in done.stdout + done.stderr


def test_wrong_settings_are_lines_too(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("fleet: {shards: none}\nepoch: {max_reading: 5}\n")
    done = streamrnn("doctor", "-c", str(config), "--json")
    assert done.returncode == 2
    lines = json.loads(done.stdout)["lines"]
    assert [line["level"] for line in lines] == ["fail", "fail"]
    assert "fleet.shards" in str(lines) and "did you mean epoch.max_readings?" in str(lines)


def test_a_check_that_does_not_end_costs_its_limit_and_no_more(model: Path) -> None:
    def hangs(_: Target) -> Iterator[CheckResult]:
        yield CheckResult("slow", "ok", "one thing")
        threading.Event().wait()

    checks = (Check("slow", hangs), Check("quick", lambda _: [CheckResult("quick", "ok", "done")]))
    lines = list(examined(Target(Settings(), 0.2), checks))
    assert [(line.check, line.level) for line in lines] == [("slow", "ok"), ("slow", "unknown"), ("quick", "ok")]
    assert "no answer within 0.2 s" in lines[1].said


def test_an_error_that_nobody_foresaw_is_a_line(model: Path) -> None:
    def breaks(_: Target) -> Iterator[CheckResult]:
        raise ZeroDivisionError("by zero")
        yield

    (line,) = examined(Target(Settings()), (Check("odd", breaks),))
    assert (line.level, line.said) == ("unknown", "ZeroDivisionError: by zero")


# ---- Kafka ----------------------------------------------------------------------------------------------------------


def test_topics_that_are_missing_or_break_a_promise(
    broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path, model: Path, pipeline: Path
) -> None:
    missing = worst(said(load(write_config(tmp_path, broker.bootstrap, model, topic_names())), "topics"))
    assert [line.level for line in missing] == ["fail"] * 4
    assert "streamrnn topics create" in missing[0].fix.lower()
    settings = load(pipeline)
    changed(settings, settings.topics.changelog, cleanup_policy="delete")
    (line,) = worst(said(settings, "topics"))
    assert line.level == "fail" and "cleanup.policy is delete, needed is compact" in line.said


def test_a_model_whose_states_do_not_fit(pipeline: Path) -> None:
    settings = load(pipeline)
    assert worst(said(settings, "fit")) == []
    changed(settings, settings.topics.changelog, max_message_bytes="2000")
    (line,) = worst(said(settings, "fit"))
    assert line.level == "fail" and settings.topics.changelog in line.said and "max.message.bytes" in line.fix
    assert "max.message.bytes is 2000" in worst(said(settings, "topics"))[0].said


@pytest.mark.parametrize(
    ("topic", "configs", "flags", "word"),
    [
        ("readings", {"retention_ms": str(60 * 86_400_000)}, [], "state.ttl_days"),
        ("readings", {"retention_ms": str(2 * 86_400_000)}, ["retrain.cron=0 3 * * *"], "retrain.last"),
        ("changelog", {"delete_retention_ms": "1000"}, [], "delete.retention.ms"),
    ],
)
def test_what_is_kept_for_less_than_it_is_needed(
    pipeline: Path, topic: str, configs: dict[str, str], flags: list[str], word: str
) -> None:
    settings = load(pipeline, flags)
    assert worst(said(settings, "retention")) == []
    changed(settings, getattr(settings.topics, topic), **configs)
    lines = worst(said(settings, "retention"))
    assert any(word in line.fix and line.level == "warn" for line in lines), lines


def test_readings_that_were_deleted_before_they_were_read(pipeline: Path) -> None:
    settings = load(pipeline)
    written(settings, settings.topics.readings, 20)
    stands_at(settings, 5)
    (line,) = said(settings, "offsets")
    assert line.level == "ok" and "is 15 records behind" in line.said
    with open_admin(settings.kafka) as admin:
        admin.delete_records({TopicPartition(settings.topics.readings, 0): 12})
    (line,) = worst(said(settings, "offsets"))
    assert line.level == "fail" and "readings 5 to 11 were deleted before they were read" in line.said


def test_a_topic_that_was_made_anew(pipeline: Path) -> None:
    settings = load(pipeline)
    written(settings, settings.topics.readings, 3)
    stands_at(settings, 1000)
    (line,) = worst(said(settings, "offsets"))
    assert line.level == "fail" and "wants 1000 next" in line.said and "topics start-over" in line.fix


def test_states_without_offsets(pipeline: Path) -> None:
    settings = load(pipeline)
    written(settings, settings.topics.changelog, 1)
    (line,) = worst(said(settings, "offsets"))
    assert line.level == "fail" and f"{settings.topics.changelog} holds states" in line.said


def test_readings_from_the_future(pipeline: Path) -> None:
    settings = load(pipeline)
    written(settings, settings.topics.readings, 1, time.time_ns() // 1_000_000 + 600_000)
    (line,) = worst(said(settings, "offsets"))
    assert line.level == "warn" and "in the future" in line.said


@pytest.mark.parametrize(
    ("ahead_s", "level", "way"), [(0, "ok", ""), (5, "warn", "ahead of"), (-300, "fail", "behind")]
)
def test_a_clock_that_is_wrong(pipeline: Path, ahead_s: float, level: str, way: str) -> None:
    (line,) = said(load(pipeline), "clock", clock_s=lambda: time.time() + ahead_s)
    assert line.level == level and way in line.said
    if ahead_s:
        assert abs(float(line.said.split()[3]) - abs(ahead_s)) < 1, "the difference is told in seconds"


def test_brokers_whose_addresses_lead_nowhere(tmp_path: Path, model: Path) -> None:
    """A container's broker, most often: bootstrapping works, and then clients are sent to where nobody listens."""
    running = DevBroker(tmp_path / "broker", owned=True, advertised_port=free_ports(1)[0])
    try:
        running.start()
        config = write_config(tmp_path, f"127.0.0.1:{running.proxied_port}", model, "nowhere")
        lines = worst(said(load(config), "kafka"))
    finally:
        running.stop()
    assert lines[0].level == "fail"
    assert "advertised.listeners" in " ".join(line.fix for line in lines), lines


def test_what_this_user_may_not_do(tmp_path: Path, model: Path) -> None:
    rules = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    running = DevBroker(tmp_path / "broker", owned=True, overrides=rules)
    try:
        running.start()
        settings = load(write_config(tmp_path, running.bootstrap, model, "guarded"))
        make_topics(settings)
        before = said(settings, "rights")
        with open_admin(settings.kafka) as admin:
            pattern = ResourcePattern(ResourceType.TOPIC, settings.topics.predictions)
            admin.create_acls([ACL("User:ANONYMOUS", "*", operation, ACLPermissionType.ALLOW, pattern)
                               for operation in (ACLOperation.READ, ACLOperation.DESCRIBE_CONFIGS)])  # fmt: skip
        denied = worst(said(settings, "rights"))
    finally:
        running.stop()
    assert [line.level for line in before if line.level != "unknown"] == ["ok"]
    assert "transactional ids" in [line.said for line in before if line.level == "unknown"][-1]
    assert denied[0].level == "fail" and f"may not WRITE topic {settings.topics.predictions}" in denied[0].said
    assert f"--operation Write --topic {settings.topics.predictions}" in denied[0].fix


# ---- models ---------------------------------------------------------------------------------------------------------


def test_models_that_are_missing_or_damaged(tmp_path: Path, model: Path, pipeline: Path) -> None:
    (line,) = said(load(write_config(tmp_path, "x:1", tmp_path / "none", "none")), "model")
    assert line.level == "fail" and str(tmp_path / "none") in line.said
    settings = load(pipeline)
    registry = Registry(tmp_path / "registry")
    other = registry.add(random_model(tmp_path / "other", seed=2), reason="second", by="test").model
    registry.challenge(other, reason="second", by="test")
    assert [line.level for line in said(settings, "model")] == ["ok", "ok"]
    for name, level in ((other, "warn"), (registry.aliases().champion, "fail")):
        weights = tmp_path / "registry" / "models" / str(name) / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert worst_level(said(settings, "model")) == level, name


def worst_level(lines: list[CheckResult]) -> str:
    return max((line.level for line in lines), key=("ok", "unknown", "warn", "fail").index)


def test_an_empty_registry_and_tables_larger_than_the_memory(tmp_path: Path, model: Path) -> None:
    config = write_config(tmp_path, "x:1", model, "empty", registry=str(tmp_path / "fresh"))
    (line,) = said(load(config), "model")
    assert line.level == "ok" and "has no champion" in line.said
    assert not (tmp_path / "fresh").exists()
    (line,) = worst(said(load(config, ["state.slots=50000000", "fleet.shards=100"]), "model"))
    assert line.level == "fail" and "state.slots" in line.fix


# ---- this machine ---------------------------------------------------------------------------------------------------


def test_a_gpu_that_is_not_there(tmp_path: Path, model: Path) -> None:
    settings = load(write_config(tmp_path, "x:1", model, "gpu", device="cuda:7"))
    (line,) = worst(said(settings, "torch"))
    assert line.level == "fail" and "cuda:7" in line.said and "device: auto" in line.fix
    elsewhere = settings.model_copy(update={"fleet": settings.fleet.model_copy(update={"ray_address": "head:6379"})})
    assert worst(said(elsewhere, "torch"))[0].level == "unknown"


def test_more_threads_than_cores(tmp_path: Path, model: Path) -> None:
    config = write_config(tmp_path, "x:1", model, "threads", device="cpu", fleet={"shards": 10_000})
    assert "fleet.shards" in worst(said(load(config), "torch"))[0].fix


def test_a_port_that_is_taken(tmp_path: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = write_config(tmp_path, "x:1", model, "port", telemetry={"port": port, "host": "127.0.0.1"})
        settings = load(config)
        (line,) = worst(said(settings, "port"))
        assert line.level == "fail" and f"127.0.0.1:{port}" in line.said
    (line,) = said(settings, "port")
    assert line.level == "ok" and "is free" in line.said


def test_a_port_at_which_a_server_of_ours_answers(tmp_path: Path, model: Path) -> None:
    registry = new_registry()
    StatsCollector(registry)
    with Endpoint(registry, Health, "127.0.0.1", 0) as endpoint:
        config = write_config(tmp_path, "x:1", model, "served", telemetry={"port": endpoint.port, "host": "127.0.0.1"})
        (line,) = said(load(config), "port")
    assert line.level == "ok" and "a streamrnn server answers" in line.said


@pytest.mark.parametrize(("free", "level"), [(50 << 20, "fail"), (500 << 20, "warn"), (50 << 30, "ok")])
def test_a_disk_that_is_full(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    config = write_config(
        tmp_path, "x:1", model, "disk", registry=str(tmp_path / "registry"), retrain={"on_drift": True}
    )
    usage = type(shutil.disk_usage("/"))(100 << 30, (100 << 30) - free if level == "warn" else 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    lines = said(load(config), "disk")
    assert {line.level for line in lines} == {level} and len(lines) == 3
    assert [line.said.startswith(of) for line, of in zip(lines, ("registry", "runs", "Ray's folder"), strict=True)]


# ---- Ray ------------------------------------------------------------------------------------------------------------

HEAD = """
import sys
from services.fleet import ray_runtime
ray_runtime.prepare()
import ray
ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def test_a_ray_elsewhere_its_room_and_its_absence(tmp_path: Path, model: Path) -> None:
    nobody = load(write_config(tmp_path, "x:1", model, "nobody", fleet={"ray_address": "127.0.0.1:1"}))
    (line,) = worst(said(nobody, "ray"))
    assert line.level == "fail" and "nothing listens at 127.0.0.1:1" in line.said
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        fleet = {"ray_address": address, "shards": 2}
        there = load(write_config(tmp_path, "x:1", model, "there", fleet=fleet))
        (line,) = said(there, "ray")
        assert line.level == "ok" and "1 nodes, 2 CPUs, 0 GPUs" in line.said
        many = load(write_config(tmp_path, "x:1", model, "many", fleet={**fleet, "shards": 5}))
        (line,) = worst(said(many, "ray"))
        assert line.level == "warn" and "5 shards reserve 5 CPUs, and Ray has 2" in line.said
    finally:
        head.communicate("")


def test_roles_and_rights_are_complete() -> None:
    from services.doctor.rights import WANTED

    assert set(WANTED) == set(Role)


def test_a_batch_that_unpacks_to_more_than_a_poll_may_hold(broker: DevBroker, pipeline: Path) -> None:
    settings = load(pipeline, ["epoch.max_poll_mib=8"])
    assert worst(said(settings, "records")) == []
    send_bombs(broker.bootstrap, settings.topics.readings, mib=100)
    lines, more_mib = taking(lambda: worst(said(settings, "records")))
    (line,) = lines
    assert line.level == "warn" and f"topic {settings.topics.readings}, partition 0: The record batch" in line.said
    assert "at offsets 0 to 0 unpacks to more than 8 MiB" in line.said and "one dead letter" in line.said
    assert more_mib < 60
