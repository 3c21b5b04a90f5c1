"""Partitions that are added to a pipeline's topics while it serves: taken in by the server itself, or named."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from chaos import random_model
from serving import Serving, streamrnn, write_config

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import open_producer, read_topic
from services.brokers.kafka_connect import open_admin
from services.codecs import predictions


def reading(step: int) -> bytes:
    return json.dumps({"at": 1_700_000_000_000 + 1000 * step, "x": [step * 0.1, 1.0, None]}).encode()


def send(bootstrap: str, topic: str, keys: list[bytes], partition: int, step: int = 0) -> None:
    with open_producer({"bootstrap_servers": bootstrap}) as producer:
        producer.append(topic, partition, list(keys), [reading(step)] * len(keys), time.time_ns() // 1_000_000)
        producer.flush()


def answered(bootstrap: str, pipeline: str) -> dict[int, int]:
    """Partition -> predictions."""
    got = read_topic({"bootstrap_servers": bootstrap}, f"{pipeline}.predictions")
    return {p: len(predictions.decode(records)) if len(records) else 0 for p, records in got.items()}


def test_added_partitions_are_read_without_anybody_s_doing(
    broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path
) -> None:
    name, options = topic_names(), {"bootstrap_servers": broker.bootstrap}
    config = write_config(
        tmp_path, broker.bootstrap, random_model(tmp_path / "model", seed=1), name,
        topics={"partitions": 1}, fleet={"shards": 2}, kafka={"metadata_max_age_ms": 1000},
    )  # fmt: skip
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    keys = [b"pump-%d" % n for n in range(20)]
    with Serving(config) as server:
        server.ready()
        send(broker.bootstrap, f"{name}.readings", keys, 0)
        server.until(lambda: answered(broker.bootstrap, name) == {0: 20}, "twenty predictions")
        server.until(lambda: server.get("/readyz")[0] == 200, "readiness")

        with open_admin(options) as admin:
            admin.create_partitions({f"{name}.readings": 3})
        send(broker.bootstrap, f"{name}.readings", keys[:5], 2)
        server.until(lambda: server.events("partitions_added"), "it says so")
        (reason,) = server.until(lambda: json.loads(server.get("/readyz")[1])["reasons"], "it is not ready")
        assert f"{name}.readings has 3 partitions, of which 1 are read" in reason
        assert f"{name}.changelog" in reason and "streamrnn topics create" in reason
        server.until(lambda: "streamrnn_unread_partitions 2.0" in server.get("/metrics")[1], "the metric")
        send(broker.bootstrap, f"{name}.readings", keys[:1], 0, step=1)
        server.until(lambda: answered(broker.bootstrap, name) == {0: 21}, "what is served goes on")
        doctor = streamrnn("doctor", "-c", str(config))
        assert doctor.returncode == 1 and "partitions is 1, needed is at least 3" in " ".join(doctor.stdout.split())

        assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
        server.until(lambda: answered(broker.bootstrap, name) == {0: 21, 1: 0, 2: 5}, "the added partition is read")
        server.until(lambda: server.get("/readyz")[0] == 200, "readiness")
        assert "streamrnn_unread_partitions 0.0" in server.get("/metrics")[1]
        assert {tuple(event["partitions"]) for event in server.events("shard_started")} == {(0,), (0, 2), (1,)}
        (moved,) = server.until(lambda: server.events("streams_moved"), "who moved")
        where = {key: _partition_of(key, 3) for key in keys}
        gone = [key.decode() for key, partition in where.items() if partition != 0]
        assert moved["streams"] == len(gone) and len(moved["named"]) == min(10, len(gone))
        assert set(moved["named"]) <= set(gone)
        assert not server.events("shard_died") and server.process.poll() is None


def _partition_of(key: bytes, partitions: int) -> int:
    """As Kafka's own producers choose it."""
    from kafka.partitioner.default import murmur2

    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
