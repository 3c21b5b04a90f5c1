"""Fetched responses of kafka-python's consumer as columns, without an object per record.

The consumer's fetcher turns each response into a `PartitionRecords`; `install` puts ours in its place, which hands out
one `Records` for many record batches. That name is private, so `unfit` first tries it on a known response without any
network; when it says why not, the consumer stays as it is and `merged` turns its records into the same columns, slower.
"""

from __future__ import annotations

import inspect
import struct
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import kafka
import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from services.brokers.kafka_batch import (
    HEADER_BYTES,
    RECORD_BYTES,
    CodecMissing,
    MalformedRecords,
    RecordBatch,
    body_of,
    decode,
    is_abort,
    is_intact,
    next_batch,
)
from services.brokers.kafka_merged import after, merged
from services.brokers.kafka_unpack import TooLarge
from services.predictor.ports import Refused
from services.records import Reason, Records

TESTED = (3, 0, 12)
"""The oldest client whose private names were read; later ones of the same minor version are tried out by `unfit`."""

ARGUMENTS = ("fetch_offset", "tp", "records", "key_deserializer", "value_deserializer", "check_crcs", "isolation_level",
             "aborted_transactions", "metric_aggregator", "on_drain")  # fmt: skip


READ_BYTES = 128 << 20
"""What a poll of whole partitions may hold, unless told otherwise. Nothing that streamrnn writes unpacks to so much."""


class PollBudget:
    """What one poll may hold in memory, in bytes of unpacked records: as much again for the batch that is the last."""

    def __init__(self, most_bytes: int, refuses: bool = True) -> None:
        self.most_bytes = self.left_bytes = most_bytes
        self.refuses = refuses
        """Whether a batch whose checksum is right and whose inside is not becomes one record that says so: that is its
        producer's doing, and no restart changes it. Otherwise it cannot be read.
        """

    def renew(self) -> None:
        """Another poll begins."""
        self.left_bytes = self.most_bytes


class Unreadable(Refused):
    """The next record batch of one partition cannot be read; what other partitions hold can."""

    def __init__(self, tp: TopicPartition, offset: int, error: MalformedRecords) -> None:
        self.partition, self.is_codec = tp.partition, isinstance(error, CodecMissing)
        where = f"topic {tp.topic}, partition {tp.partition}: the record batch at offset {offset}"
        if self.is_codec:
            super().__init__(f"{where} cannot be read: {error}, and start again")
        else:
            super().__init__(
                f"{where} is malformed: {error}. If it stays so after a restart, the broker's log is damaged there"
            )


class _Taken(list[Records]):
    """Chunks whose length is that of their records, so that the fetcher's budget of records counts records; `full`: it
    is used up.
    """

    full = 0

    def __len__(self) -> int:
        return max(self.full, sum(len(chunk) for chunk in self))


