"""Predictions -> output records, as docs/wire.md says; `decode` reads them back. May import orjson and numpy.

JSON in, JSON out: a reading that had a record of its own gets one too; the rows of a packed record come back packed.
Hot path: columns are printed as a whole and cut into one piece a row, and each record is one `join` of such pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

import numpy as np
import orjson
from numpy.typing import NDArray

from services.codecs.answers import numbers, pieces
from services.codecs.predictions_packed import encode_packed
from services.codecs.predictions_read import PredictionRows, decode
from services.codecs.readings_contract import VERSION
from services.records import Flag, Predictions

__all__ = ["PredictionRows", "decode", "encode"]

_CHUNK_ROWS = 1000  # pieces of so many rows stay in the processor's cache
_ESCAPED = bytes(range(32)) + b'"\\'  # what JSON does not allow in a string as it is
_FLAGS = [orjson.dumps([str(flag.name).lower() for flag in Flag if flag & bits]) for bits in range(2 * max(Flag))]
_NO_NAME = b'"stream":""'

Column = list[bytes | None]


def encode(predictions: Predictions, max_bytes: int = 900_000) -> tuple[Column, Column]:
    """Keys and values in the order of the readings. A JSON prediction has its stream as key; a packed one has it where
    all its rows are of one stream, else none. A packed value of more than `max_bytes` is split by rows.
    """
    starts = np.flatnonzero(_starts(predictions))
    if not len(starts) or (predictions.rows < 0).all():
        return list(predictions.streams), _json(predictions)
    keys: Column = []
    values: Column = []
    for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(predictions)], strict=True):
        part = _part(predictions, first, end)
        if part.rows[0] < 0:
            keys += part.streams
            values += _json(part)
        else:
            packed = encode_packed(part, max_bytes)
            keys += [part.streams[0] if len(set(part.streams)) == 1 else None] * len(packed)
            values += packed
    return keys, values


def _starts(predictions: Predictions) -> NDArray[np.bool_]:
    """True where a run of JSON readings, or the rows of another packed record, begin."""
    record = np.where(predictions.rows < 0, -1, predictions.offsets)
    starts = np.ones(len(record), np.bool_)
    starts[1:] = record[1:] != record[:-1]
    return starts


def _part(whole: Predictions, first: int, end: int) -> Predictions:
    rows = slice(first, end)
    return Predictions(
        whole.model,
        whole.partition,
        whole.offsets[rows],
        whole.rows[rows],
        whole.streams[rows],
        whole.at_ms[rows],
        whole.y[rows],
        None if whole.lo is None else whole.lo[rows],
        None if whole.hi is None else whole.hi[rows],
        whole.score[rows],
        whole.flags[rows],
        None if whole.top is None else whole.top[rows],
        None if whole.prob is None else whole.prob[rows],
        whole.spelling,
        None if whole.p is None else whole.p[rows],
        None if whole.lasting is None else whole.lasting[rows],
    )


def _json(predictions: Predictions) -> Column:
    values: Column = []
    for first in range(0, len(predictions), _CHUNK_ROWS):
        values += _json_chunk(_part(predictions, first, first + _CHUNK_ROWS))
    return values


def _json_chunk(part: Predictions) -> list[bytes]:
    head, model = b'{"v":%d,"stream":"' % VERSION, orjson.dumps(part.model)
    origin = b',"partition":%d,"offset":' % part.partition
    names = _names(part.streams)
    fields = [
        *(repeat(head), names),
        *(repeat(b'","at":'), numbers(part.at_ms)),
        *(repeat(origin), numbers(part.offsets)),
        repeat(b',"model":' + model),
        *pieces(part),
        *(repeat(b'"score":'), numbers(part.score)),
        *_chances(part),
        *(repeat(b',"flags":'), map(_FLAGS.__getitem__, part.flags.tolist()), repeat(b"}")),
    ]
    values = list(map(b"".join, zip(*fields, strict=False)))
    if b"" in names:
        for i, stream in enumerate(part.streams):
            if not names[i]:
                values[i] = values[i].replace(_NO_NAME, b'"stream":null,"stream_hex":"%s"' % stream.hex().encode(), 1)
    return values


def _chances(part: Predictions) -> list[Iterable[bytes]]:
    if part.p is None or part.lasting is None:
        return []
    return [repeat(b',"p":'), numbers(part.p), repeat(b',"lasting":'), numbers(part.lasting)]


def _names(streams: list[bytes]) -> list[bytes]:
    """Streams as the inside of JSON strings; empty where a name is not UTF-8 (no name is empty)."""
    joined = b"\n".join(streams)
    if len(joined.translate(None, _ESCAPED)) == len(joined) - (len(streams) - 1):  # nothing to escape but our newlines
        try:
            joined.decode()
            return streams
        except UnicodeDecodeError:
            pass
    return list(map(_name, streams))


def _name(stream: bytes) -> bytes:
    try:
        return orjson.dumps(stream.decode())[1:-1]
    except UnicodeDecodeError:
        return b""
