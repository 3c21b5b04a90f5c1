"""Compressed bodies of record batches -> bytes, never more than asked for: a few kilobytes may stand for gigabytes.

The client library unpacks without a bound. May import the standard library, and the codecs that kafka-python found.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator

from kafka import codec

XERIAL = b"\x82SNAPPY\x00"
"""Begins a snappy body in blocks, as Kafka's own clients write it; 8 bytes of versions follow."""
PIECE = 1 << 20
"""Codecs that make room for as much as they are asked for are asked for so many bytes at a time."""
MEMBERS = 1000
"""Of a gzip body; clients write one."""
GZIP = 16 + zlib.MAX_WBITS


class TooLarge(Exception):
    """The body unpacks to more than was asked for."""


def unpack(kind: int, body: bytes, most: int) -> bytes:
    """A body of the compression `kind` of a batch's attributes, at most `most` bytes. Raises TooLarge as soon as there
    are more, KeyError for an unknown kind, and each codec's own errors for what is damaged.
    """
    data = UNPACKERS[kind](body, most)
    if len(data) > most:
        raise TooLarge
    return data


def _gzip(body: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    room = most + 1
    while body and room:  # members, one after the other
        if len(parts) == MEMBERS:  # each of them copies what is left of the body
            raise ValueError(f"more than {MEMBERS} gzip members")
        member = zlib.decompressobj(GZIP)
        parts.append(member.decompress(body, room))
        room -= len(parts[-1])
        if room and not member.eof:
            raise EOFError("the gzip stream is cut off")
        body = member.unused_data.lstrip(b"\x00")
    return b"".join(parts)


def _snappy(body: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    for block in _blocks(body) if body.startswith(XERIAL) else [body]:
        most -= _declared(block)
        if most < 0:
            raise TooLarge
        parts.append(codec.snappy.decompress(block))
    return b"".join(parts)


def _blocks(body: bytes) -> Iterator[bytes]:
    at = len(XERIAL) + 8
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        yield body[at + 4 : at + 4 + size]
        at += 4 + size


def _declared(block: bytes) -> int:
    """What a snappy block says that it unpacks to; it cannot unpack to anything else."""
    size = 0
    for place, byte in enumerate(block[:5]):
        size |= (byte & 127) << 7 * place
        if byte < 128:
            return size
    raise ValueError("a snappy block without a length")


def _lz4(body: bytes, most: int) -> bytes:
    frame = codec.lz4.LZ4FrameDecompressor()
    parts: list[bytes] = []
    room = most + 1
    while room and not frame.eof:
        parts.append(frame.decompress(body, max_length=min(room, PIECE)))
        if not parts[-1] and not frame.eof:
            raise EOFError("the lz4 frame is cut off")
        room -= len(parts[-1])
        body = b""
    return b"".join(parts)


def _zstd(body: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    room = most + 1
    with codec.zstd.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
        while room and (part := reader.read(min(room, PIECE))):
            parts.append(part)
            room -= len(part)
    return b"".join(parts)


UNPACKERS: dict[int, Callable[[bytes, int], bytes]] = {1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}
"""By the compression's number in a batch's attributes."""
