"""Packed readings: one Arrow IPC stream with many rows -> columns. Accepted or refused as a whole.

Order of the checks, because the bytes may be hostile: frames (`arrow_stream`), schema against the few types allowed
here, only then the batches, each fully validated before a value of it is looked at. May import pyarrow, numpy and
`services.records`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.codecs.arrow_stream import check_frames
from services.codecs.readings_contract import MAX_AT_MS, VERSION, check_symbol
from services.codecs.refusal import Nearest, Refusal, listed, shown
from services.codecs.schema import FIRST_SYMBOL, MAX_SYMBOL_BYTES, UNKNOWN_SYMBOL, Schema
from services.records import NO_SEQ, Reason, SequenceEnd

VERSION_KEY = b"streamrnn.v"
MAX_STREAM_BYTES = 256
_STREAM = (pa.utf8(), pa.large_utf8(), pa.binary(), pa.large_binary())
TEXTS = (pa.utf8(), pa.large_utf8())
FLOATS = (pa.float32(), pa.float64())
_ENDS = (pa.bool_(), pa.uint8())
_OWN = ("stream", "at", "seq", "end")  # columns that are no values
_PER_MS = {"us": 1_000, "ns": 1_000_000}


@dataclass(frozen=True, slots=True)
class PackedRows:
    """The rows of one packed record."""

    streams: list[bytes]  # [n]
    at_ms: NDArray[np.int64]  # [n]
    x: NDArray[np.float32]  # [n, features]
    seq: NDArray[np.int64]  # [n]
    end: NDArray[np.uint8]  # [n], values of SequenceEnd


class PackedReadings:
    """Decodes packed records against one schema."""

    def __init__(self, schema: Schema, max_rows: int) -> None:
        self._schema, self._features = schema, schema.features
        self._vocabulary = pa.array(schema.vocabulary, pa.large_utf8())
        symbols = range(FIRST_SYMBOL, FIRST_SYMBOL + len(schema.vocabulary))
        self._numbers = np.array([*symbols, UNKNOWN_SYMBOL], np.float32)  # the last one: not found
        self._max_rows = max_rows
        self._nearest = {wide: Nearest((*_OWN, "x") if wide else (*_OWN, *schema.features)) for wide in (False, True)}

    def decode(self, value: bytes, key: bytes | None) -> PackedRows:
        """All rows of one record; `key` is the stream of rows that name none. Raises Refusal."""
        check_frames(value)
        try:
            with pa.ipc.open_stream(pa.py_buffer(value)) as reader:
                columns = self._columns(reader.schema)
                parts, rows = [], 0
                for batch in reader:
                    batch.validate(full=True)
                    rows += batch.num_rows
                    if rows > self._max_rows:
                        limit = f"the limit is {self._max_rows} (the smaller of epoch.max_readings and state.slots)"
                        raise Refusal(Reason.TOO_MANY_ROWS, f"The packed record has {rows} rows or more; {limit}.")
                    parts.append(self._batch(batch, columns, key, rows - batch.num_rows))
        except MemoryError:  # Arrow's own is an ArrowException, too; no frame that is let through claims memory
            raise
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            first_line = str(error).partition("\n")[0][:150]
            raise Refusal(Reason.BAD_ARROW, f"The packed record cannot be read: {first_line!a}.") from None
        return PackedRows(
            [stream for part in parts for stream in part.streams],
            np.concatenate([part.at_ms for part in parts]) if parts else np.zeros(0, np.int64),
            np.concatenate([part.x for part in parts]) if parts else np.zeros((0, len(self._features)), np.float32),
            np.concatenate([part.seq for part in parts]) if parts else np.zeros(0, np.int64),
            np.concatenate([part.end for part in parts]) if parts else np.zeros(0, np.uint8),
        )

    def sample(self) -> bytes:
        """A good record: one row, all of whose values are missing."""
        kind = pa.large_utf8() if self._schema.symbolic else pa.list_(pa.float32(), len(self._features))
        row = pa.record_batch([pa.array([0], pa.int64()), pa.nulls(1, kind)], ["at", "x"])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, row.schema) as writer:
            writer.write_batch(row)
        value: bytes = sink.getvalue().to_pybytes()
        return value

    def _columns(self, schema: Any) -> dict[str, int]:
        """Column name -> position, after every name and type was found to be allowed."""
        version = (schema.metadata or {}).get(VERSION_KEY, str(VERSION).encode())
        if version != str(VERSION).encode():
            raise Refusal(
                Reason.WRONG_VERSION,
                f"{VERSION_KEY.decode()} is {shown(version.decode('latin-1'))}; this release reads version {VERSION}.",
            )
        columns = {name: i for i, name in enumerate(schema.names)}
        if len(columns) != len(schema.names):
            raise _wrong("two columns have the same name")
        if "at" not in columns:
            raise _wrong("the column 'at' is missing")
        wide = "x" in columns
        for name, i in columns.items():
            found = schema.field(i).type
            if name == "stream":
                self._allow(name, found, found in _STREAM, "utf8 or binary")
            elif name == "at":
                self._allow(name, found, pa.types.is_timestamp(found) or found == pa.int64(), "timestamp or int64 (ms)")
            elif name == "seq":
                self._allow(name, found, found == pa.int64(), "int64")
            elif name == "end":
                self._allow(name, found, found in _ENDS, "bool or uint8")
            elif self._schema.symbolic and name in ("x", *self._features) and not (wide and name != "x"):
                self._allow(name, found, found in TEXTS, "utf8 or large_utf8, one symbol a row")
            elif name == "x":
                flat = pa.types.is_fixed_size_list(found) and found.value_type in FLOATS
                self._allow(name, found, flat, f"a fixed-size list of {len(self._features)} float32 or float64")
                if found.list_size != len(self._features):
                    expected = f"{len(self._features)} ({listed(self._features)})"
                    raise Refusal(Reason.WRONG_LENGTH, f"x has {found.list_size} values; the model has {expected}.")
            elif wide or name not in self._features:
                known = (*_OWN, "x") if wide else (*_OWN, *self._features)
                reason = Reason.WRONG_SCHEMA if wide else Reason.UNKNOWN_FEATURE
                raise Refusal(
                    reason, f"Unknown column {shown(name)}; columns are {listed(known)}.{self._nearest[wide](name)}"
                )
            else:
                self._allow(name, found, found in FLOATS, "float32 or float64")
        if not wide and not any(name in columns for name in self._features):
            raise _wrong("there is neither a column 'x' nor a column of a feature")
        return columns

    @staticmethod
    def _allow(name: str, found: Any, allowed: bool, expected: str) -> None:
        if not allowed:
            raise _wrong(f"column {shown(name)} is {str(found)[:60]}; it must be {expected}")

    def _batch(self, batch: Any, columns: dict[str, int], key: bytes | None, first: int) -> PackedRows:
        def column(name: str) -> Any:
            return batch.column(columns[name]) if name in columns else None

        if self._schema.symbolic:
            x = self._symbols(column("x" if "x" in columns else self._features[0]), first)
        else:
            x = self._matrix(batch, columns, first)
        return PackedRows(
            _streams(column("stream"), batch.num_rows, key, first),
            _times(column("at"), first),
            x,
            _sequences(column("seq"), batch.num_rows, first),
            _ends(column("end"), x, first),
        )

    def _symbols(self, array: Any, first: int) -> NDArray[np.float32]:
        """Numbers of symbols [n, 1], null -> NaN."""
        array = array.cast(pa.large_utf8())
        lengths = np.asarray(pc.binary_length(array).fill_null(1))
        for row in np.flatnonzero((lengths < 1) | (lengths > MAX_SYMBOL_BYTES))[:1].tolist():
            check_symbol(array[row].as_py(), f"Row {first + row}: {self._features[0]}")
        found = np.asarray(pc.index_in(array, self._vocabulary).fill_null(-1))
        x: NDArray[np.float32] = self._numbers[found]
        x[np.asarray(array.is_null())] = np.nan
        return x.reshape(-1, 1)

    def _matrix(self, batch: Any, columns: dict[str, int], first: int) -> NDArray[np.float32]:
        n, width = batch.num_rows, len(self._features)
        if "x" in columns:
            lists = batch.column(columns["x"])
            wide = _floats(lists.values.slice(lists.offset * width, n * width)).reshape(n, width)
            if lists.null_count:
                wide[np.asarray(lists.is_null())] = np.nan
        else:
            wide = np.full((n, width), np.nan)
            for i, name in enumerate(self._features):
                if name in columns:
                    wide[:, i] = _floats(batch.column(columns[name]))
        with np.errstate(over="ignore", invalid="ignore"):
            x = wide.astype(np.float32)
        for row, feature in np.argwhere(np.isinf(x))[:1].tolist():
            name = shown(self._features[feature])
            raise Refusal(Reason.NOT_FINITE, f"Row {first + row}: {name} is infinite or beyond what float32 holds.")
        return x


def _wrong(what: str) -> Refusal:
    return Refusal(Reason.WRONG_SCHEMA, f"The packed record's schema is wrong: {what}.")


def _floats(array: Any) -> NDArray[np.float64]:
    """Values as float64 in an array of its own, null -> NaN."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is a missing value like any other
        values = np.array(array.to_numpy(zero_copy_only=False), np.float64)
    if array.null_count:
        values[np.asarray(array.is_null())] = np.nan
    return values


