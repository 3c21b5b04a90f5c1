"""Output records -> predictions, for consumers, the demo and the tests. May import msgspec, numpy and this room."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.codecs.predictions_packed import decode_packed
from services.records import Flag, Records

_NONE = float("nan")


@dataclass(frozen=True, slots=True)
class PredictionRows:
    """What a consumer gets of some output records: Predictions whose models and partitions may differ by row."""

    models: list[str]  # [n]
    partitions: NDArray[np.int32]  # [n], of the reading
    offsets: NDArray[np.int64]  # [n], of the record that held the reading
    rows: NDArray[np.int32]  # [n], as in Readings
    streams: list[bytes]  # [n]
    at_ms: NDArray[np.int64]  # [n]
    y: NDArray[np.float32]  # [n, targets], NaN = none
    lo: NDArray[np.float32] | None  # [n, targets], NaN = none; None = no row has a band
    hi: NDArray[np.float32] | None  # [n, targets]
    score: NDArray[np.float32]  # [n], NaN = none
    flags: NDArray[np.uint8]  # [n], bits of Flag
    record: NDArray[np.int64]  # [n], which of the given records held it

    def __len__(self) -> int:
        return len(self.streams)


class _Prediction(msgspec.Struct, gc=False):
    """The JSON contract. Unknown fields are ignored: a later release may add some within version 1."""

    v: Literal[1]
    stream: str | None
    at: int
    partition: int
    offset: int
    model: str
    y: tuple[float | None, ...]
    lo: tuple[float | None, ...] | None
    hi: tuple[float | None, ...] | None
    score: float | None
    flags: tuple[str, ...]
    stream_hex: str | None = None


_decode_json = msgspec.json.Decoder(_Prediction).decode
_BITS = {tuple(str(flag.name).lower() for flag in Flag if flag & bits): bits for bits in range(32)}


def decode(records: Records) -> PredictionRows:
    """All predictions of some records of a predictions topic, in order. Raises ValueError naming the first record that
    is none, and when predictions of different numbers of targets are mixed.
    """
    parts: list[PredictionRows | None] = []
    run: list[_Prediction] = []
    first = 0
    for i, value in enumerate(records.values):
        try:
            if value is not None and value[:1] == b"\xff":
                parts += [_json_rows(run, first), _packed_rows(value, i)]
                run, first = [], i + 1
            else:
                run.append(_decode_json(value))  # type: ignore[arg-type]
        except (ValueError, TypeError, KeyError, OSError, pa.ArrowException) as error:
            where = f"partition {records.partition}, offset {int(records.offsets[i])}"
            raise ValueError(f"the record at {where} is not a prediction of version 1: {error}") from error
    return _joined([*parts, _json_rows(run, first)])


def _json_rows(run: list[_Prediction], first: int) -> PredictionRows | None:
    """Predictions of the consecutive records from `first` on; None for none."""
    n = len(run)
    if not n:
        return None
    y = _matrix([prediction.y for prediction in run])
    lo = hi = None
    if any(prediction.lo is not None for prediction in run):
        nothing = (_NONE,) * y.shape[1]
        lo = _matrix([prediction.lo or nothing for prediction in run])
        hi = _matrix([prediction.hi or nothing for prediction in run])

    def column(name: str, dtype: type[np.generic]) -> NDArray[Any]:
        return np.fromiter([getattr(prediction, name) for prediction in run], dtype, n)

    return PredictionRows(
        [prediction.model for prediction in run],
        column("partition", np.int32),
        column("offset", np.int64),
        np.full(n, -1, np.int32),
        [
            bytes.fromhex(prediction.stream_hex or "") if prediction.stream is None else prediction.stream.encode()
            for prediction in run
        ],
        column("at", np.int64),
        y,
        lo,
        hi,
        column("score", np.float32),
        np.fromiter([_bits(prediction.flags) for prediction in run], np.uint8, n),
        np.arange(first, first + n),
    )


def _packed_rows(value: bytes, record: int) -> PredictionRows:
    found = decode_packed(value)
    n = len(found)
    return PredictionRows(
        [found.model] * n,
        np.full(n, found.partition, np.int32),
        found.offsets,
        found.rows,
        found.streams,
        found.at_ms,
        found.y,
        found.lo,
        found.hi,
        found.score,
        found.flags,
        np.full(n, record),
    )


def _joined(given: list[PredictionRows | None]) -> PredictionRows:
    parts = [part for part in given if part is not None]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        none = np.zeros(0)
        ints, floats = none.astype(np.int64), none.astype(np.float32)
        small, bits = none.astype(np.int32), none.astype(np.uint8)
        return PredictionRows([], small, ints, small, [], ints, floats.reshape(0, 0), None, None, floats, bits, ints)
    if len({part.y.shape[1] for part in parts}) > 1:
        raise ValueError("predictions with different numbers of targets; read them in smaller pieces")
    banded = any(part.lo is not None for part in parts)

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    def band(name: str) -> NDArray[np.float32] | None:
        if not banded:
            return None
        edges = [getattr(part, name) for part in parts]
        return np.concatenate(
            [np.full_like(part.y, _NONE) if edge is None else edge for part, edge in zip(parts, edges, strict=True)]
        )

    return PredictionRows(
        [model for part in parts for model in part.models],
        column("partitions"),
        column("offsets"),
        column("rows"),
        [stream for part in parts for stream in part.streams],
        column("at_ms"),
        column("y"),
        band("lo"),
        band("hi"),
        column("score"),
        column("flags"),
        column("record"),
    )


def _matrix(rows: list[tuple[float | None, ...]]) -> NDArray[np.float32]:
    widths = set(map(len, rows))
    if len(widths) > 1:
        raise ValueError("predictions with different numbers of targets; read them in smaller pieces")
    return np.fromiter(chain.from_iterable(rows), np.float32, len(rows) * min(widths)).reshape(len(rows), -1)


def _bits(names: tuple[str, ...]) -> int:
    """Flags of one prediction; a name this release does not know is left out."""
    bits = _BITS.get(names)
    return sum(flag for flag in Flag if flag.name and flag.name.lower() in names) if bits is None else bits
