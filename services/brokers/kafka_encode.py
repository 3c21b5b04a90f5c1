"""Columns -> bodies of Kafka's record batches (message format 2). `kafka_batch` is the way back.

May import numpy, the standard library and records only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.records import Header

HEAD_BYTES = 61
"""A batch's header, which the client library writes."""
VARINT_BYTES = 5  # at most, for the sizes that fit into a batch
RECORD_BYTES = 2 + 5 * VARINT_BYTES  # at most, beside key, value and headers


def _varint(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Varints(dict[int, bytes]):
    def __missing__(self, value: int) -> bytes:
        return _varint(value)


DELTAS = [_varint(value) for value in range(1 << 13)]
"""Offset deltas; also the most records of one batch."""
VARINTS = _Varints(enumerate(DELTAS))


class RecordTooLarge(ValueError):
    """A record does not fit into a batch of its own."""

    def __init__(self, row: int, size: int) -> None:
        super().__init__(f"record {row} needs {size} bytes")
        self.row = row
        self.size = size  # bytes, of a batch that holds nothing else


def encode(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Sequence[Sequence[Header]] | None,
    max_bytes: int,
) -> list[tuple[bytes, int]]:
    """The records as bodies of as few batches as fit into `max_bytes` each, header included: (body, number of records).

    All records of a batch have its first timestamp. Raises RecordTooLarge.
    """
    room = max_bytes - HEAD_BYTES
    if headers is None and 0 < len(keys) <= len(DELTAS) and None not in keys and None not in values:
        total = sum(map(len, keys)) + sum(map(len, values))  # type: ignore[arg-type]
        if total + len(keys) * RECORD_BYTES <= room:
            return [(_body(keys, values, None), len(keys))]
    sizes = np.array(
        [_size(key) + _size(value) + RECORD_BYTES for key, value in zip(keys, values, strict=True)], np.int64
    )
    if headers is not None:
        sizes += np.array([_headers_size(found) for found in headers], np.int64)
    ends = np.cumsum(sizes)
    bodies = []
    start = 0
    while start < len(keys):
        before = int(ends[start - 1]) if start else 0
        stop = min(int(np.searchsorted(ends, before + room, side="right")), start + len(DELTAS))
        stop = max(stop, start + 1)
        part = slice(start, stop)
        body = _body(keys[part], values[part], None if headers is None else headers[part])
        if len(body) > room:  # only a record alone can be: sizes are upper bounds
            raise RecordTooLarge(start, len(body) + HEAD_BYTES)
        bodies.append((body, stop - start))
        start = stop
    return bodies


def _body(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], headers: Sequence[Sequence[Header]] | None
) -> bytes:
    if headers is None and None not in keys and None not in values:
        records = [
            b"".join((b"\0\0", delta, VARINTS[len(key)], key, VARINTS[len(value)], value, b"\0"))  # type: ignore[arg-type]
            for delta, key, value in zip(DELTAS, keys, values, strict=False)
        ]
    else:
        tails = [b"\0"] * len(keys) if headers is None else [_headers(found) for found in headers]
        records = [
            b"".join((b"\0\0", delta, _blob(key), _blob(value), tail))
            for delta, key, value, tail in zip(DELTAS, keys, values, tails, strict=False)
        ]
    return b"".join([part for record in records for part in (VARINTS[len(record)], record)])


def _blob(data: bytes | None) -> bytes:
    return b"\1" if data is None else VARINTS[len(data)] + data


def _headers(headers: Sequence[Header]) -> bytes:
    parts = [VARINTS[len(headers)]]
    for name, value in headers:
        parts += (_blob(name.encode()), _blob(value))
    return b"".join(parts)


def _size(data: bytes | None) -> int:
    return 0 if data is None else len(data)


def _headers_size(headers: Sequence[Header]) -> int:
    return sum(2 * VARINT_BYTES + len(name.encode()) + _size(value) for name, value in headers)