def _streams(array: Any, n: int, key: bytes | None, first: int) -> list[bytes]:
    found = [None] * n if array is None else array.cast(pa.large_binary()).to_pylist()
    streams: list[Any] = [key if stream is None else stream for stream in found]
    for row, stream in enumerate(streams):
        if not stream:
            raise Refusal(Reason.MISSING_KEY, f"Row {first + row} names no stream, and neither does the record's key.")
        if len(stream) > MAX_STREAM_BYTES:
            limit = f"the limit is {MAX_STREAM_BYTES}"
            raise Refusal(Reason.KEY_TOO_LONG, f"Row {first + row}: the stream has {len(stream)} bytes; {limit}.")
    return streams


def _times(array: Any, first: int) -> NDArray[np.int64]:
    unit = array.type.unit if pa.types.is_timestamp(array.type) else "ms"
    at: NDArray[np.int64] = np.asarray(array.cast(pa.int64()).fill_null(-1))
    limit = MAX_AT_MS // 1000 if unit == "s" else (MAX_AT_MS + 1) * _PER_MS.get(unit, 1) - 1
    for row in np.flatnonzero((at < 0) | (at > limit))[:1].tolist():
        raise Refusal(Reason.BAD_TIME, f"Row {first + row}: at is null or outside the years 1970 to 9999.")
    return at * 1000 if unit == "s" else at // _PER_MS.get(unit, 1)


