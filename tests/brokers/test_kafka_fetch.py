"""Fetched responses as columns: the same records, position and end of transactions as the client library finds."""

from __future__ import annotations

import struct
from typing import NamedTuple

import kafka
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from services.brokers import kafka_append, kafka_fetch
from services.brokers.kafka_batch import HEADER_BYTES, MAX_HEADERS
from services.brokers.kafka_fetch import ColumnarRecords, Unreadable
from services.brokers.kafka_merged import merged
from services.predictor.ports import Refused
from services.records import Reason, Records

TP = TopicPartition("topic", 3)


class Aborted(NamedTuple):
    """As a broker lists them in a fetch response."""

    producer_id: int
    first_offset: int


def batch(offset: int, rows: int, producer: int = -1, control: bytes | None = None, codec: int = 0) -> bytes:
    """A record batch of `rows` records, or a transaction marker."""
    builder = MemoryRecordsBuilder(2, codec, 1 << 20)
    for row in range(rows):
        builder.append(offset + row, control or b"%d" % row, None if row % 4 == 3 else b"%d" % offset * (row % 40), [])
    if producer >= 0:
        builder.set_producer_state(producer, 0, 0, True)
    builder.close()
    raw = bytearray(builder.buffer())
    struct.pack_into(">q", raw, 0, offset)
    if control is not None:
        raw[22] |= 0x20
    struct.pack_into(">I", raw, 17, calc_crc32c(memoryview(raw)[21:]))
    return bytes(raw)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, list[Aborted]]:
    """Batches of transactional and plain producers in any mixture, with the markers and the broker's list of aborts."""
    raw, offset = b"", 0
    open_since: dict[int, int] = {}
    aborted: list[Aborted] = []
    for _ in range(draw(st.integers(1, 12))):
        producer = draw(st.integers(-1, 2))
        offset += draw(st.integers(0, 2))  # a gap, as compaction leaves it
        if producer >= 0 and producer in open_since and draw(st.booleans()):
            since, abort = open_since.pop(producer), draw(st.booleans())
            if abort:
                aborted.append(Aborted(producer, since))
            raw += batch(offset, 1, producer, struct.pack(">hh", 0, 0 if abort else 1))
            offset += 1
            continue
        rows = draw(st.integers(1, 9))
        if producer >= 0:
            open_since.setdefault(producer, offset)
        raw += batch(offset, rows, producer, codec=draw(st.sampled_from([0, 0, 1])))
        offset += rows
    return raw, aborted


@given(responses(), st.integers(0, 30), st.sampled_from([1, 3, 1000]), st.sampled_from(list(IsolationLevel)))
def test_columns_are_what_the_client_library_reads(
    response: tuple[bytes, list[Aborted]], fetch_offset: int, budget: int, isolation: IsolationLevel
) -> None:
    raw, aborted = response
    theirs = Fetcher.PartitionRecords(
        fetch_offset, TP, MemoryRecords(raw), aborted_transactions=aborted, isolation_level=isolation
    )
    expected = merged(3, theirs.take(10_000))
    drained: list[ColumnarRecords] = []
    ours = ColumnarRecords(
        fetch_offset,
        TP,
        MemoryRecords(raw),
        aborted_transactions=aborted,
        isolation_level=isolation,
        on_drain=drained.append,
    )
    chunks = []
    while ours:
        position = ours.next_fetch_offset
        taken = ours.take(budget)
        chunks += list(taken)
        assert ours.next_fetch_offset >= position
        for chunk in taken:
            assert ours.next_fetch_offset > chunk.offsets[-1]
    found = merged(3, chunks)
    assert np.array_equal(found.offsets, expected.offsets)
    assert np.array_equal(found.timestamps_ms, expected.timestamps_ms)
    assert (found.keys, found.values, found.headers) == (expected.keys, expected.values, expected.headers)
    assert ours.next_fetch_offset == max(fetch_offset, theirs.next_fetch_offset)
    assert drained == [ours]


def test_the_last_batch_may_be_cut_off() -> None:
    raw = batch(0, 5) + batch(5, 5)
    ours = ColumnarRecords(0, TP, MemoryRecords(raw[:-1]))
    assert merged(3, ours.take(100)).offsets.tolist() == [0, 1, 2, 3, 4]
    assert ours.next_fetch_offset == 5


@pytest.mark.parametrize("at", [-1, -30, 57])
def test_malformed_records_are_named_and_do_not_come_back(at: int) -> None:
    damaged = bytearray(batch(7, 5))
    damaged[at] ^= 0x55
    ours = ColumnarRecords(0, TP, MemoryRecords(batch(0, 7) + bytes(damaged)))
    assert len(ours.take(1)) == 7
    with pytest.raises(Refused, match=r"topic topic, partition 3: .* offset 7 .* checksum"):
        ours.take(1)
    assert not ours
    assert ours.next_fetch_offset == 7


def test_private_names_are_used_only_with_the_versions_they_were_read_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kafka_fetch.unfit() is None
    assert kafka_append.unfit() is None
    for version in ("3.0.11", "3.1.0", "4.0.0"):
        monkeypatch.setattr(kafka, "__version__", version)
        assert version in str(kafka_fetch.unfit.__wrapped__())
        assert version in str(kafka_append.unfit.__wrapped__())


