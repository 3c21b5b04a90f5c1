"""Record batches <-> columns: what is written reads back the same, also by the client library, and junk is refused."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from services.brokers.kafka_batch import HEAD, MalformedRecords, RecordBatch, decode, is_intact, next_batch
from services.brokers.kafka_encode import DELTAS, RecordTooLarge, encode
from services.records import Header, Records

BLOBS = st.one_of(st.none(), st.binary(max_size=80), st.integers(0, 20_000).map(lambda size: b"x" * size))
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.one_of(st.none(), st.binary(max_size=70))), max_size=3)
RECORDS = st.lists(st.tuples(BLOBS, BLOBS, HEADERS), min_size=1, max_size=40)


def framed(body: bytes, count: int, base_offset: int = 0) -> bytes:
    """A body with the header that the client library would write."""
    head = HEAD.pack(base_offset, len(body) + HEAD.size - 12, 0, 2, 0, 0, count - 1, 9, 9, -1, -1, -1, count)
    batch = bytearray(head + body)
    struct.pack_into(">I", batch, 17, calc_crc32c(memoryview(batch)[21:]))
    return bytes(batch)


def batches(raw: bytes) -> list[RecordBatch]:
    found: list[RecordBatch] = []
    while (batch := next_batch(memoryview(raw), found[-1].end if found else 0)) is not None:
        assert is_intact(memoryview(raw), batch)
        found.append(batch)
    return found


def read(raw: bytes) -> Records:
    return decode(0, batches(raw), memoryview(raw))


@given(RECORDS, st.sampled_from([30_000, 1 << 20]), st.booleans())
def test_what_is_encoded_reads_back(
    records: list[tuple[bytes | None, bytes | None, list[Header]]], max_bytes: int, with_headers: bool
) -> None:
    keys, values = [record[0] for record in records], [record[1] for record in records]
    headers = [record[2] for record in records] if with_headers else None
    large = [len(key or b"") + len(value or b"") > max_bytes - 1000 for key, value, _ in records]
    if any(large):
        with pytest.raises(RecordTooLarge) as error:
            encode(keys, values, headers, max_bytes)
        assert error.value.row == large.index(True)
        return
    bodies = encode(keys, values, headers, max_bytes)
    raw, offset = b"", 0
    for body, count in bodies:
        assert len(framed(body, count)) <= max_bytes
        raw += framed(body, count, offset)
        offset += count
    found = read(raw)
    assert (found.keys, found.values) == (keys, values)
    assert found.offsets.tolist() == list(range(len(records)))
    assert found.headers == {row: kept for row, kept in enumerate(headers or []) if kept}
    theirs = [record for batch in MemoryRecords(raw) for record in batch]
    assert [(record.offset, record.key, record.value) for record in theirs] == list(
        zip(range(len(keys)), keys, values, strict=True)
    )
    assert [record.headers for record in theirs] == (headers or [[] for _ in keys])


@given(RECORDS, st.sampled_from([0, 1, 3]), st.lists(st.integers(-(2**40), 2**40), min_size=40, max_size=40))
def test_what_the_client_library_writes_is_read(
    records: list[tuple[bytes | None, bytes | None, list[Header]]], codec: int, times_ms: list[int]
) -> None:
    builder = MemoryRecordsBuilder(2, codec, 1 << 24)
    offsets = []
    for (key, value, headers), time_ms in zip(records, times_ms, strict=False):
        offsets.append(builder.append(2**41 + time_ms, key, value, headers).offset)
        builder.skip(len(offsets) % 3)  # as if compaction had removed some
    builder.close()
    found = read(bytes(builder.buffer()))
    assert found.offsets.tolist() == offsets
    assert found.timestamps_ms.tolist() == [2**41 + time_ms for time_ms in times_ms[: len(records)]]
    assert found.keys == [record[0] for record in records]
    assert found.values == [record[1] for record in records]
    assert found.headers == {row: record[2] for row, record in enumerate(records) if record[2]}


@given(st.data())
def test_damaged_bytes_are_refused_or_read_never_anything_else(data: st.DataObject) -> None:
    keys, values = [b"key", None, b"k" * 100], [b"v" * 200, b"", None]
    body, count = encode(keys, values, [[], [("name", b"value")], []], 1 << 16)[0]
    raw = bytearray(framed(body, count))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(HEAD.size - 4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    batch = next_batch(memoryview(raw), 0)
    assert batch is not None
    with suppress(MalformedRecords):
        assert len(decode(0, [batch], memoryview(raw))) == batch.records


def test_a_wrong_checksum_is_seen() -> None:
    raw = bytearray(framed(*encode([b"k"], [b"value"], None, 1 << 16)[0]))
    raw[-3] ^= 1
    batch = next_batch(memoryview(raw), 0)
    assert batch is not None
    assert not is_intact(memoryview(raw), batch)


@pytest.mark.parametrize("cut", [0, 5, 11, 40, 60, 61, 70])
def test_a_batch_that_was_cut_off_is_not_there(cut: int) -> None:
    raw = framed(*encode([b"k"], [b"v" * 50], None, 1 << 16)[0])
    assert next_batch(memoryview(raw[:cut]), 0) is None


def test_old_message_formats_are_refused() -> None:
    raw = bytearray(framed(*encode([b"k"], [b"v"], None, 1 << 16)[0]))
    raw[16] = 1
    with pytest.raises(MalformedRecords, match="format 1"):
        next_batch(memoryview(raw), 0)


def test_batches_are_split_by_size_and_by_number() -> None:
    bodies = encode([b"k"] * 100, [b"v" * 100] * 100, None, 2_000)
    assert len(bodies) > 5
    assert all(len(body) + HEAD.size <= 2_000 for body, _ in bodies)
    assert sum(count for _, count in bodies) == 100
    many = len(DELTAS) + 1
    assert [count for _, count in encode([b""] * many, [b""] * many, None, 1 << 24)] == [len(DELTAS), 1]


def test_a_record_that_fits_exactly_is_not_refused() -> None:
    (body, _) = encode([b"k"], [b"v" * 1000], None, 1 << 20)[0]
    exact = len(body) + HEAD.size
    assert encode([b"k"], [b"v" * 1000], None, exact) == [(body, 1)]
    with pytest.raises(RecordTooLarge) as error:
        encode([b"small", b"k"], [b"v", b"v" * 1000], None, exact - 1)
    assert (error.value.row, error.value.size) == (1, exact)
