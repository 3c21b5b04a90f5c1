"""Predictions of one packed record <-> Arrow IPC streams. May import pyarrow, numpy,
`services.records` and this room."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.codecs.answers import lengths, numbered
from services.codecs.arrow_stream import check_frames
from services.codecs.readings_contract import VERSION
from services.codecs.readings_packed import VERSION_KEY
from services.codecs.refusal import Refusal
from services.records import AnswerFormat, Predictions

_ROW_BYTES = 8 + 4 + 4 + 4 + 4 + 2  # at, row, score, p, lasting, flags
_FRAME_BYTES = 2048  # schema, headers and padding of one stream


def encode_packed(part: Predictions, max_bytes: int) -> list[bytes | None]:
    """Streams of at most `max_bytes` (but at least one row each) with all rows of `part`, which is of one record."""
    widest = max(map(len, part.streams))
    row_bytes = _ROW_BYTES + 4 + widest + _answer_bytes(part)
    rows = max(1, (max_bytes - _FRAME_BYTES) // row_bytes)
    return [_stream(part, slice(first, first + rows)) for first in range(0, len(part), rows)]


def _answer_bytes(part: Predictions) -> int:
    """The most that one row's answer can take."""
    width = int(part.y.shape[1])
    if not part.spelling.classes:
        return 4 * width * (1 if part.lo is None else 3)
    text = 5 + _widest(part.spelling)  # its offset and its bit of validity
    return 16 + (text if part.top is None else (int(part.top.shape[1]) + 1) * (text + 4)) * width


@lru_cache(maxsize=8)
def _widest(spelling: AnswerFormat) -> int:
    return max(len(word.encode()) for word in spelling.classes)


@lru_cache(maxsize=8)
def _words(spelling: AnswerFormat) -> Any:
    """The classes, and null."""
    return pa.array([*spelling.classes, None], pa.utf8())


def _stream(part: Predictions, rows: slice) -> bytes:
    columns = {
        "stream": pa.array(part.streams[rows], pa.binary()),
        "at": pa.array(np.ascontiguousarray(part.at_ms[rows])).cast(pa.timestamp("ms", "UTC")),
        "row": pa.array(np.ascontiguousarray(part.rows[rows])),
        **_answers(part, rows),
        "score": pa.array(np.ascontiguousarray(part.score[rows])),
        **_chances(part, rows),
        "flags": pa.array(part.flags[rows].astype(np.uint8 if part.flags.max() < 256 else np.uint16)),
    }
    metadata = {
        VERSION_KEY: str(VERSION),
        b"streamrnn.partition": str(part.partition),
        b"streamrnn.offset": str(int(part.offsets[0])),
        b"streamrnn.model": part.model,
    }
    schema = pa.schema([(name, column.type) for name, column in columns.items()], metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(list(columns.values()), schema=schema))
    value: bytes = sink.getvalue().to_pybytes()
    return value


def _chances(part: Predictions, rows: slice) -> dict[str, Any]:
    if part.p is None or part.lasting is None:
        return {}
    return {name: pa.array(np.ascontiguousarray(getattr(part, name)[rows])) for name in ("p", "lasting")}


