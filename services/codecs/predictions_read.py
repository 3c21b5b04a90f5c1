"""Output records -> predictions, for consumers, the demo and the tests. May import msgspec, numpy and this room."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from services.codecs.predictions_packed import column_of, read_packed
from services.records import Flag, Records

_NONE = float("nan")
_INT64_END = (1 << 63) - 1
_OTHER_BAND = "lo or hi has not as many numbers as y"
_MIXED = "predictions of different shapes; read them in smaller pieces"

Top = tuple[tuple[str, float], ...]
"""Most probable labels with their probabilities, the most probable first."""


@dataclass(frozen=True, slots=True)
class PredictionRows:
    """What a consumer gets of some output records: Predictions whose models and partitions may differ by row.

    All rows are of one kind: values (`y`), labels (`label`, `top`) or texts (`text`, `prob`).
    """

    models: list[str]  # [n]
    partitions: NDArray[np.int32]  # [n], of the reading
    offsets: NDArray[np.int64]  # [n], of the record that held the reading
    rows: NDArray[np.int32]  # [n], as in Readings
    streams: list[bytes]  # [n]
    at_ms: NDArray[np.int64]  # [n]
    y: NDArray[np.float32]  # [n, targets], or [n, steps, targets]; NaN = none. [n, 0] where answers are no values
    lo: NDArray[np.float32] | None  # as y; None = no row has a band
    hi: NDArray[np.float32] | None  # as y
    score: NDArray[np.float32]  # [n], NaN = none
    flags: NDArray[np.uint16]  # [n], bits of Flag
    record: NDArray[np.int64]  # [n], which of the given records held it
    label: list[str | None] | None = None  # [n]
    top: list[Top] | None = None  # [n]
    text: list[tuple[str, ...] | None] | None = None  # [n]
    prob: NDArray[np.float32] | None = None  # [n], of the whole text; NaN = none
    p: NDArray[np.float32] | None = None  # [n], NaN = none; None = no row has one
    lasting: NDArray[np.float32] | None = None  # [n], the same

    def __len__(self) -> int:
        return len(self.streams)


_Numbers = tuple[float | tuple[float | None, ...] | None, ...]


class _Prediction(msgspec.Struct, gc=False):
    """The JSON contract. Unknown fields are ignored: a later release may add some within version 1."""

    v: Literal[1]
    stream: str | None
    at: Annotated[int, msgspec.Meta(ge=-_INT64_END - 1, le=_INT64_END)]
    partition: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
    offset: Annotated[int, msgspec.Meta(ge=0, le=_INT64_END)]
    model: str
    score: float | None
    flags: tuple[str, ...]
    y: _Numbers | UnsetType = UNSET
    lo: _Numbers | None = None
    hi: _Numbers | None = None
    stream_hex: str | None = None
    label: str | UnsetType | None = UNSET
    top: Top = ()
    text: tuple[str, ...] | UnsetType | None = UNSET
    prob: float | None = None
    p: float | None = None
    lasting: float | None = None


_CHANCES = ("p", "lasting")
_decode_json = msgspec.json.Decoder(_Prediction).decode
_BITS = {tuple(str(flag.name).lower() for flag in Flag if flag & bits): bits for bits in range(2 * max(Flag))}


def decode(records: Records) -> PredictionRows:
    """All predictions of some records of a predictions topic, in order. Raises ValueError naming the first record that
    is none, and when predictions of different shapes are mixed.
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
                one = _decode_json(value)  # type: ignore[arg-type]
                if one.stream is None:
                    bytes.fromhex(one.stream_hex or "")
                if one.y is UNSET and one.label is UNSET and one.text is UNSET:
                    raise ValueError("it has neither y nor label nor text")
                edges = [] if one.y is UNSET else [edge for edge in (one.lo, one.hi) if edge is not None]
                if any(_shape(edge) != _shape(one.y) for edge in edges):  # type: ignore[arg-type]
                    raise ValueError(_OTHER_BAND)
                run.append(one)
        except (ValueError, TypeError, KeyError, OSError, pa.ArrowException) as error:
            where = f"partition {records.partition}, offset {int(records.offsets[i])}"
            raise ValueError(f"the record at {where} is not a prediction of version 1: {error}") from error
    return _joined([*parts, _json_rows(run, first)])


def _json_rows(run: list[_Prediction], first: int) -> PredictionRows | None:
    """Predictions of the consecutive records from `first` on; None for none."""
    n = len(run)
    if not n:
        return None
    lo = hi = None
    if run[0].y is UNSET:
        if any(prediction.y is not UNSET for prediction in run):
            raise ValueError(_MIXED)
        y = np.zeros((n, 0), np.float32)
    else:
        y = _matrix([prediction.y for prediction in run])
        if any(prediction.lo is not None for prediction in run):
            nothing = _nothing(y)
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
        np.fromiter([_bits(prediction.flags) for prediction in run], np.uint16, n),
        np.arange(first, first + n),
        **(_words(run) if run[0].y is UNSET else {}),
        **_chances({name: column(name, np.float32) for name in _CHANCES} if _has_chances(run) else {}),
    )


def _has_chances(run: list[_Prediction]) -> bool:
    return any(one.p is not None for one in run)


