"""Answers -> the pieces of JSON that stand between `model` and `score` of predictions. May import orjson and numpy.

A column is printed at once and cut into one piece a row: orjson prints a float32 so that it reads back as the same
float32, NaN as null.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import repeat

import numpy as np
import orjson
from numpy.typing import NDArray

from services.records import AnswerFormat, Predictions

Pieces = Iterable[bytes]


def pieces(part: Predictions) -> list[Pieces]:
    """Columns of pieces which, put side by side, are each row's answer: from a comma on, up to a comma."""
    if part.spelling.generated:
        return _generated(part)
    if part.spelling.classes:
        return _labels(part)
    steps = part.spelling.horizon
    begin, end = (b"[", b"]") if steps == 1 else (b"[[", b"]]")
    found: list[Pieces] = [repeat(b',"y":' + begin), vectors(part.y, steps)]
    if part.lo is None or part.hi is None:
        return [*found, repeat(end + b',"lo":null,"hi":null,')]
    found += (repeat(end + b',"lo":' + begin), vectors(part.lo, steps))
    found += (repeat(end + b',"hi":' + begin), vectors(part.hi, steps))
    return [*found, repeat(end + b",")]


def numbers(column: NDArray[np.generic]) -> list[bytes]:
    """[n] -> n pieces."""
    return orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def vectors(rows: NDArray[np.float32], steps: int = 1) -> list[bytes]:
    """[n, steps * targets] -> n pieces without the outer brackets: one pair, or two where there are several steps."""
    if steps == 1:
        return orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
    rows = np.ascontiguousarray(rows).reshape(len(rows), steps, -1)
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[3:-3].split(b"]],[[")


def lengths(part: Predictions) -> NDArray[np.int64]:
    """Symbols of each generated answer [n]; an answer without any and without a probability is none, and has -1."""
    stop = np.isnan(part.y) | (part.y == len(part.spelling.classes) - 1)
    found: NDArray[np.int64] = np.where(stop.any(axis=1), stop.argmax(axis=1), stop.shape[1])
    if part.prob is None:
        return np.where(found, found, -1)
    return np.where((found == 0) & np.isnan(part.prob[:, 0]), -1, found)


def numbered(column: NDArray[np.float32]) -> NDArray[np.int64]:
    """Class numbers as integers, NaN -> -1, which is the last entry of `_spelled`."""
    return np.where(np.isnan(column), -1, column).astype(np.int64)


@lru_cache(maxsize=8)
def _spelled(spelling: AnswerFormat) -> list[bytes]:
    """The classes as JSON, and null."""
    return [*map(orjson.dumps, spelling.classes), b"null"]


def _labels(part: Predictions) -> list[Pieces]:
    spelled = _spelled(part.spelling).__getitem__
    found: list[Pieces] = [repeat(b',"label":'), map(spelled, numbered(part.y[:, 0]).tolist()), repeat(b',"top":[')]
    if part.top is not None and part.prob is not None:
        for rank in range(part.top.shape[1]):
            labels = map(spelled, part.top[:, rank].tolist())
            begin = repeat(b",[" if rank else b"[")
            entry = (begin, labels, repeat(b","), numbers(part.prob[:, rank]), repeat(b"]"))
            whole = map(b"".join, zip(*entry, strict=False))
            none = np.isnan(part.prob[:, rank])
            found.append([b"" if its else text for text, its in zip(whole, none.tolist(), strict=True)])
    return [*found, repeat(b"],")]


def _generated(part: Predictions) -> list[Pieces]:
    spelled = _spelled(part.spelling)
    texts = [
        b"[" + b",".join([spelled[number] for number in row[:length]]) + b"]" if length >= 0 else b"null"
        for row, length in zip(numbered(part.y).tolist(), lengths(part).tolist(), strict=True)
    ]
    prob = repeat(b"null") if part.prob is None else numbers(part.prob[:, 0])
    return [repeat(b',"text":'), texts, repeat(b',"prob":'), prob, repeat(b",")]
