"""One partition that cannot be read is set aside: the others are served, whoever looks is told, nothing is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from chaos import random_model
from kafka import KafkaProducer
from serving import Serving, streamrnn, write_config

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import open_producer, read_topic
from services.codecs import predictions


def reading(step: int) -> bytes:
    return json.dumps({"at": 1_700_000_000_000 + 1000 * step, "x": [step * 0.1, 1.0, None]}).encode()


def send(bootstrap: str, topic: str, partition: int, steps: range) -> None:
    with open_producer({"bootstrap_servers": bootstrap}) as producer:
        values = [reading(step) for step in steps]
        producer.append(topic, partition, [b"pump"] * len(values), values, time.time_ns() // 1_000_000)
        producer.flush()


def answered(bootstrap: str, pipeline: str) -> dict[int, int]:
    """Partition -> predictions."""
    got = read_topic({"bootstrap_servers": bootstrap}, f"{pipeline}.predictions")
    return {p: len(predictions.decode(records)) if len(records) else 0 for p, records in got.items()}


def damage(broker: DevBroker, topic: str, partition: int, value: bytes) -> None:
    """Flips a byte of the last record that holds `value`, on the stopped broker's disk; again mends it."""
    (log,) = (broker.folder / "data" / f"{topic}-{partition}").glob("*.log")
    held = bytearray(log.read_bytes())
    held[held.rindex(value) - 1] ^= 0x40  # the record's own fields before its value: only the checksum tells
    log.write_bytes(bytes(held))


def test_a_damaged_batch_stops_its_partition_and_no_other(own_broker: DevBroker, tmp_path: Path) -> None:
    at, name = own_broker.bootstrap, "cracked"
    model = random_model(tmp_path / "model", seed=1)
    config = write_config(tmp_path, at, model, name, topics={"partitions": 3}, fleet={"shards": 2})
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    for partition in range(3):
        send(at, f"{name}.readings", partition, range(3))
    send(at, f"{name}.readings", 2, range(3, 5))
    own_broker.stop()
    damage(own_broker, f"{name}.readings", 2, reading(4))
    own_broker.start()
    with Serving(config) as server:
        server.until(lambda: answered(at, name) == {0: 3, 1: 3, 2: 3}, "all that can be read")
        (told,) = server.until(lambda: server.events("partition_set_aside"), "it says so")
        assert told["partition"] == 2 and f"{name}.readings, partition 2: the record batch at offset 3" in told["error"]
        (reason,) = server.until(lambda: json.loads(server.get("/readyz")[1])["reasons"], "not ready")
        assert "partition 2 is set aside" in reason and "the broker's log is damaged there" in reason
        assert server.get("/healthz")[0] == 200
        page = server.until(lambda: page if "partition_set_aside{" in (page := server.get("/metrics")[1]) else "", "it")
        assert 'streamrnn_partition_set_aside{partition="2",shard="0"} 1.0' in page
        assert 'streamrnn_consumer_lag_messages{partition="2",shard="0"} 2.0' in page
        for partition in range(2):
            send(at, f"{name}.readings", partition, range(3, 5))
        server.until(lambda: answered(at, name) == {0: 5, 1: 5, 2: 3}, "the others go on, of the same shard too")
        doctor = streamrnn("doctor", "-c", str(config))
        assert doctor.returncode == 1 and "the record batch at offset 3" in " ".join(doctor.stdout.split())
    own_broker.stop()
    damage(own_broker, f"{name}.readings", 2, reading(4))  # the same bit once more: mended
    own_broker.start()
    with Serving(config) as server:
        server.until(lambda: answered(at, name) == {0: 5, 1: 5, 2: 5}, "nothing of it was skipped")
        server.until(lambda: server.get("/readyz")[0] == 200, "readiness")


WITHOUT_ZSTD = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "zstandard":
            raise ImportError("hidden by the test")

sys.meta_path.insert(0, Hidden())
"""


def test_a_compression_that_is_not_installed_says_what_to_install(
    broker: DevBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(WITHOUT_ZSTD)
    model = random_model(tmp_path / "model", seed=1)
    config = write_config(tmp_path, broker.bootstrap, model, "squeezed")
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, compression_type="zstd", acks="all")
    for partition in range(2):
        producer.send("squeezed.readings", key=b"pump", value=reading(0) * 4, partition=partition)
    producer.flush()
    producer.close()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"), prepend=":")
    said = "it is compressed with zstd, which this installation cannot unpack; run `pip install 'streamrnn[fast]'`"
    with Serving(config) as server:
        assert server.ended() == 4  # neither partition can be read: nothing is left to serve
        assert said in server.tail() and "damaged" not in server.tail()
    doctor = streamrnn("doctor", "-c", str(config), "--set", "kafka.compression_type=zstd")
    assert doctor.returncode == 1 and said in " ".join(doctor.stdout.split())
    assert "kafka.compression_type is zstd, which is not installed" in " ".join(doctor.stdout.split())
    asked = ["--topic", "squeezed.readings", "--bootstrap", broker.bootstrap, "--runs", str(tmp_path / "runs")]
    train = streamrnn("train", *asked, "--from", "0")
    assert train.returncode != 0 and said in " ".join((train.stdout + train.stderr).split())
    archive = streamrnn("archive", "-c", str(config), "--once", "--to", str(tmp_path / "archive"))
    assert archive.returncode != 0 and said in " ".join((archive.stdout + archive.stderr).split())
