"""A server that comes late finds packed records, of far more readings than records."""

import gzip
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from serving import Serving, streamrnn, write_config

from rnn import weights
from rnn.config import ModelConfig
from rnn.network import Network
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import ColumnProducer, group_offsets

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


@pytest.mark.timeout(400)
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

        server.until(lambda: committed() >= 2, "two records are committed", timeout_s=300)
