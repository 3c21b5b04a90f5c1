"""Which names the values of readings have, where no model says so yet. Imports orjson, pyarrow and this room."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import orjson
import pyarrow as pa

from services.codecs.arrow_stream import check_frames
from services.codecs.refusal import Refusal

OWN = ("stream", "at", "seq", "end", "x")
"""Columns of a packed record that are no values."""


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
        x = _packed(value) if value[:1] == b"\xff" else _x(value)
        if isinstance(x, dict):
            names |= dict.fromkeys(x)
        elif isinstance(x, list):
            positional = max(positional, len(x))
        elif isinstance(x, str):
            symbols += 1
    return Naming(tuple(names), positional, symbols)


def _x(value: bytes) -> object:
    try:
        reading = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return reading.get("x") if isinstance(reading, dict) else None


def _packed(value: bytes) -> object:
    try:
        check_frames(value)
        with pa.ipc.open_stream(pa.py_buffer(value)) as reader:
            schema = reader.schema
    except (Refusal, pa.ArrowException, OSError, ValueError):
        return None
    if "x" not in schema.names:
        return {name: None for name in schema.names if name not in OWN}
    kind = schema.field("x").type
    return [None] * kind.list_size if pa.types.is_fixed_size_list(kind) else "symbol"