def _answers(part: Predictions, rows: slice) -> dict[str, Any]:
    spelling, y = part.spelling, part.y[rows]
    if not spelling.classes:
        edges = {"y": part.y, "lo": part.lo, "hi": part.hi}
        return {
            name: _vectors(edge[rows], edge.shape[1] // spelling.horizon)
            for name, edge in edges.items()
            if edge is not None
        }
    words = _words(spelling)
    if spelling.generated:
        length = lengths(part)[rows]
        taken = np.arange(y.shape[1]) < length[:, None]
        ends = np.concatenate([[0], np.cumsum(np.maximum(length, 0))]).astype(np.int32)
        symbols = words.take(pa.array(numbered(y)[taken]))
        text = pa.ListArray.from_arrays(pa.array(ends), symbols, mask=pa.array(length < 0))
        prob = np.full(len(y), np.nan, np.float32) if part.prob is None else part.prob[rows, 0]
        return {"text": text, "prob": pa.array(np.ascontiguousarray(prob))}
    last = len(spelling.classes)
    columns = {"label": words.take(pa.array(numbered(y[:, 0]) % (last + 1)))}
    if part.top is not None and part.prob is not None:
        prob = part.prob[rows]
        top = np.where(np.isnan(prob), last, part.top[rows])
        columns["top"] = pa.FixedSizeListArray.from_arrays(words.take(pa.array(top.reshape(-1))), top.shape[1])
        columns["prob"] = _vectors(prob, prob.shape[1])
    return columns


def _vectors(rows: NDArray[np.float32], targets: int) -> Any:
    """[n, steps * targets] -> lists of `targets` numbers, in lists of steps where there are several."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1), pa.float32()), targets)
    steps = rows.shape[1] // targets
    return lists if steps == 1 else pa.FixedSizeListArray.from_arrays(lists, steps)


def read_packed(value: bytes) -> tuple[Any, str, int, int]:
    """The table of one stream written by `encode_packed`, each column one chunk, and the model, partition and offset of
    all its rows. Raises ValueError (or pyarrow's) for anything else: a damaged frame would end the interpreter, so
    nothing is looked at before it is checked. Columns that this release does not know are left out.
    """
    try:
        check_frames(value)
    except Refusal as refusal:
        raise ValueError(refusal.why.detail) from None
    with pa.ipc.open_stream(pa.py_buffer(value)) as reader:
        schema = reader.schema
        _check_columns(schema)
        batches = []
        for batch in reader:
            batch.validate(full=True)
            batches.append(batch)
    table = pa.Table.from_batches(batches, schema).select([name for name in schema.names if name in _COLUMNS])
    table = table.combine_chunks()
    for name in table.column_names:
        array = table.column(name)
        if name not in _MAY_BE_NULL and (array.null_count or any(_inner_nulls(chunk) for chunk in array.chunks)):
            raise ValueError(f"column {name!r} holds nulls")
    metadata = schema.metadata or {}
    if metadata.get(VERSION_KEY) != str(VERSION).encode():
        raise ValueError(f"{VERSION_KEY.decode()} is {metadata.get(VERSION_KEY)!r}, not {VERSION}")
    model = metadata[b"streamrnn.model"].decode()
    partition, offset = int(metadata[b"streamrnn.partition"]), int(metadata[b"streamrnn.offset"])
    if not (0 <= partition < 1 << 31 and 0 <= offset < 1 << 63):
        raise ValueError(f"there is no offset {offset} of partition {partition}")
    return table, model, partition, offset


def _check_columns(schema: Any) -> None:
    """Raises ValueError unless each column is there once, in the type that `_stream` writes."""
    names = schema.names
    if len(set(names)) < len(names):
        raise ValueError("two columns have the same name")
    for name, kind in zip(names, schema.types, strict=True):
        if not (_plain(kind) and _COLUMNS.get(name, _plain)(kind)):
            raise ValueError(f"column {name[:60]!a} is {str(kind)[:60]!a}, which no prediction has")
    for name in ("stream", "at", "row", "score", "flags"):
        if name not in names:
            raise ValueError(f"the column {name!r} is missing")
    if not {"y", "label", "text"} & set(names):
        raise ValueError("it has neither y nor label nor text")
    if "text" in names and schema.field("prob").type != pa.float32():
        raise ValueError("prob of a text is a number")


def _plain(kind: Any, depth: int = 0) -> bool:
    """Types that a column may have, whatever its name: what is exotic is not read at all."""
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return depth < 2 and _plain(kind.value_type, depth + 1)
    return kind in _PLAIN or pa.types.is_timestamp(kind)


def _are_vectors(kind: Any) -> bool:
    """Lists of one width of float32, or lists of one number of those."""
    if not pa.types.is_fixed_size_list(kind):
        return False
    inner = kind.value_type
    return bool(inner == pa.float32() or (pa.types.is_fixed_size_list(inner) and inner.value_type == pa.float32()))


def _of(*kinds: Any) -> Callable[[Any], bool]:
    return lambda kind: kind in kinds


_PLAIN = (
    pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
    pa.float32(), pa.float64(), pa.utf8(), pa.binary(),
)  # fmt: skip
_COLUMNS: dict[str, Callable[[Any], bool]] = {
    "stream": _of(pa.binary()),
    "at": _of(pa.timestamp("ms", "UTC")),
    "row": _of(pa.int32()),
    "y": _are_vectors,
    "lo": _are_vectors,
    "hi": _are_vectors,
    "label": _of(pa.utf8()),
    "top": lambda kind: pa.types.is_fixed_size_list(kind) and kind.value_type == pa.utf8(),
    "text": _of(pa.list_(pa.utf8())),
    "prob": lambda kind: kind == pa.float32() or _are_vectors(kind),
    "score": _of(pa.float32()),
    "p": _of(pa.float32()),
    "lasting": _of(pa.float32()),
    "flags": _of(pa.uint8(), pa.uint16()),
}
_MAY_BE_NULL = ("label", "top", "text")


def _inner_nulls(array: Any) -> int:
    """Nulls in lists of one width, at any depth."""
    while pa.types.is_fixed_size_list(array.type):
        array = array.values
        if array.null_count:
            return int(array.null_count)
    return 0


def column_of(table: Any, name: str) -> NDArray[Any]:
    """One column as an array: numbers [n], lists [n, targets], lists of lists [n, steps, targets]."""
    array = table.column(name)
    array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
    shape = []
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return np.asarray(array).reshape(-1, *shape) if shape else np.asarray(array)