@pytest.mark.parametrize("codec", [0, 1])
@pytest.mark.parametrize("wanted", [1, 8, 1000])
def test_what_comes_before_a_malformed_batch_is_read_and_what_comes_after_is_not_skipped(
    codec: int, wanted: int
) -> None:
    damaged = bytearray(batch(7, 5, codec=codec))
    damaged[-1] ^= 0x55
    rest = bytes(damaged) + batch(12, 3)
    # Without a look at checksums it is the codec that finds the damage.
    ours = ColumnarRecords(2, TP, MemoryRecords(batch(0, 4) + batch(4, 3) + rest), check_crcs=not codec)
    chunks: list[Records] = []
    while ours.next_fetch_offset < 7 or (ours and not chunks):
        chunks += ours.take(wanted)
    assert merged(3, chunks).offsets.tolist() == [2, 3, 4, 5, 6]
    again = ColumnarRecords(ours.next_fetch_offset, TP, MemoryRecords(rest), check_crcs=not codec)
    for one in (ours, again) if ours else (again,):
        with pytest.raises(Unreadable, match="offset 7") as raised:
            one.take(wanted)
        assert raised.value.partition == 3 and not raised.value.is_codec
        assert one.next_fetch_offset == 7


def signed(raw: bytearray) -> bytes:
    """The batch with the length and the checksum that its bytes have."""
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    struct.pack_into(">I", raw, 17, calc_crc32c(memoryview(raw)[21:]))
    return bytes(raw)


def falling(offset: int) -> bytes:
    """Three records whose offsets fall: in batches that are not compressed, brokers do not look."""
    raw = bytearray(batch(offset, 3))
    second = raw.index(b"1", 61) - 2  # its key, behind its length; the offset's delta stands before
    raw[second] = 0x09  # zigzag of -5
    return signed(raw)


@pytest.mark.parametrize("bad", [falling(4), signed(bytearray(batch(4, 3, codec=1) + b"x"))])
def test_a_batch_that_its_producer_has_spoilt_is_one_refused_record_and_its_neighbours_are_read(bad: bytes) -> None:
    records = MemoryRecords(batch(0, 4) + bad + batch(7, 4))
    part = ColumnarRecords(0, TP, records)
    part.room = kafka_fetch.PollBudget(1 << 20)
    read = merged(TP.partition, part.take(1000))
    assert read.offsets.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 10]
    assert {row: reason for row, (reason, _) in read.refused.items()} == {4: Reason.BAD_BATCH}
    assert "at offsets 4 to 6 has the right checksum" in read.refused[4][1]
    part = ColumnarRecords(0, TP, MemoryRecords(batch(0, 4) + bad + batch(7, 4)))
    assert merged(TP.partition, part.take(1000)).offsets.tolist() == [0, 1, 2, 3]  # a reader that passes over nothing


def headed(offset: int, *counts: int) -> bytes:
    """A batch of records with so many headers each."""
    builder = MemoryRecordsBuilder(2, 1, 1 << 24)
    for count in counts:
        builder.append(offset, b"key", b"value", [("", None)] * count)
    builder.close()
    return struct.pack(">q", offset) + bytes(builder.buffer())[8:]


def test_a_record_of_too_many_headers_is_refused_and_its_neighbours_are_read() -> None:
    raw = headed(0, 1, MAX_HEADERS + 1, MAX_HEADERS, 0, 500_000, 2)
    read = merged(TP.partition, ColumnarRecords(0, TP, MemoryRecords(raw)).take(1000))
    assert read.offsets.tolist() == [0, 1, 2, 3, 4, 5] and read.values == [b"value"] * 6
    assert {row: len(found) for row, found in read.headers.items()} == {0: 1, 2: MAX_HEADERS, 5: 2}
    assert {row: reason for row, (reason, _) in read.refused.items()} == dict.fromkeys((1, 4), Reason.TOO_LARGE)
    assert read.refused[4][1].startswith("The record at offset 4 has 500,000 headers; at most 1,000 are read.")
    assert not read.begins


def test_more_headers_than_a_record_has_bytes_for_are_malformed() -> None:
    raw = bytearray(batch(0, 1))
    raw[61] += 2 * 3  # three bytes longer
    raw[-1:] = b"\xfe\xff\xff\x0f"  # 16 million headers
    with pytest.raises(Unreadable, match="more headers than a record has bytes for"):
        ColumnarRecords(0, TP, MemoryRecords(signed(raw))).take(1000)


def test_headers_are_of_what_a_poll_may_hold() -> None:
    most = 2 << 20
    ordinary = [headed(10 * number, *[MAX_HEADERS] * 10) for number in range(20)]
    part = ColumnarRecords(
        0, TP, MemoryRecords(b"".join([*ordinary[:19], headed(190, *[MAX_HEADERS] * 11), batch(201, 2)]))
    )
    part.room = kafka_fetch.PollBudget(most)
    chunks: list[Records] = []
    while part:
        part.room.renew()
        while part and part.room.left_bytes > 0:
            chunks += part.take(1000)
        held = sum(len(found) for chunk in chunks for found in chunk.headers.values())
        assert HEADER_BYTES * held <= 2 * most
        whole = merged(TP.partition, chunks)
        chunks = []
        if whole.refused:
            assert [why for why, _ in whole.refused.values()] == [Reason.BATCH_TOO_LARGE]
            assert (
                "at offsets 190 to 200 unpacks to more than 2 MiB of headers" in next(iter(whole.refused.values()))[1]
            )
            assert whole.offsets.tolist()[-3:] == [200, 201, 202]
