"""Why one record cannot be read. Imports `services.records` and the standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from services.records import Reason

_SHOWN_CHARACTERS = 60
_LISTED = 12


class Why(NamedTuple):
    """The reason, and a sentence for a person."""

    reason: Reason
    detail: str


class Refusal(Exception):
    """One input record is refused as a whole; it becomes a dead letter with this reason and sentence."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.why = Why(reason, detail)  # what is kept of it: an exception would hold on to the frames of a whole poll


def kind(value: object) -> str:
    """What a JSON value is, with its article."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def shown(value: object) -> str:
    """A JSON value or a name for a sentence: at most 60 characters of input, everything unprintable escaped."""
    if isinstance(value, dict | list | bool | None):
        return kind(value)
    if not isinstance(value, str):
        return str(value)[:_SHOWN_CHARACTERS]
    return ascii(value[:_SHOWN_CHARACTERS])[: 2 * _SHOWN_CHARACTERS]


def listed(names: Iterable[str]) -> str:
    """`a, b and 3 more`."""
    all_names = list(names)
    text = ", ".join(all_names[:_LISTED])
    return text if len(all_names) <= _LISTED else f"{text} and {len(all_names) - _LISTED} more"


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'seq'?`, or nothing when no known name is near."""
    found = difflib.get_close_matches(name[:_SHOWN_CHARACTERS], list(known), n=1)
    return f" Did you mean {shown(found[0])}?" if found else ""
