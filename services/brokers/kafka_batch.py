"""Kafka's record batches (message format 2) -> columns. `kafka_encode` is the way back.

One pass finds where each record starts; numpy then decodes the same field of all records at once. Nothing here is
private to a client library: the layout is Kafka's protocol (https://kafka.apache.org/documentation/#recordbatch).
May import numpy, the standard library, records, and kafka's checksum and codecs.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from kafka import codec
from kafka.record.util import calc_crc32c
from numpy.typing import NDArray

from services.brokers.kafka_unpack import UNPACKERS, TooLarge, unpack
from services.records import Header, Reason, Records

HEAD = struct.Struct(">qiibIhiqqqhii")
FRAME_BYTES = 12  # base offset and length, which the length does not count
CHECKED_FROM = 21  # the checksum covers everything from the attributes on
CODEC, LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x07, 0x08, 0x10, 0x20

RECORD_BYTES = 200
"""About what a record takes in memory beside its bytes, as two byte strings and some numbers."""
HEADER_BYTES = 200
"""About what a header takes beside its bytes, as a tuple of two strings; in a batch it may be two bytes long."""
MAX_HEADERS = 1000
"""Of one record. Producers send a few; one with more is refused, and its headers are never made."""
CODECS = {1: ("gzip", codec.has_gzip), 2: ("snappy", codec.has_snappy), 3: ("lz4", codec.has_lz4),
          4: ("zstd", codec.has_zstd)}  # fmt: skip
PAD = bytes(64)  # the three varints before a key may be read past a malformed last record; longer than they can be


class MalformedRecords(ValueError):
    """The bytes are not record batches. The message says what is wrong, not where: the caller knows."""


class CodecMissing(MalformedRecords):
    """Nothing is wrong with the bytes: what unpacks them is not installed."""


class RecordBatch(NamedTuple):
    """A record batch's header, and where its records lie in the buffer."""

    base_offset: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_ms: int
    max_ms: int
    producer_id: int
    records: int
    start: int  # of the batch in the buffer
    end: int

    @property
    def next_offset(self) -> int:
        """The offset after the batch, whether or not compaction has removed its last record."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def is_transactional(self) -> bool:
        """True for records that count only once their transaction is committed."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        """True for a transaction marker."""
        return bool(self.attributes & CONTROL)


def next_batch(buffer: memoryview, start: int) -> RecordBatch | None:
    """The batch at `start`, or None when no whole one is there: a fetch may end in the middle of one."""
    if len(buffer) - start < FRAME_BYTES:
        return None
    length = struct.unpack_from(">i", buffer, start + 8)[0]
    if length < HEAD.size - FRAME_BYTES:
        raise MalformedRecords(f"a batch of {length} bytes")
    end = start + FRAME_BYTES + length
    if end > len(buffer):
        return None
    head = HEAD.unpack_from(buffer, start)
    if head[3] != 2:
        raise MalformedRecords(f"message format {head[3]}; only format 2 (Kafka 0.11 and later) is read")
    offset, _, epoch, magic, crc, attributes, last, first_ms, max_ms, producer, _, _, count = head
    return RecordBatch(offset, epoch, magic, crc, attributes, last, first_ms, max_ms, producer, count, start, end)


def is_intact(buffer: memoryview, batch: RecordBatch) -> bool:
    """True when the checksum is right."""
    return bool(calc_crc32c(buffer[batch.start + CHECKED_FROM : batch.end]) == batch.crc)


def is_abort(buffer: memoryview, batch: RecordBatch) -> bool:
    """True when a control batch ends its transaction by aborting it."""
    key = decode(0, [batch], buffer).keys[0]
    if key is None or len(key) < 4:
        raise MalformedRecords("a control batch without a type")
    return key[2:4] == b"\x00\x00"


def body_of(buffer: memoryview, batch: RecordBatch, most: int = sys.maxsize) -> bytes | memoryview:
    """The batch's records, one after the other, unpacked. Raises MalformedRecords, and TooLarge where they would take
    more than `most` bytes of memory.
    """
    body, kind = buffer[batch.start + HEAD.size : batch.end], batch.attributes & CODEC
    if not kind:
        return body
    if kind not in UNPACKERS:
        raise MalformedRecords(f"compression {kind} is not known")
    name, is_installed = CODECS[kind]
    if not is_installed():
        raise CodecMissing(
            f"it is compressed with {name}, which this installation cannot unpack; run `pip install 'streamrnn[fast]'`"
        )
    if (room := most - RECORD_BYTES * batch.records) < 0:
        raise TooLarge
    try:
        return unpack(kind, body.tobytes(), room)
    except TooLarge:
        raise
    except Exception as error:  # each codec has errors of its own
        raise MalformedRecords(f"compressed records cannot be unpacked: {error}") from error


def decode(
    partition: int,
    batches: Sequence[RecordBatch],
    buffer: memoryview,
    known: Mapping[int, bytes | memoryview | None] = MappingProxyType({}),
    most: int = sys.maxsize,
) -> Records:
    """The records of `batches`, in order; one with more than MAX_HEADERS is refused, and has none. `known`: what is
    unpacked already, by the start of its batch. Raises MalformedRecords, and TooLarge where the headers of all would
    take more than `most` bytes of memory, before any of them is made.
    """
    bodies = [known.get(batch.start) or body_of(buffer, batch) for batch in batches]
    ends = list(accumulate(map(len, bodies)))
    try:
        return _columns(partition, batches, b"".join([*bodies, PAD]), ends, most)
    except IndexError:
        raise MalformedRecords("a record is cut off") from None


def _columns(partition: int, batches: Sequence[RecordBatch], data: bytes, ends: Sequence[int], most: int) -> Records:
    counts = [batch.records for batch in batches]
    starts, stops = _bounds(data, counts, ends)
    columns = _RecordColumns(data, starts, stops)
    after_ms, after = columns.numbers(), columns.numbers()
    keys, values = columns.blobs(), columns.blobs()
    headers, many = columns.headers(most)
    offsets = np.repeat(np.array([batch.base_offset for batch in batches], np.int64), counts) + after
    firsts = np.cumsum([0, *counts[:-1]])
    lasts = np.repeat(np.array([batch.next_offset - batch.base_offset for batch in batches], np.int64), counts)
    rising = np.diff(after, prepend=-1) > 0
    rising[firsts[np.array(counts, np.int64) > 0]] = True  # each batch begins anew
    if not (rising & (after >= 0) & (after < lasts)).all():  # brokers look at it in compressed batches only
        raise MalformedRecords("its records' offsets do not rise, or leave the batch")
    times_ms = np.repeat(np.array([batch.first_ms for batch in batches], np.int64), counts) + after_ms
    if any(batch.attributes & LOG_APPEND_TIME for batch in batches):
        stamped = np.repeat([bool(batch.attributes & LOG_APPEND_TIME) for batch in batches], counts)
        times_ms = np.where(stamped, np.repeat([batch.max_ms for batch in batches], counts), times_ms)
    refused = {row: (Reason.TOO_LARGE, _too_many(int(offsets[row]), count)) for row, count in many.items()}
    return Records(partition, offsets, times_ms, keys, values, headers, refused)


def _too_many(offset: int, count: int) -> str:
    limit = f"at most {MAX_HEADERS:,} are read. None of them is kept; send what they say in fewer"
    return f"The record at offset {offset} has {count:,} headers; {limit}."


def _bounds(data: bytes, counts: Sequence[int], ends: Sequence[int]) -> tuple[list[int], list[int]]:
    """Where each record starts and stops, after its length. The only loop over records."""
    starts: list[int] = []
    stops: list[int] = []
    start, stop = starts.append, stops.append
    at = 0
    for count, end in zip(counts, ends, strict=True):
        if not 0 <= count <= end - at:
            raise MalformedRecords(f"{count} records in {end - at} bytes")
        for _ in range(count):
            size = data[at]
            at += 1
            shift = 7
            if size > 127:
                size &= 127
                while (more := data[at]) > 127:
                    size |= (more & 127) << shift
                    shift += 7
                    if shift > 35:
                        raise MalformedRecords("a record's length of more than 32 bits")
                    at += 1
                size |= more << shift
                at += 1
            start(at)
            at += size >> 1
            stop(at)
            if size & 1 or at > end:
                raise MalformedRecords("a record is longer than its batch")
        if at != end:
            raise MalformedRecords(f"{end - at} bytes are left over after the last record of a batch")
    return starts, stops


class _RecordColumns:
    """Reads one field of all records at a time."""

    def __init__(self, data: bytes, starts: list[int], stops: list[int]) -> None:
        self.data = data
        self.u8 = np.frombuffer(data, np.uint8)
        self.at = np.array(starts, np.int64) + 1  # [n], past the attributes, which have no meaning yet
        self.stops = np.array(stops, np.int64)  # [n]

    def numbers(self) -> NDArray[np.int64]:
        """One zigzag varint of each record, [n]."""
        at = self.at
        byte = self.u8[at]
        at = at + 1
        value = byte.astype(np.uint64)
        rows = np.flatnonzero(byte > 127)
        shift = 7
        value[rows] &= np.uint64(127)
        while len(rows):
            if shift > 63:
                raise MalformedRecords("a number of more than 64 bits")
            byte = self.u8[at[rows]]
            at[rows] += 1
            value[rows] |= (byte & 127).astype(np.uint64) << np.uint64(shift)
            rows = rows[byte > 127]
            shift += 7
        self.at = at
        return (value >> np.uint64(1)).view(np.int64) ^ -(value & np.uint64(1)).view(np.int64)

    def blobs(self) -> list[bytes | None]:
        """One byte string of each record, [n]; None where there is none."""
        sizes = self.numbers()
        if len(sizes) and not (sizes.min() >= -1 and sizes.max() <= len(self.data)):
            raise MalformedRecords("a key or value of impossible length")
        begins = self.at
        self.at = begins + np.maximum(sizes, 0)
        if (self.at >= self.stops).any():  # the number of headers comes after both
            raise MalformedRecords("a key or value is longer than its record")
        data = self.data
        blobs: list[bytes | None] = [data[a:b] for a, b in zip(begins.tolist(), self.at.tolist(), strict=True)]
        for row in np.flatnonzero(sizes < 0).tolist():
            blobs[row] = None
        return blobs

    def headers(self, most: int) -> tuple[dict[int, list[Header]], dict[int, int]]:
        """Row -> its headers, of the rows that have any; row -> how many, of those that have too many. Checks that
        every record but these ends where it should. Raises TooLarge where headers would take more than `most` bytes.
        """
        begins = self.at
        counts = self.numbers()
        if (counts > (self.stops - self.at) // 2).any():  # the lengths of its name and its value take a byte each
            raise MalformedRecords("more headers than a record has bytes for, or bytes left over at its end")
        if (self.at[counts == 0] != self.stops[counts == 0]).any():
            raise MalformedRecords("bytes are left over at the end of a record")
        many = {row: int(counts[row]) for row in np.flatnonzero(counts > MAX_HEADERS).tolist()}
        counts[list(many)] = 0
        if HEADER_BYTES * int(counts.sum()) > most:
            raise TooLarge
        rows = np.flatnonzero(counts).tolist()
        return {row: self._headers(int(begins[row]), int(self.stops[row])) for row in rows}, many

    def _headers(self, at: int, stop: int) -> list[Header]:
        count, at = _number(self.data, at)
        headers: list[Header] = []
        for _ in range(count):
            size, at = _number(self.data, at)
            name = self.data[at : at + size]
            at += size
            if size < 0 or at >= stop:
                raise MalformedRecords("a header is longer than its record")
            size, at = _number(self.data, at)
            value = None if size < 0 else self.data[at : at + size]
            at += max(size, 0)
            if at > stop:
                raise MalformedRecords("a header is longer than its record")
            headers.append((name.decode("utf-8", "replace"), value))
        if count < 0 or at != stop:
            raise MalformedRecords("bytes are left over at the end of a record")
        return headers


def _number(data: bytes, at: int) -> tuple[int, int]:
    """One zigzag varint and where it ends."""
    value = shift = 0
    while (byte := data[at]) > 127 and shift < 63:
        value |= (byte & 127) << shift
        shift += 7
        at += 1
    value |= byte << shift
    return (value >> 1) ^ -(value & 1), at + 1
