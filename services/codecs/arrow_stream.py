"""Looks at the frame of an Arrow IPC stream before Arrow does, so that nothing hostile reaches its readers.

A frame is `ffffffff`, the metadata's length (int32), the metadata (a flatbuffer `Message`) and its body; the stream
ends with `ffffffff 00000000` (Arrow columnar format, "IPC streaming format"). Compressed bodies are refused because
their claimed size could be anything; dictionaries because a few bytes could stand for gigabytes. Imports the standard
library only.
"""

from __future__ import annotations

import struct

from services.codecs.refusal import Refusal
from services.records import Reason

CONTINUATION = b"\xff\xff\xff\xff"
END = CONTINUATION + b"\x00\x00\x00\x00"
MAX_BATCHES = 100
"""Record batches in one packed record; each costs time, however few rows it has."""
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # MessageHeader
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3  # fields of Message
_LENGTH, _COMPRESSION = 0, 3  # fields of RecordBatch


def check_frames(value: bytes) -> None:
    """Raises Refusal unless `value` is one schema, then plain record batches, then the end mark, and nothing else."""
    if not value.startswith(CONTINUATION):
        raise _bad("it does not start with ffffffff")
    at, messages = 0, 0
    while value[at : at + 8] != END:
        if value[at : at + 4] != CONTINUATION or at + 8 > len(value):
            raise _bad(f"it breaks off or is damaged at byte {at} of {len(value)} (was the writer closed?)")
        (length,) = struct.unpack_from("<i", value, at + 4)
        metadata = value[at + 8 : at + 8 + length]
        if length <= 0 or len(metadata) < length:
            raise _bad(f"the message at byte {at} claims {length} bytes of metadata")
        try:
            kind, body_bytes, compressed = _message(metadata)
        except struct.error:
            raise _bad(f"the metadata of the message at byte {at} is damaged") from None
        if kind != (_SCHEMA if messages == 0 else _BATCH):
            what = "it uses dictionary encoding" if kind == _DICTIONARY else f"message {messages} has type {kind}"
            raise _bad(f"{what}; a packed record is a schema and plain record batches")
        if messages > MAX_BATCHES:
            raise _bad(f"it has more than {MAX_BATCHES} record batches; write larger ones")
        if compressed:
            raise _bad("its buffers are compressed; write them plain and let Kafka compress (compression.type)")
        at += 8 + length + body_bytes
        messages += 1
        if body_bytes < 0 or at > len(value):
            raise _bad(f"a message claims a body of {body_bytes} bytes; the record has {len(value)}")
    if messages == 0 or at + 8 != len(value):
        raise _bad(f"it ends at byte {at + 8}, the record at byte {len(value)}")


def count_rows(value: bytes, most: int) -> int:
    """Rows that the stream says it has, at most `most`; of a damaged one those before the damage. Looks at the frames
    only: nothing is decoded.
    """
    at = rows = 0
    for _ in range(MAX_BATCHES + 1):
        try:
            (length,) = struct.unpack_from("<i", value, at + 4)
            metadata = value[at + 8 : at + 8 + length]
            kind, body_bytes, _ = _message(metadata)
            if kind == _BATCH:
                rows += max(0, _rows(metadata))
        except (struct.error, OverflowError):  # also the end mark, which has no metadata
            break
        at += 8 + length + body_bytes
        if rows >= most or length <= 0 or body_bytes < 0 or at > len(value):
            break
    return min(rows, most)


def _bad(what: str) -> Refusal:
    return Refusal(Reason.BAD_ARROW, f"The packed record cannot be read: {what}.")


def _message(metadata: bytes) -> tuple[int, int, bool]:
    """Header type, body length and whether the body is compressed."""
    root = struct.unpack_from("<I", metadata, 0)[0]
    kind_at, header_at, body_at = (_field(metadata, root, field) for field in (_HEADER_TYPE, _HEADER, _BODY_LENGTH))
    kind = struct.unpack_from("<B", metadata, kind_at)[0] if kind_at else 0
    body_bytes = struct.unpack_from("<q", metadata, body_at)[0] if body_at else 0
    compressed = False
    if kind == _BATCH and header_at:
        batch = header_at + struct.unpack_from("<I", metadata, header_at)[0]
        compressed = _field(metadata, batch, _COMPRESSION) != 0
    return kind, body_bytes, compressed


def _rows(metadata: bytes) -> int:
    """Of a record batch's message."""
    header = _field(metadata, struct.unpack_from("<I", metadata, 0)[0], _HEADER)
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    found = _field(metadata, batch, _LENGTH)
    rows: int = struct.unpack_from("<q", metadata, found)[0] if found else 0
    return rows


def _field(metadata: bytes, table: int, field: int) -> int:
    """Where a field of a flatbuffer table lies; 0 = absent. Raises struct.error outside the buffer."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0:
        raise struct.error("vtable before the buffer")
    size = struct.unpack_from("<H", metadata, vtable)[0]
    if 4 + 2 * field + 2 > size:
        return 0
    offset: int = struct.unpack_from("<H", metadata, vtable + 4 + 2 * field)[0]
    return table + offset if offset else 0
