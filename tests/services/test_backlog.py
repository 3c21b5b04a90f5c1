"""A server that comes late finds packed records, of far more readings than records."""

import gzip
import re
import time
from contextlib import suppress
from pathlib import Path

import bombs
import numpy as np
import psutil
import pyarrow as pa
import torch
from bombs import BOMB_MIB, send_bombs
from serving import Serving, streamrnn, write_config

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import ColumnProducer, group_offsets, read_topic
from services.codecs import predictions

ROWS = 10_000
STALL_S = 3


def packed(record: int) -> bytes:
    """The record of that number, as docs/wire.md recommends them, of one stream."""
    at_ms = 1_700_000_000_000 + 1000 * (np.arange(ROWS) + record * ROWS)
    columns = {"at": pa.array(at_ms, pa.timestamp("ms")), "flow": pa.array(np.sin(at_ms / 9e4).astype(np.float32))}
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    value: bytes = sink.getvalue().to_pybytes()
    return value


def highest_mib(server: Serving) -> int:
    """The most memory that any of the server's processes has ever held."""
    found = [0]
    for one in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(OSError, ValueError):
            found.append(bombs.highest_mib(one.pid))
    return max(found)


def test_a_packed_backlog_of_one_stream_is_got_through_by_the_actor_that_began_it(
    broker: DevBroker, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    # Wide, so that the rows of one packed record alone, which is never cut, take longer than the stall timeout here.
    config = ModelConfig(features=("flow",), targets=("flow",), cell="lstm", hidden=256, head="gaussian")
    weights.save(tmp_path / "model", Network(config), created_ms=0)
    settings = write_config(
        tmp_path, broker.bootstrap, tmp_path / "model", "backlog",
        topics={"partitions": 1}, state={"slots": ROWS}, fleet={"stall_timeout_s": STALL_S},
    )  # fmt: skip
    assert streamrnn("topics", "create", "-c", str(settings)).returncode == 0
    values = [packed(record) for record in range(101)]
    assert sum(len(gzip.compress(value)) for value in values[:3]) < 300_000
    with ColumnProducer({"bootstrap_servers": broker.bootstrap, "compression_type": "gzip"}) as producer:
        producer.append("backlog.readings", 0, [b"pump-1"] * len(values), values, time.time_ns() // 1_000_000)
        producer.flush()

    with Serving(settings) as server:
        server.ready()

        def committed() -> int:
            assert not server.events("shard_stalled"), server.tail()
            offsets = group_offsets({"bootstrap_servers": broker.bootstrap}, "streamrnn-backlog", "backlog.readings")
            return offsets.get(0, 0)

        server.until(lambda: committed() >= 2, "two records are committed", committed)


def test_batches_that_unpack_to_more_than_a_poll_may_hold_become_dead_letters_and_take_no_memory(
    broker: DevBroker, tmp_path: Path
) -> None:
    config = ModelConfig(features=("flow",), targets=("flow",), cell="lstm", hidden=8, head="gaussian")
    weights.save(tmp_path / "model", Network(config), created_ms=0)
    settings = write_config(
        tmp_path, broker.bootstrap, tmp_path / "model", "bombs",
        topics={"partitions": 1}, epoch={"max_poll_mib": 8},
    )  # fmt: skip
    assert streamrnn("topics", "create", "-c", str(settings)).returncode == 0
    kafka = {"bootstrap_servers": broker.bootstrap}
    with Serving(settings) as server:
        server.ready()

        def answered(n: int) -> bool:
            made = read_topic(kafka, "bombs.predictions")[0]
            return len(made) > 0 and len(predictions.decode(made)) == n

        reading = b'{"at": 1700000000000, "x": [1.0]}'
        with ColumnProducer(kafka) as producer:
            producer.append("bombs.readings", 0, [b"pump-1"], [reading], time.time_ns() // 1_000_000)
            producer.flush()
        server.until(lambda: answered(1), "the first reading is answered")
        before_mib = highest_mib(server)
        for kind in BOMB_MIB:
            send_bombs(broker.bootstrap, "bombs.readings", kind)
        with ColumnProducer(kafka) as producer:
            producer.append("bombs.readings", 0, [b"pump-1"], [reading], time.time_ns() // 1_000_000)
            producer.flush()
        server.until(lambda: answered(2), "the reading behind the bombs is answered")
        assert highest_mib(server) - before_mib < 100
        server.until(lambda: len(server.events("batch_refused")) == len(BOMB_MIB), "each is in the log")
        assert not server.events("shard_died")
        metric = 'streamrnn_rejected_total{.*reason="batch_too_large".*} (\\S+)'
        server.until(lambda: re.findall(metric, server.get("/metrics")[1]) == ["4.0"], "the metric")
    letters = read_topic(kafka, "bombs.dead-letters")[0]
    assert letters.values == [None] * len(BOMB_MIB)
    for row, headers in letters.headers.items():
        told = dict(headers)
        assert told["streamrnn.reason"] == b"batch_too_large"
        assert told["__connect.errors.offset"] == b"%d" % (row + 1)
        assert (
            b"at offsets %d to %d unpacks to more than 8 MiB" % (row + 1, row + 1)
            in told["__connect.errors.exception.message"]
        )
