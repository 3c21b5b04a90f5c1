"""A topic full of readings for the trainer's tests, as sensors would have written it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.brokers.kafka_client import open_producer
from services.brokers.kafka_topics import TopicSpec, create
from services.codecs.readings_write import encode
from services.records import Role

START_MS = 1_790_000_000_000


def waves(n: int, seed: int, features: int = 2) -> np.ndarray:
    """Noisy sines of different periods, [n, features], some values missing."""
    random = np.random.default_rng(seed)
    t = np.arange(n)[:, None]
    x = 20 + 5 * np.sin(2 * np.pi * t / (24 + 7 * np.arange(features))) + 0.3 * random.normal(size=(n, features))
    x[random.random(x.shape) < 0.01] = np.nan
    return x.astype(np.float32)


def times(n: int) -> np.ndarray:
    """A reading a minute, [n]."""
    return START_MS + 60_000 * np.arange(n, dtype=np.int64)


class ReadingsTopic:
    """A topic of its own on a broker."""

    def __init__(self, bootstrap: str, pipeline: str, partitions: int = 2) -> None:
        self.name, self.options = f"{pipeline}.readings", {"bootstrap_servers": bootstrap}
        create(self.options, TopicSpec({Role.READINGS: self.name}, partitions, 1, None))

    def write(self, partition: int, key: bytes, values: Sequence[bytes], at_ms: int = START_MS) -> None:
        """Records of one stream; all with one Kafka timestamp."""
        with open_producer(self.options) as producer:
            producer.append(self.name, partition, [key] * len(values), list(values), at_ms)
            producer.flush()

    def fill(self, streams: Mapping[str, int], n: int, features: int = 2) -> dict[str, np.ndarray]:
        """`n` readings of each stream, in the partition given for it; what was written."""
        made = {}
        for number, (name, partition) in enumerate(streams.items()):
            made[name] = waves(n, number, features)
            self.write(partition, name.encode(), encode(made[name], times(n)))
        return made

    def forget(self, partition: int, before: int) -> None:
        """What retention does: deletes the records before an offset."""
        from kafka import TopicPartition

        from services.brokers.kafka_connect import open_admin

        with open_admin(self.options) as admin:
            admin.delete_records({TopicPartition(self.name, partition): before})