class ColumnarRecords(Fetcher.PartitionRecords):
    """One partition's part of a fetch response, given out as few large `Records`.

    Everything about transactions is the library's: which producers' batches are aborted, and where the next fetch goes.
    """

    next_fetch_offset: int
    room = PollBudget(sys.maxsize, refuses=False)
    _wanted = 1

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # Start of a batch -> its records until they are given out, None: they are too large.
        self._bodies: dict[int, bytes | memoryview | None] = {}
        self._refusals: dict[int, tuple[int, Reason, str]] = {}  # start of a batch that is refused -> its offset, why

    def _maybe_skip_record(self, record: Records) -> bool:
        return False  # done inside the batch

    def take(self, n: int | None = None) -> _Taken:
        """About `n` records: whole batches until there are so many, or no room is left."""
        self._wanted = n or 1
        taken = _Taken()
        if self.record_iterator is not None and (chunk := next(self.record_iterator, None)) is not None:
            taken.append(chunk)
            taken.full = 0 if self.room.left_bytes > 0 else self._wanted
        return taken

    def _unpack_records(self, tp: TopicPartition, records: MemoryRecords, *_: Any) -> Iterator[Records]:
        buffer = memoryview(records._buffer)
        batches: list[RecordBatch] = []
        rows = headers = at = 0
        where = self.fetch_offset
        try:
            while (batch := next_batch(buffer, at)) is not None:
                where, at = batch.base_offset, batch.end
                if self.check_crcs and not is_intact(buffer, batch):
                    raise MalformedRecords("its checksum is wrong")
                if self._is_visible(buffer, batch):
                    self._make_room(buffer, batch)
                    batches.append(batch)
                    rows += batch.records
                    headers += len(self._bodies[batch.start] or b"") // 2  # there cannot be more
                self.leader_epoch = batch.leader_epoch
                self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)
                # What headers take shows when they are made: a chunk ends before those of many batches can be too much.
                is_full = self.room.left_bytes <= 0 or HEADER_BYTES * headers > self.room.most_bytes
                if (is_full or rows >= self._wanted) and batches and at < len(buffer):
                    yield from self._chunk(tp, batches, buffer)
                    batches, rows, headers = [], 0, 0
            self.bytes_read = at
            chunk = self._chunk(tp, batches, buffer)
        except MalformedRecords as error:
            yield from self._before(tp, batches, buffer, where, error)
            return
        self.drain()  # before the last records are handed out, so that the next fetch starts at once
        yield from chunk

    def _before(
        self,
        tp: TopicPartition,
        batches: Sequence[RecordBatch],
        buffer: memoryview,
        where: int,
        error: MalformedRecords,
    ) -> Iterator[Records]:
        """What can be read before the batch that cannot, at which the next fetch then begins. Raises Unreadable where
        that is nothing.
        """
        self.drain()  # otherwise the fetcher would ask this response again and again
        good: list[Records] = []
        for batch in batches:
            try:
                good += self._chunk(tp, [batch], buffer)
            except MalformedRecords as its:
                where, error = batch.base_offset, its
                break
        self.next_fetch_offset = max(where, self.fetch_offset)
        if not good:
            raise Unreadable(tp, where, error) from error
        yield merged(tp.partition, good)

    def _is_visible(self, buffer: memoryview, batch: RecordBatch) -> bool:
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.producer_id >= 0:
            self._consume_aborted_transactions_up_to(batch.next_offset - 1)
            if batch.producer_id in self.aborted_producer_ids:
                if not batch.is_control:
                    return not batch.is_transactional
                if is_abort(buffer, batch):
                    self.aborted_producer_ids.remove(batch.producer_id)
        return not batch.is_control

    def _make_room(self, buffer: memoryview, batch: RecordBatch) -> None:
        """Unpacks the batch, unless it needs more room than a poll has."""
        try:
            body = self._bodies[batch.start] = body_of(buffer, batch, self.room.most_bytes)
            self.room.left_bytes -= len(body) + RECORD_BYTES * batch.records
        except TooLarge:
            self._too_large(batch)
        except CodecMissing:
            raise
        except MalformedRecords as error:
            self._spoilt(batch, error)

    def _too_large(self, batch: RecordBatch, what: str = "") -> None:
        limit = f"{self.room.most_bytes >> 20} MiB{what} (epoch.max_poll_mib)"
        fix = "If that is meant, raise it and read again; else let the producer send smaller batches (batch.size)"
        self._refuse(batch, Reason.BATCH_TOO_LARGE, f"unpacks to more than {limit}. {fix}.")

    def _spoilt(self, batch: RecordBatch, error: MalformedRecords) -> None:
        if not self.room.refuses:
            raise error
        fix = "Its producer made it so; use Kafka's own clients or librdkafka"
        self._refuse(batch, Reason.BAD_BATCH, f"has the right checksum, but cannot be read inside: {error}. {fix}.")

    def _refuse(self, batch: RecordBatch, reason: Reason, why: str) -> None:
        first, last = max(batch.base_offset, self.fetch_offset), batch.next_offset - 1
        where = f"The record batch of {batch.end - batch.start} bytes at offsets {first} to {last}"
        self._bodies[batch.start], self._refusals[batch.start] = None, (first, reason, f"{where} {why}")

    def _chunk(self, tp: TopicPartition, batches: Sequence[RecordBatch], buffer: memoryview) -> Sequence[Records]:
        chunks: list[Records] = []
        for is_refused, some in groupby(batches, lambda batch: batch.start in self._refusals):
            its = list(some)
            chunks += [self._refused(batch) for batch in its] if is_refused else self._decoded(tp, its, buffer)
        for batch in batches:
            del self._bodies[batch.start]
            self._refusals.pop(batch.start, None)
        chunk = after(merged(tp.partition, chunks), self.fetch_offset)
        self.records_read += len(chunk)
        return (chunk,) if len(chunk) else ()

    def _decoded(self, tp: TopicPartition, batches: Sequence[RecordBatch], buffer: memoryview) -> list[Records]:
        try:
            decoded = decode(tp.partition, batches, buffer, self._bodies, self.room.most_bytes)
            self.room.left_bytes -= HEADER_BYTES * sum(map(len, decoded.headers.values()))
            return [decoded]
        except (MalformedRecords, TooLarge) as error:
            if len(batches) > 1:
                return [one for batch in batches for one in self._decoded(tp, [batch], buffer)]
            if isinstance(error, MalformedRecords):
                self._spoilt(batches[0], error)
            else:
                self._too_large(batches[0], " of headers")
            return [self._refused(batches[0])]

    def _refused(self, batch: RecordBatch) -> Records:
        """One record in place of a batch."""
        at, stamp_ms = np.array([batch.next_offset - 1], np.int64), np.array([batch.max_ms], np.int64)
        first, reason, why = self._refusals[batch.start]
        return Records(self.topic_partition.partition, at, stamp_ms, [None], [None], {}, {0: (reason, why)}, {0: first})


