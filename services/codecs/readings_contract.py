"""The JSON contract spelled out, one record at a time: a reading, or the sentence that says why it is none.

Slow and exact; `readings_json` asks it about whatever its compiled path refuses. May import msgspec (for the parser of
times, which both paths share), numpy and `services.records`.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.codecs.refusal import Nearest, Refusal, kind, listed, shown
from services.codecs.schema import MAX_SYMBOL_BYTES, Schema
from services.records import NO_SEQ, Reason

VERSION = 1
MAX_AT_MS = 253_402_300_799_999  # the last millisecond of the year 9999
MAX_SEQ = 2**63 - 1
FIELDS = ("at", "x", "seq", "end", "v")
_FIELDS = frozenset(FIELDS)
_MAX_DEPTH = 32  # a reading has two levels; anything beyond this is an attack or an accident
_MAX_DIGITS = 4300  # of an integer: of more, int() would take quadratic time; Python and msgspec refuse them, too
_FLOAT32_END = float.fromhex("0x1.ffffffp127")  # the first number that float32 rounds to infinity
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_BEGINNINGS = {
    b"\xef\xbb\xbf": "a byte order mark; JSON is UTF-8 without one",
    b"\x00": "a zero byte, as a schema registry's framing does",
    b"ARROW1": "ARROW1, so it is an Arrow file; a packed record is an Arrow IPC stream",
}
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))  # 255 is -1
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[{]}")
_FEW_BRACKETS = 500  # up to here a loop is faster than numpy
_TIMES = "`at` is milliseconds since 1970 as an integer, or an ISO 8601 time like 2026-11-14T22:13:20.500Z"


class Reading(NamedTuple):
    """One accepted value."""

    at: int
    x: tuple[float | None, ...] | tuple[str | None] | msgspec.UnsetType  # unset: a bare end
    seq: int
    end: bool = False


class JsonContract:
    """The contract for one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema, self._features = schema, schema.features
        self._value = _symbol if schema.symbolic else _number
        self._position = {name: i for i, name in enumerate(self._features)}
        self._known = listed(self._features)
        self._nearest, self._nearest_field = Nearest(self._features), Nearest(FIELDS)

    def read(self, value: bytes) -> Reading:
        """Raises Refusal."""
        fields = _object(value)
        version = fields.get("v", VERSION)
        if isinstance(version, bool) or version != VERSION:
            raise Refusal(Reason.WRONG_VERSION, f"v is {shown(version)}; this release reads version {VERSION}.")
        if not fields.keys() <= _FIELDS:
            for name in (name for name in fields if name not in _FIELDS):
                hint = self._nearest_field(name)
                if {"schema", "payload"} <= fields.keys():
                    hint = " It looks like Kafka Connect's envelope: set value.converter.schemas.enable=false."
                known = listed(FIELDS)
                raise Refusal(Reason.WRONG_SCHEMA, f"Unknown field {shown(name)}; a reading has {known}.{hint}")
        end = fields.get("end")
        if "at" not in fields:
            raise Refusal(Reason.WRONG_SCHEMA, "The field 'at' is missing.")
        if "x" not in fields and end is not True:
            hint = 'only the end of a sequence, with "end": true, may go without'
            raise Refusal(Reason.WRONG_SCHEMA, f"The field 'x' is missing; {hint}.")
        at_ms = _time(fields["at"])
        seq = fields.get("seq")
        if seq is not None and not (_is_number(seq) and 0 <= seq <= MAX_SEQ and seq == int(seq)):
            raise Refusal(Reason.WRONG_SCHEMA, f"seq is {shown(seq)}; it must be an integer from 0 to 2^63 - 1.")
        if end is not None and not isinstance(end, bool):
            raise Refusal(Reason.WRONG_SCHEMA, f"end is {kind(end)}; it must be true or false.")
        x = self._vector(fields["x"]) if "x" in fields else msgspec.UNSET
        return Reading(at_ms, x, NO_SEQ if seq is None else int(seq), end is True)

    def _vector(self, x: object) -> tuple[Any, ...]:
        """[features], numbers or symbols."""
        if self._schema.symbolic and (x is None or isinstance(x, str)):
            return (_symbol(x, "x"),)
        if isinstance(x, list):
            if len(x) != len(self._features):
                expected = f"{len(self._features)} ({self._known})"
                raise Refusal(Reason.WRONG_LENGTH, f"x has {len(x)} values; the model has {expected}.")
            return tuple(self._value(value, self._features[i]) for i, value in enumerate(x))
        if not isinstance(x, dict):
            wanted = 'a symbol of the model, as in "x": "word"' if self._schema.symbolic else "an array of numbers"
            raise Refusal(Reason.WRONG_SCHEMA, f"x is {kind(x)}; it must be {wanted} or an object.")
        row: list[Any] = [None] * len(self._features)
        for name, value in x.items():
            if name not in self._position:
                hint = self._nearest(name)
                raise Refusal(Reason.UNKNOWN_FEATURE, f"x names {shown(name)}; the model has {self._known}.{hint}")
            row[self._position[name]] = self._value(value, name)
        return tuple(row)


class _NotFinite(Exception):
    """A NaN or Infinity token."""


def _not_finite(token: str) -> float:
    raise _NotFinite(token)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits.lstrip("-")) <= _MAX_DIGITS else float(digits)


_MALFORMED = ("JSON is malformed", "Input data was truncated")
_quick = msgspec.json.Decoder().decode
_PARSER = json.JSONDecoder(parse_constant=_not_finite, parse_int=_integer)


