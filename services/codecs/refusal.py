"""Why one record cannot be read. Imports `services.records` and the standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from services.records import Fault, Reason

_SHOWN_CHARACTERS = 60
_LISTED = 12
HINTS = 128
"""Unknown names to which the nearest known one is looked for, in the life of a decoder."""


class Why(NamedTuple):
    """The reason, and a sentence for a person."""

    reason: Reason
    detail: str


class Refusal(Exception):
    """`Refusal(reason, sentence)`: one input record is refused as a whole and becomes a dead letter that says so. Cheap
    to raise, for there may be a flood of them.
    """

    @property
    def why(self) -> Why:
        """What is kept of it: an exception would hold on to the frames of a whole poll."""
        return Why._make(self.args)

    def __str__(self) -> str:
        return self.why.detail


def internal(fault: Fault) -> Why:
    """Why a record is refused that led to an error which nobody foresaw."""
    return Why(Reason.INTERNAL, f"An error of streamrnn's own ({fault.kind}); its log has the stack. Report it.")


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


class Nearest:
    """Hints at the nearest of some known names. Each costs milliseconds where many are known, so they are remembered,
    and after HINTS unknown names no further ones are looked for: a flood of them costs no more than readings do.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = list(known)
        self._hints: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """` Did you mean 'seq'?`, or nothing when no known name is near."""
        name = name[:_SHOWN_CHARACTERS]
        if name not in self._hints:
            if len(self._hints) >= HINTS:
                return ""
            found = difflib.get_close_matches(name, self._known, n=1)
            self._hints[name] = f" Did you mean {shown(found[0])}?" if found else ""
        return self._hints[name]
