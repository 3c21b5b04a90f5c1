"""Predictions of one packed record <-> Arrow IPC streams. May import pyarrow, numpy and `services.records`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.codecs.readings_contract import VERSION
from services.codecs.readings_packed import VERSION_KEY
from services.records import Predictions

_ROW_BYTES = 8 + 4 + 4 + 1  # at, row, score, flags
_FRAME_BYTES = 2048  # schema, headers and padding of one stream


def encode_packed(part: Predictions, max_bytes: int) -> list[bytes | None]:
    """Streams of at most `max_bytes` (but at least one row each) with all rows of `part`, which is of one record."""
    width = part.y.shape[1]
    widest = max(map(len, part.streams))
    row_bytes = _ROW_BYTES + 4 + widest + 4 * width * (1 if part.lo is None else 3)
    schema = _schema(part, width)
    rows = max(1, (max_bytes - _FRAME_BYTES) // row_bytes)
    return [_stream(part, schema, slice(first, first + rows)) for first in range(0, len(part), rows)]


def _schema(part: Predictions, width: int) -> Any:
    vector = pa.list_(pa.float32(), width)
    columns = [("stream", pa.binary()), ("at", pa.timestamp("ms", "UTC")), ("row", pa.int32()), ("y", vector)]
    if part.lo is not None:
        columns += [("lo", vector), ("hi", vector)]
    columns += [("score", pa.float32()), ("flags", pa.uint8())]
    metadata = {
        VERSION_KEY: str(VERSION),
        b"streamrnn.partition": str(part.partition),
        b"streamrnn.offset": str(int(part.offsets[0])),
        b"streamrnn.model": part.model,
    }
    return pa.schema(columns, metadata)


def _stream(part: Predictions, schema: Any, rows: slice) -> bytes:
    columns = [pa.array(part.streams[rows], pa.binary()), part.at_ms[rows], part.rows[rows], part.y[rows]]
    if part.lo is not None and part.hi is not None:
        columns += [part.lo[rows], part.hi[rows]]
    columns += [part.score[rows], part.flags[rows]]
    arrays = [_array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    value: bytes = sink.getvalue().to_pybytes()
    return value


def _array(column: Any, kind: Any) -> Any:
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(np.ascontiguousarray(column).reshape(-1), pa.float32())
        return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
    return column if isinstance(column, pa.Array) else pa.array(np.ascontiguousarray(column)).cast(kind)


def decode_packed(value: bytes) -> Predictions:
    """The rows of one stream written by `encode_packed`. Raises ValueError (or pyarrow's) for anything else."""
    table = pa.ipc.open_stream(value).read_all().combine_chunks()
    metadata = table.schema.metadata or {}
    if metadata.get(VERSION_KEY) != str(VERSION).encode():
        raise ValueError(f"{VERSION_KEY.decode()} is {metadata.get(VERSION_KEY)!r}, not {VERSION}")

    def column(name: str) -> NDArray[Any]:
        array = table.column(name)
        array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
        if pa.types.is_fixed_size_list(array.type):
            return np.asarray(array.flatten()).reshape(-1, array.type.list_size)
        return np.asarray(array)

    banded = "lo" in table.column_names
    return Predictions(
        metadata[b"streamrnn.model"].decode(),
        int(metadata[b"streamrnn.partition"]),
        np.full(len(table), int(metadata[b"streamrnn.offset"]), np.int64),
        column("row"),
        table.column("stream").to_pylist(),
        column("at").view(np.int64),
        column("y"),
        column("lo") if banded else None,
        column("hi") if banded else None,
        column("score"),
        column("flags"),
    )