def install(consumer: KafkaConsumer, room: PollBudget) -> str | None:
    """Makes `consumer` fetch columns, for which there is as much `room`. Returns why not, when the client library is
    not one that this file knows.
    """
    if why := unfit():
        return why
    consumer._fetcher.PartitionRecords = type("ColumnarRecords", (ColumnarRecords,), {"room": room})
    return None


def renew(consumer: KafkaConsumer) -> None:
    """Another poll of `consumer` begins. Nothing where the library unpacks, which it does without a bound."""
    if (room := getattr(consumer._fetcher.PartitionRecords, "room", None)) is not None:
        room.renew()


@cache
def unfit() -> str | None:
    """Why the private names cannot be used, or None: same records from the same bytes, ours and the library's way."""
    version = tuple(int(part) for part in kafka.__version__.split(".")[:3] if part.isdigit())
    if version[:2] != TESTED[:2] or version < TESTED:
        return f"kafka-python {kafka.__version__} is not {'.'.join(map(str, TESTED))}"
    try:
        found = tuple(inspect.signature(Fetcher.PartitionRecords.__init__).parameters)[1:]
        if found != ARGUMENTS or "PartitionRecords(fetch_offset" not in inspect.getsource(Fetcher._parse_fetched_data):
            return "kafka-python makes its PartitionRecords in another way"
        raw = b"".join(_sample(offset, codec) for offset, codec in ((0, 0), (3, 1)))
        tp = TopicPartition("sample", 0)
        ours = ColumnarRecords(1, tp, MemoryRecords(raw)).take(100)
        theirs = Fetcher.PartitionRecords(1, tp, MemoryRecords(raw)).take(100)
        left, right = merged(0, ours), merged(0, theirs)
        same = all(
            [
                np.array_equal(left.offsets, right.offsets),
                np.array_equal(left.timestamps_ms, right.timestamps_ms),
                (left.keys, left.values, left.headers) == (right.keys, right.values, right.headers),
            ]
        )
        return None if same else "kafka-python reads a sample in another way"
    except Exception as error:
        return f"kafka-python's fetcher has changed: {type(error).__name__}: {error}"


def _sample(offset: int, codec: int) -> bytes:
    builder = MemoryRecordsBuilder(2, codec, 1 << 16)
    for row in range(3):
        builder.append(1_000 + row, b"key", None if row else b"v" * 200, [("name", b"header"), ("null", None)] * row)
    builder.close()
    return struct.pack(">q", offset) + bytes(builder.buffer())[8:]  # the checksum leaves the base offset out
