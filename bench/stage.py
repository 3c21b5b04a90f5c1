"""What every benchmark of the pipeline plays on: one broker, its topics, a model, and readings written beforehand.

May import `rnn` and `services`; kafka only through `services.brokers`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench.children import Child
from services.predictor.ports import Retriable
from services.settings import Settings

FEATURES = ("active", "reactive", "voltage", "current", "kitchen", "laundry", "heating")
HIDDEN = 64
PARTITIONS = 4
BASE_AT_MS = 1_700_000_000_000
"""Time of the first reading. Reading n has `at` BASE_AT_MS + n, by which its prediction is recognised."""
CHUNK = 5_000
LOOK_S = 0.7

Progress = Callable[[float, str], None]
"""`progress(share, text)`: how far a wait has come, 0..1."""


class Stage:
    """One broker in `work` and what lies on it."""

    def __init__(self, work: Path, bootstrap: str) -> None:
        self.work = work
        self.options: dict[str, Any] = {"bootstrap_servers": bootstrap}
        self.model = work / "model"

    def save_model(self) -> None:
        """LSTM(64) with a Gaussian head and random weights: speed does not depend on what they are."""
        import torch

        from rnn.config import ModelConfig
        from rnn.io import weights
        from rnn.nn.network import Network

        torch.manual_seed(0)
        weights.save(self.model, Network(ModelConfig(features=FEATURES, cell="lstm", hidden=HIDDEN)), created_ms=0)

    def create_topic(self, name: str, **configs: str) -> None:
        """A topic of PARTITIONS partitions. Settings are written with underscores for dots."""
        from services.brokers.kafka_connect import open_admin

        named = {key.replace("_", "."): value for key, value in configs.items()}
        with open_admin(self.options) as admin:
            admin.create_topics({name: {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": named}})
            admin.wait_for_topics([name], timeout_ms=20_000)

    def create_output(self, name: str) -> None:
        """A topic whose records carry the time at which the broker got them, which is what throughput is read from."""
        self.create_topic(name, message_timestamp_type="LogAppendTime", max_message_bytes=str(4 << 20))

    def settings(self, pipeline: str, readings: str, slots: int = 100_000) -> Settings:
        """A pipeline of one shard over the readings topic, with its output topics made. All else is default."""
        from services.brokers import kafka_topics
        from services.fleet.assembly import topic_names

        settings = Settings(
            pipeline=pipeline,
            kafka=dict(self.options),
            topics={"readings": readings, "partitions": PARTITIONS, "replication": 1},
            model=self.model,
            device="cpu",
            fleet={"shards": 1},
            state={"slots": slots},
        )
        self.create_output(settings.topics.predictions)
        kafka_topics.create(self.options, kafka_topics.spec(settings, topic_names(settings)))
        return settings

    def serve(self, settings: Settings) -> Child:
        """Our pipeline in one process; says `ready`, and `stopped` with its numbers when it is stopped."""
        given = {
            "pipeline": settings.pipeline,
            "kafka": self.options,
            "topics": settings.topics.model_dump(),
            "model": str(settings.model),
            "device": settings.device,
            "fleet": {"shards": 1},
            "state": {"slots": settings.state.slots},
        }
        command = [sys.executable, "-m", "bench.serve_one", json.dumps(given)]
        return Child("the pipeline", command, self.work / f"{settings.pipeline}.log")

    def write_readings(self, topic: str, streams: int, rounds: int, progress: Progress, first_round: int = 0) -> int:
        """`rounds` readings of each stream, round after round; stream i lies in partition i mod PARTITIONS."""
        from services.brokers.kafka_client import ColumnProducer

        total = streams * rounds
        with ColumnProducer(self.options) as producer:
            done = 0
            for rows in _chunks(total):
                keys, values = readings(first_round * streams + rows, streams)
                owner = rows % streams % PARTITIONS
                for partition in range(PARTITIONS):
                    mine = np.flatnonzero(owner == partition).tolist()
                    producer.append(
                        topic,
                        partition,
                        [keys[row] for row in mine],
                        [values[row] for row in mine],
                        time.time_ns() // 1_000_000,
                    )
                producer.flush()
                done += len(rows)
                progress(done / total, f"{done:,} readings written")
        return total

    def await_answers(
        self, group: str, topic: str, readings: int, child: Child, timeout_s: float, progress: Progress
    ) -> Iterator[int]:
        """Yields the group's committed readings, again and again until they are `readings`. Asks seldom: every question
        is work for the machine that is being measured.
        """
        from services.brokers.kafka_client import group_offsets

        until_s, committed = time.monotonic() + timeout_s, 0
        while True:
            with suppress(Retriable):  # the first who asks makes the broker create its topic of offsets
                committed = sum(group_offsets(self.options, group, topic).values())
            progress(committed / readings, f"{committed:,} of {readings:,} readings committed")
            yield committed
            if committed >= readings:
                return
            child.check()
            if time.monotonic() > until_s:
                raise TimeoutError(f"{child.name} committed {committed} of {readings} readings in {timeout_s:g} s")
            time.sleep(LOOK_S)

    def answers(self, topic: str) -> Mapping[int, Any]:
        """The committed records of an output topic, by partition."""
        from services.brokers.kafka_client import read_topic

        return read_topic(self.options, topic)


def readings(numbers: np.ndarray[Any, np.dtype[np.int64]], streams: int) -> tuple[list[bytes], list[bytes]]:
    """Keys and JSON values of readings number `numbers` [n]: reading n is of stream n mod `streams`.

    A wave of its own for each stream and feature, with noise; the same number gives the same reading.
    """
    stream, turn = numbers % streams, numbers // streams
    phase = stream[:, None] * 0.37 + np.arange(len(FEATURES))
    noise = np.random.default_rng(int(numbers[0])).normal(0, 0.1, phase.shape)
    x = np.round(np.sin(phase + turn[:, None] * 0.1) + noise, 3)
    keys = [b"sensor-%06d" % one for one in stream.tolist()]
    values = [
        b'{"at":%d,"x":%s}' % (BASE_AT_MS + number, json.dumps(row, separators=(",", ":")).encode())
        for number, row in zip(numbers.tolist(), x.tolist(), strict=True)
    ]
    return keys, values


def _chunks(total: int) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    for first in range(0, total, CHUNK):
        yield np.arange(first, min(total, first + CHUNK))