def _object(value: bytes) -> dict[str, Any]:
    if _too_deep(value):
        raise Refusal(Reason.TOO_DEEP, f"The value is nested more than {_MAX_DEPTH} levels deep; a reading has two.")
    try:
        parsed = _parsed(value)
    except UnicodeDecodeError as error:
        raise Refusal(Reason.NOT_JSON, f"The value is not UTF-8: byte {error.start}: {error.reason}.") from None
    except _NotFinite as error:
        raise Refusal(Reason.NOT_FINITE, f"{error} is not a JSON number; write null for a missing value.") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(Reason.NOT_JSON, _no_json(value, str(error))) from None
    if not isinstance(parsed, dict):
        raise Refusal(Reason.WRONG_SCHEMA, f"A reading is a JSON object; this is {kind(parsed)}.")
    return parsed


def _no_json(value: bytes, error: str) -> str:
    """The sentence for a value that is no JSON; by its beginning, where that says what it is instead."""
    if not value:
        return "The value is empty."
    for beginning, what in _BEGINNINGS.items():
        if value.startswith(beginning):
            return f"The value starts with {what}."
    return f"The value is not JSON: {error[:100]}."


def _parsed(value: bytes) -> Any:
    """What json makes of a value; where it is sure that msgspec says the same, at five times the speed. Raises
    Refusal, ValueError, _NotFinite or RecursionError.
    """
    try:
        return _quick(value)
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
        words = str(error) or "it is empty"
    # json goes on at NaN, Infinity and half a surrogate pair, and says more of what is not UTF-8.
    plain = value.isascii() and b"N" not in value and b"I" not in value and b"\\u" not in value
    if plain and words.startswith(_MALFORMED):
        raise Refusal(Reason.NOT_JSON, _no_json(value, words))
    return _PARSER.decode(value.decode("utf-8"))


def _too_deep(value: bytes) -> bool:
    """Whether it is nested too deep outside strings, in time linear in the value's length and without recursion."""
    if value.count(b"[") + value.count(b"{") <= _MAX_DEPTH:
        return False
    bare = _STRING.sub(b"", value) if b'"' in value else value
    brackets = bare.translate(_STEPS, _NO_BRACKETS)
    if len(brackets) > _FEW_BRACKETS:
        return int(np.frombuffer(brackets, np.int8).cumsum(dtype=np.int32).max(initial=0)) > _MAX_DEPTH
    deep = 0
    for step in brackets:
        deep += 1 if step == 1 else -1
        if deep > _MAX_DEPTH:
            return True
    return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object, feature: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(Reason.WRONG_SCHEMA, f"{shown(feature)} is {kind(value)}; it must be a number or null.")
    if not -_FLOAT32_END < value < _FLOAT32_END:
        raise Refusal(Reason.NOT_FINITE, f"{shown(feature)} is beyond what float32 holds; the limit is 3.4028e38.")
    return float(value)


def _symbol(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refusal(Reason.WRONG_SCHEMA, f"{shown(name)} is {kind(value)}; it must be a string or null.")
    check_symbol(value, shown(name))
    return value


def check_symbol(symbol: str, where: str) -> None:
    """Raises Refusal for a symbol that no vocabulary can hold; `where` is the beginning of the sentence."""
    if not symbol:
        raise Refusal(Reason.BAD_SYMBOL, f"{where} is an empty string; write null for a missing symbol.")
    try:
        n = len(symbol.encode())
    except UnicodeEncodeError:
        raise Refusal(Reason.BAD_SYMBOL, f"{where} has half a surrogate pair; write Unicode text.") from None
    if n > MAX_SYMBOL_BYTES:
        limit = f"a symbol has at most {MAX_SYMBOL_BYTES}; send one word a reading, not a text"
        raise Refusal(Reason.BAD_SYMBOL, f"{where} has {n} bytes; {limit}.")


def _time(at: object) -> int:
    """`at` of one record as ms since 1970."""
    value = at
    if isinstance(at, str):
        try:
            value = msgspec.convert(at, datetime)  # the parser of the compiled path
        except (msgspec.ValidationError, UnicodeEncodeError):  # the latter: half a surrogate pair
            raise Refusal(Reason.BAD_TIME, f"{shown(at)} is not a time. {_TIMES}.") from None
    elif not _is_number(at):
        raise Refusal(Reason.BAD_TIME, f"at is {kind(at)}. {_TIMES}.")
    at_ms: int = value if type(value) is int else _milliseconds(value)  # type: ignore[arg-type]
    if not 0 <= at_ms <= MAX_AT_MS:
        raise Refusal(Reason.BAD_TIME, f"{shown(at)} is not whole milliseconds in the years 1970 to 9999. {_TIMES}.")
    return at_ms


def times(at: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times [n] as ms since 1970, and which of them are none (those are 0)."""
    if set(map(type, at)) - {int}:
        at = [_milliseconds(value) for value in at]
    try:
        at_ms = np.fromiter(at, np.int64, len(at))
    except OverflowError:
        at_ms = np.fromiter((value if 0 <= value <= MAX_AT_MS else -1 for value in at), np.int64, len(at))
    bad = (at_ms < 0) | (at_ms > MAX_AT_MS)
    at_ms[bad] = 0
    return at_ms, bad


def _milliseconds(at: float | datetime) -> int:
    """Whole milliseconds, rounded down for a time of the calendar; -1 for a number that has none."""
    if isinstance(at, datetime):
        return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
    return int(at) if 0 <= at <= MAX_AT_MS and at == int(at) else -1
