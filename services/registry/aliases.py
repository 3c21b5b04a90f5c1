"""What the aliases name, one change of it, and the numbered files that are both pointer and history.

`aliases/00000042.json` is the 42nd change and holds the whole state after it. It is only ever created, never changed,
and creating it is the compare-and-swap: whoever saw 41 and comes second finds 42 taken. Standard library only.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from services.registry.problems import WrongRegistry
from services.registry.storage import Storage

FORMAT = 1
NAMES = ("champion", "challenger", "previous")


@dataclass(frozen=True, slots=True)
class Aliases:
    """Which model is what. `version` counts the changes; 0 is a registry in which nothing was named yet."""

    version: int = 0
    champion: str | None = None
    challenger: str | None = None
    previous: str | None = None  # the champion before this one
    pinned: bool = False  # the champion stays until somebody unpins it
    leaving: tuple[str, ...] = ()  # models that are being removed: no alias may name them

    def of(self, model: str) -> tuple[str, ...]:
        """The aliases that name `model`."""
        return tuple(name for name in NAMES if getattr(self, name) == model)

    def named(self) -> set[str]:
        """All models that an alias names."""
        return {model for name in NAMES if (model := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history."""

    at_ms: int
    by: str
    reason: str
    what: str  # "promoted", "rolled back", "challenged", ...
    aliases: Aliases  # after it
    numbers: Mapping[str, Any] = field(default_factory=dict)
    key: str = field(default_factory=lambda: secrets.token_hex(8))  # tells a change from an equal one by somebody else

    @property
    def version(self) -> int:
        """Its number."""
        return self.aliases.version


class Changes:
    """All changes, in a place. Remembers those that it has read: they never change."""

    def __init__(self, place: Storage) -> None:
        self._place = place
        self._read: dict[int, Change] = {}

    def latest(self) -> Change | None:
        """The newest change; None where there is none. One failed read once the history is known."""
        version = max(self._read, default=0)
        if not version:
            version = max(self._numbers(), default=0)
        found = self.change(version) if version else None
        while True:
            try:
                found = self.change(version + 1)
            except FileNotFoundError:
                return found
            version += 1

    def change(self, version: int) -> Change:
        """One change. Raises FileNotFoundError, and WrongRegistry for what is no change."""
        if version not in self._read:
            name = _name(version)
            self._read[version] = _change(self._place.read(name), version, f"{self._place.where}/{name}")
        return self._read[version]

    def all(self) -> list[Change]:
        """Every change, the oldest first."""
        return [self.change(version) for version in sorted(self._numbers())]

    def append(self, change: Change) -> bool:
        """True if this very change is now number `change.version`; False if another one is."""
        change = replace(change, numbers=plain(change.numbers))
        if self._place.create(_name(change.version), _text(change)):
            self._read[change.version] = change
            return True
        return self.change(change.version).key == change.key  # a store may answer a put that it repeated with "exists"

    def _numbers(self) -> list[int]:
        names = [name.rpartition("/")[2] for name in self._place.files("aliases")]
        return [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal()]


def plain(value: Any) -> Any:
    """`value` as JSON has it: numbers that are not finite become null, numpy's become Python's."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"{value!r} is nothing that JSON has: give numbers, texts, lists and mappings")


def _name(version: int) -> str:
    return f"aliases/{version:08d}.json"


def _text(change: Change) -> bytes:
    fields = {"format": FORMAT, **asdict(change)}
    return json.dumps(fields, indent=1, allow_nan=False).encode() + b"\n"


def _change(text: bytes, version: int, where: str) -> Change:
    try:
        tree = json.loads(text)
        if tree["format"] != FORMAT:
            raise ValueError(f"format {tree['format']!r}; this release reads format {FORMAT}")
        state = tree["aliases"]
        leaving = tuple(state.pop("leaving"))
        known = {one.name for one in fields(Aliases)}
        aliases = Aliases(leaving=leaving, **{name: value for name, value in state.items() if name in known})
        named = [getattr(aliases, name) for name in NAMES]
        if not all(one is None or isinstance(one, str) for one in (*named, *leaving)) or aliases.version != version:
            raise ValueError("its aliases are none")
        return Change(int(tree["at_ms"]), str(tree["by"]), str(tree["reason"]), str(tree["what"]), aliases,
                      dict(tree["numbers"]), str(tree["key"]))  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WrongRegistry(
            f"{where} is no change of aliases that this release reads ({error}). It was damaged or made by another "
            "release: bring it back from a copy; or, if it is the newest, delete it, and the change before it counts."
        ) from None
