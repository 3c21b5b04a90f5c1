"""Hands whole batches of encoded records to kafka-python's producer, or, where that cannot be, record by record.

`KafkaProducer.send` costs 12-15 us a record: a future, a lock and a partitioner each. A batch that is encoded in one
pass and put into the producer's accumulator as a whole costs 0.6 us a record. The accumulator is private, so `unfit`
tries it out without a network first; `send` is the way for clients it does not know. Both are under the same tests.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import kafka
from kafka import KafkaProducer, TopicPartition
from kafka.producer.future import FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionManager
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from services.brokers.kafka_encode import HEAD_BYTES, RecordTooLarge, encode
from services.brokers.kafka_fetch import TESTED
from services.predictor.ports import Refused
from services.records import Encoded

log = logging.getLogger(__name__)


class PartitionAppend(NamedTuple):
    """Records ready to be appended to one partition."""

    topic: str
    encoded: Encoded
    bodies: list[tuple[bytes, int]]  # (body of a record batch, number of its records)


class Appender(Protocol):
    """Writes parts; every returned future must be waited for, each stands for one record or one batch."""

    def append(self, parts: Sequence[PartitionAppend]) -> list[Any]: ...


def prepare(topic: str, encoded: Encoded, max_bytes: int) -> PartitionAppend:
    """Encodes records into batches of at most `max_bytes`. Raises Refused for a record that is larger alone."""
    try:
        return PartitionAppend(topic, encoded, encode(encoded.keys, encoded.values, encoded.headers, max_bytes))
    except RecordTooLarge as error:
        key, value = encoded.keys[error.row], encoded.values[error.row]
        raise Refused(
            f"a record for partition {encoded.partition} of topic {topic} is too large: {error.size} bytes with its "
            f"batch (key {len(key or b'')}, value {len(value or b'')}), while max.message.bytes of the topic is "
            f"{max_bytes}. Raise max.message.bytes of {topic} to at least {error.size}"
        ) from error


def appender(producer: KafkaProducer, bulk: bool | None = None) -> Appender:
    """The fastest way that works with this client library; `bulk` decides otherwise."""
    if bulk is None:
        why = unfit()
        bulk = why is None
        if why:
            log.warning("records are sent one by one, about 20 times slower: %s", why)
    return BulkAppender(producer) if bulk else SendAppender(producer)


class BulkAppender:
    """One future a batch."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer

    def append(self, parts: Sequence[PartitionAppend]) -> list[Any]:
        """See Appender. Call `partitions_for` of each topic once before."""
        futures = []
        for part in parts:
            tp = TopicPartition(part.topic, part.encoded.partition)
            for body, count in part.bodies:
                transactions = self._producer._transaction_manager
                if transactions is not None and transactions.is_transactional():
                    transactions.maybe_add_partition_to_transaction(tp)
                futures.append(_place(self._producer._accumulator, tp, body, count, part.encoded.timestamp_ms))
        self._producer._sender.wakeup()
        return futures


class SendAppender:
    """One future a record. Two things cannot be said through `send`: a header without a value becomes an empty one, and
    a record without key and value gets an empty value.
    """

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer

    def append(self, parts: Sequence[PartitionAppend]) -> list[Any]:
        """See Appender."""
        futures = []
        for part in parts:
            encoded = part.encoded
            for row, (key, value) in enumerate(zip(encoded.keys, encoded.values, strict=True)):
                headers = [] if encoded.headers is None else encoded.headers[row]
                futures.append(
                    self._producer.send(
                        part.topic,
                        key=key,
                        value=b"" if key is None and value is None else value,
                        headers=[(name, found or b"") for name, found in headers],
                        partition=encoded.partition,
                        timestamp_ms=encoded.timestamp_ms,
                    )
                )
        return futures


class _WholeBatch(ProducerBatch):
    """A batch with one future for all its records.

    When a broker finds a batch too large the library splits it by its records' futures and would lose this one; a batch
    of one record is never split, and fails instead.
    """

    record_count = 1


def _place(accumulator: RecordAccumulator, tp: TopicPartition, body: bytes, count: int, at_ms: int) -> Any:
    builder = MemoryRecordsBuilder(
        accumulator.config["message_version"], accumulator.config["compression_attrs"], len(body) + HEAD_BYTES
    )
    inner = builder._builder
    inner._buffer += body
    inner._num_records, inner._last_offset = count, count - 1
    inner._first_timestamp = inner._max_timestamp = at_ms
    builder._next_offset = count
    now = time.monotonic()
    batch = _WholeBatch(tp, builder, now=now)
    future = FutureRecordMetadata(batch.produce_future, 0, at_ms, None, -1, -1, -1)
    batch._record_futures.append(future)
    with accumulator._tp_lock(tp):
        if accumulator._closed:
            raise kafka.errors.IllegalStateError("the producer is closed")
        accumulator._batches[tp].append(batch)
        accumulator._incomplete.add(batch)
    return future


@cache
def unfit() -> str | None:
    """Why the private names cannot be used, or None: a batch went through the library's parts and read back right."""
    version = tuple(int(part) for part in kafka.__version__.split(".")[:3] if part.isdigit())
    if version[:2] != TESTED[:2] or version < TESTED:
        return f"kafka-python {kafka.__version__} is not {'.'.join(map(str, TESTED))}"
    try:
        source = inspect.getsource(KafkaProducer.__init__)
        if not all(f"self.{name} = " in source for name in ("_accumulator", "_sender", "_transaction_manager")):
            return "kafka-python's producer keeps its parts elsewhere"
        if not callable(TransactionManager.maybe_add_partition_to_transaction) or not callable(Sender.wakeup):
            return "kafka-python's producer has other parts"
        keys, values = [b"a", None], [b"one", b"two"]
        body, count = encode(keys, values, None, 1 << 16)[0]
        accumulator, tp = RecordAccumulator(), TopicPartition("sample", 0)
        future = _place(accumulator, tp, body, count, 7)
        batch = accumulator._batches[tp].popleft()
        batch.records.set_producer_state(1, 0, 0, True)
        batch.records.close()
        read = [record for found in MemoryRecords(batch.records.buffer()) for record in found]
        batch.complete(5, -1)
        accumulator.deallocate(batch)
        got = [(record.key, record.value, record.timestamp) for record in read]
        same = got == [(b"a", b"one", 7), (None, b"two", 7)]
        return None if same and future.value.offset == 5 else "kafka-python writes a sample in another way"
    except Exception as error:
        return f"kafka-python's producer has changed: {type(error).__name__}: {error}"
