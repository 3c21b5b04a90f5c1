"""Which names the values of readings have, where no model says so yet. Imports orjson, pyarrow and this room."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import orjson
import pyarrow as pa

from services.codecs.arrow_stream import check_frames
from services.codecs.readings_json import PACKED
from services.codecs.readings_packed import FLOATS, TEXTS
from services.codecs.refusal import Refusal

OWN = ("stream", "at", "seq", "end", "x")
"""Columns of a packed record that are no values."""
MAX_NAMES = 4096
MAX_NAME_BYTES = 256
"""A record with more or longer names was made by nobody who means well: it says nothing of what values are called."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What a sample of records says of its values."""

    names: tuple[str, ...]  # in order of their first appearance
    positional: int  # most values of an x without names; 0: none was seen
    symbols: int  # readings whose x is a symbol


def naming(values: Iterable[bytes | None]) -> Naming:
    """The names in the values of some records. What is no reading says nothing here: the decoder refuses it."""
    names: dict[str, None] = {}
    positional = symbols = 0
    for value in values:
        if not value:
            continue
        x = _packed(value) if value[:1] == PACKED else _x(value)
        if isinstance(x, dict):
            if len(x) <= MAX_NAMES and all(map(_is_name, x)):
                names |= dict.fromkeys(x)
        elif isinstance(x, int):
            positional = max(positional, x if x <= MAX_NAMES else 0)
        elif isinstance(x, str):
            symbols += 1
    return Naming(tuple(names), positional, symbols)


def _is_name(name: str) -> bool:
    """Whether a feature may be called so."""
    return 0 < len(name.encode()) <= MAX_NAME_BYTES and name.isprintable()


def _x(value: bytes) -> object:
    """Names, the number of values, or a symbol."""
    try:
        reading = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    x = reading.get("x") if isinstance(reading, dict) else None
    if isinstance(x, list):
        return len(x)
    return None if isinstance(x, bool | int) else x


def _packed(value: bytes) -> object:
    """As `_x`, of the columns; only their names and types are looked at."""
    try:
        check_frames(value)
        with pa.ipc.open_stream(pa.py_buffer(value)) as reader:
            names, kinds = reader.schema.names, reader.schema.types
    except (Refusal, pa.ArrowException, OSError, ValueError, OverflowError):
        return None
    columns = dict(zip(names, kinds, strict=True))
    if "at" not in columns or len(columns) < len(names):
        return None
    if (kind := columns.get("x")) is not None:
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size) if kind.value_type in FLOATS else None
        return "symbol" if kind in TEXTS else None
    values = {name: kind for name, kind in columns.items() if name not in OWN}
    if len(values) == 1 and all(kind in TEXTS for kind in values.values()):
        return "symbol"
    return dict.fromkeys(values) if all(kind in FLOATS for kind in values.values()) else None