def _sequences(array: Any, n: int, first: int) -> NDArray[np.int64]:
    if array is None:
        return np.full(n, NO_SEQ, np.int64)
    seq: NDArray[np.int64] = np.asarray(array.fill_null(NO_SEQ))
    given = ~np.asarray(array.is_null())
    for row in np.flatnonzero((seq < 0) & given)[:1].tolist():
        raise Refusal(Reason.WRONG_SCHEMA, f"Row {first + row}: seq is {seq[row]}; it must be 0 or more, or null.")
    return seq


def _ends(array: Any, x: NDArray[np.float32], first: int) -> NDArray[np.uint8]:
    if array is None:
        return np.zeros(len(x), np.uint8)
    end = np.array(array.cast(pa.uint8()).fill_null(SequenceEnd.NONE), np.uint8)
    for row in np.flatnonzero(end > SequenceEnd.END_ONLY)[:1].tolist():
        raise Refusal(Reason.WRONG_SCHEMA, f"Row {first + row}: end is {end[row]}; it must be 0, 1 or 2, or null.")
    for row in np.flatnonzero((end == SequenceEnd.END_ONLY) & ~np.isnan(x).all(axis=1))[:1].tolist():
        raise Refusal(Reason.WRONG_SCHEMA, f"Row {first + row}: end is 2, a bare end, but there are values; write 1.")
    return end