def _chances(columns: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    return dict(columns)


def _words(run: list[_Prediction]) -> dict[str, Any]:
    """The columns of labels, or of texts."""
    if run[0].text is UNSET:
        if any(prediction.label is UNSET for prediction in run):
            raise ValueError(_MIXED)
        return {"label": [prediction.label for prediction in run], "top": _rounded([one.top for one in run])}
    if any(prediction.text is UNSET for prediction in run):
        raise ValueError(_MIXED)
    prob = np.array([_NONE if prediction.prob is None else prediction.prob for prediction in run], np.float32)
    return {"text": [prediction.text for prediction in run], "prob": prob}


def _rounded(tops: list[Top]) -> list[Top]:
    """The probabilities as what they were printed of, float32."""
    single = iter(np.array([prob for top in tops for _, prob in top], np.float32).tolist())
    return [tuple((label, next(single)) for label, _ in top) for top in tops]


def _packed_rows(value: bytes, record: int) -> PredictionRows:
    table, model, partition, offset = read_packed(value)
    n, names = len(table), set(table.column_names)
    words: dict[str, Any] = {}
    if "text" in names:
        texts = table.column("text").to_pylist()
        words = {"text": [None if text is None else tuple(text) for text in texts], "prob": column_of(table, "prob")}
    elif "label" in names:
        words = {"label": table.column("label").to_pylist(), "top": [()] * n}
        if "top" in names:
            pairs = zip(table.column("top").to_pylist(), column_of(table, "prob").tolist(), strict=True)
            words["top"] = [
                tuple((label, prob) for label, prob in zip(*pair, strict=True) if label is not None) for pair in pairs
            ]
    y = np.zeros((n, 0), np.float32) if words else column_of(table, "y")
    lo, hi = (column_of(table, name) if name in names else None for name in ("lo", "hi"))
    if not words and any(edge.shape != y.shape for edge in (lo, hi) if edge is not None):
        raise ValueError(_OTHER_BAND)
    return PredictionRows(
        [model] * n,
        np.full(n, partition, np.int32),
        np.full(n, offset, np.int64),
        column_of(table, "row"),
        table.column("stream").to_pylist(),
        column_of(table, "at").view(np.int64),
        y,
        lo,
        hi,
        column_of(table, "score"),
        column_of(table, "flags").astype(np.uint16),
        np.full(n, record),
        **words,
        **_chances({name: column_of(table, name) for name in _CHANCES if name in names}),
    )


def _joined(given: list[PredictionRows | None]) -> PredictionRows:
    parts = [part for part in given if part is not None]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        none = np.zeros(0)
        ints, floats = none.astype(np.int64), none.astype(np.float32)
        small, bits = none.astype(np.int32), none.astype(np.uint16)
        return PredictionRows([], small, ints, small, [], ints, floats.reshape(0, 0), None, None, floats, bits, ints)
    if len({(part.y.shape[1:], part.label is None, part.text is None) for part in parts}) > 1:
        raise ValueError(_MIXED)
    banded = any(part.lo is not None for part in parts)

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    def listed(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else list(chain.from_iterable(columns))

    def band(name: str) -> NDArray[np.float32] | None:
        if not banded:
            return None
        edges = [getattr(part, name) for part in parts]
        return np.concatenate(
            [np.full_like(part.y, _NONE) if edge is None else edge for part, edge in zip(parts, edges, strict=True)]
        )

    def chance(name: str) -> NDArray[np.float32] | None:
        columns = [getattr(part, name) for part in parts]
        if all(one is None for one in columns):
            return None
        return np.concatenate(
            [
                np.full(len(part), _NONE, np.float32) if one is None else one
                for part, one in zip(parts, columns, strict=True)
            ]
        )

    return PredictionRows(
        listed("models"),
        column("partitions"),
        column("offsets"),
        column("rows"),
        listed("streams"),
        column("at_ms"),
        column("y"),
        band("lo"),
        band("hi"),
        column("score"),
        column("flags"),
        column("record"),
        listed("label"),
        listed("top"),
        listed("text"),
        None if parts[0].prob is None else column("prob"),
        chance("p"),
        chance("lasting"),
    )


def _matrix(rows: list[Any]) -> NDArray[np.float32]:
    """Tuples of numbers -> [n, targets], or of tuples of numbers -> [n, steps, targets]."""
    widths = {len(row) if type(row) is tuple else -1 for row in rows}
    if len(widths) > 1 or -1 in widths:
        raise ValueError(_MIXED)
    if rows[0] and type(rows[0][0]) is tuple:
        steps = [step if type(step) is tuple else () for row in rows for step in row]
        return _matrix(steps).reshape(len(rows), len(rows[0]), -1)
    try:
        return np.fromiter(chain.from_iterable(rows), np.float32, len(rows) * min(widths)).reshape(len(rows), -1)
    except (TypeError, ValueError):
        raise ValueError(_MIXED) from None


def _shape(numbers: _Numbers) -> tuple[int, int]:
    """Numbers, or steps and numbers of the first of them."""
    first = numbers[0] if numbers else None
    return len(numbers), len(first) if isinstance(first, tuple) else -1


def _nothing(y: NDArray[np.float32]) -> tuple[Any, ...]:
    """A row without a band beside rows that have one."""
    targets = (_NONE,) * int(y.shape[-1])
    return targets if y.ndim == 2 else (targets,) * int(y.shape[1])


def _bits(names: tuple[str, ...]) -> int:
    """Flags of one prediction; a name this release does not know is left out."""
    bits = _BITS.get(names)
    return sum(flag for flag in Flag if flag.name and flag.name.lower() in names) if bits is None else bits
