"""The worlds that a shard may live in, behind one face: Kafka, and the broker in memory that stands for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, TypeVar

from services.brokers.kafka_changelog import KafkaChangelog
from services.brokers.kafka_client import ColumnProducer, read_topic
from services.brokers.kafka_connect import Producer, drop, open_admin, open_producer
from services.brokers.kafka_sink import KafkaSink
from services.brokers.kafka_source import KafkaSource
from services.brokers.kafka_topics import TopicSpec, create
from services.brokers.memory import Isolation, MemoryBroker, MemoryChangelog, MemorySink, MemorySource
from services.predictor.ports import Changelog, Sink, Source
from services.records import Encoded, Header, Records, Role

Port = TypeVar("Port", bound=Source | Sink | Changelog)

PARTITIONS = (0, 1)
GROUP = "streamrnn-contract"


class World(Protocol):
    """What a contract test may ask for."""

    null_headers: bool  # a header can be written without a value, and a record without key and value

    def source(self, partitions: Sequence[int] = PARTITIONS) -> Source: ...
    def sink(self, owner: str = "shard-0", exactly_once: bool = True) -> Sink: ...
    def changelog(self) -> Changelog: ...
    def send(
        self,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[Header]] | None = None,
    ) -> None:
        """Readings written by a sensor, outside of transactions."""

    def read(self, role: Role, partition: int) -> Records:
        """What a read-committed consumer gets from the beginning."""

    def remake(self, role: Role) -> None:
        """Deletes a topic and makes it again."""

    def forget_offsets(self) -> None:
        """What Kafka does to a group that commits nothing for long."""

    def hold_open(self) -> None:
        """Somebody begins a transaction in partition 0 of the changelog, and does not end it."""

    def close(self) -> None: ...


class MemoryWorld:
    """The broker in memory."""

    null_headers = True

    def __init__(self) -> None:
        self.broker = MemoryBroker(len(PARTITIONS), lambda: time.time_ns() // 1_000_000)

    def source(self, partitions: Sequence[int] = PARTITIONS) -> Source:
        return MemorySource(self.broker, partitions)

    def sink(self, owner: str = "shard-0", exactly_once: bool = True) -> Sink:
        return MemorySink(self.broker, GROUP, owner, PARTITIONS, exactly_once=exactly_once)

    def changelog(self) -> Changelog:
        return MemoryChangelog(self.broker)

    def send(
        self,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[Header]] | None = None,
    ) -> None:
        for row, (key, value) in enumerate(zip(keys, values, strict=True)):
            self.broker.append(Role.READINGS, partition, key, value, headers[row] if headers else ())

    def read(self, role: Role, partition: int) -> Records:
        return self.broker.records(role, partition, Isolation.READ_COMMITTED)

    def remake(self, role: Role) -> None:
        self.broker.remake(role)

    def forget_offsets(self) -> None:
        self.broker.forget_offsets(GROUP)

    def hold_open(self) -> None:
        foreign = Encoded(Role.CHANGELOG, 0, [b"?"], [b"foreign"], 0)
        self.broker.write(foreign, "foreign", self.broker.init_producer("foreign"))

    def close(self) -> None:
        pass


class KafkaWorld:
    """Kafka; `fast` is the way through the client library's private parts."""

    def __init__(self, bootstrap: str, pipeline: str, fast: bool) -> None:
        self.options = {"bootstrap_servers": bootstrap}
        self.names = {role: f"{pipeline}.{role.value}" for role in Role}
        self.group = pipeline
        self.fast = self.null_headers = fast
        create(self.options, TopicSpec(self.names, len(PARTITIONS)))
        self.producer = ColumnProducer(self.options, bulk=fast)
        self.foreign: Producer | None = None
        self.opened: list[Source | Sink | Changelog] = []

    def source(self, partitions: Sequence[int] = PARTITIONS) -> Source:
        return self._kept(KafkaSource(self.options, self.names[Role.READINGS], partitions, columnar=self.fast))

    def sink(self, owner: str = "shard-0", exactly_once: bool = True) -> KafkaSink:
        return self._kept(
            KafkaSink(
                self.options,
                group=self.group,
                transactional_id=f"{self.group}-{owner}",
                topics=self.names,
                partitions=PARTITIONS,
                delivery="exactly_once" if exactly_once else "at_least_once",
                bulk=self.fast,
            )
        )

    def changelog(self) -> Changelog:
        return self._kept(KafkaChangelog(self.options, self.names[Role.CHANGELOG], columnar=self.fast))

    def send(
        self,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[Header]] | None = None,
    ) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.producer.append(self.names[Role.READINGS], partition, keys, values, now_ms, headers)
        self.producer.flush()

    def read(self, role: Role, partition: int) -> Records:
        return read_topic(self.options, self.names[role], [partition])[partition]

    def remake(self, role: Role) -> None:
        name = self.names[role]
        with open_admin(self.options) as admin:
            admin.delete_topics([name])
            while admin.describe_topics([name])[0]["error_code"] == 0:
                time.sleep(0.02)
        create(self.options, TopicSpec(self.names, len(PARTITIONS)))

    def forget_offsets(self) -> None:
        with open_admin(self.options) as admin:
            admin.delete_groups([self.group])

    def hold_open(self) -> None:
        self.foreign = open_producer(self.options, transactional_id=f"{self.group}-foreign")
        self.foreign.init_transactions()
        self.foreign.begin_transaction()
        self.foreign.send(self.names[Role.CHANGELOG], b"foreign", b"?", partition=0)
        self.foreign.flush()

    def close(self) -> None:
        if self.foreign is not None:
            drop(self.foreign, wait_s=2.0)
        self.producer.close()
        for port in self.opened:
            port.close()

    def _kept(self, port: Port) -> Port:
        self.opened.append(port)
        return port
