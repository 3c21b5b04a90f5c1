"""The file that says that a place is a registry, and of which format. Imports the room's places only."""

from __future__ import annotations

import json

from services.registry.problems import WrongRegistry
from services.registry.storage import Storage

FORMAT = 1
MARKER = "registry.json"


class FormatVersion:
    """Looked at once; a registry does not change its format."""

    def __init__(self, place: Storage) -> None:
        self._place = place
        self._known = False

    def claim(self) -> None:
        """Makes an empty place a registry. Raises WrongRegistry for one that holds other things."""
        if self.check():
            return
        others = [name for name in self._place.files("") if name != MARKER]
        if others and not self.check():
            raise WrongRegistry(
                f"{self._place.where} holds {others[0]} but no {MARKER}: it is no registry. "
                "Name an empty or a new folder."
            )
        self._place.create(MARKER, json.dumps({"format": FORMAT, "is": "a registry of streamrnn"}).encode() + b"\n")
        self.check()

    def check(self) -> bool:
        """Whether this is a registry already. Raises WrongRegistry for one of another format."""
        if not self._known:
            try:
                text = self._place.read(MARKER)
            except FileNotFoundError:
                return False
            try:
                found = json.loads(text)["format"]
            except (ValueError, TypeError, KeyError):
                found = None
            if found != FORMAT:
                raise WrongRegistry(
                    f"{self._place.where}/{MARKER} names format {found!r}; this release knows {FORMAT}. "
                    "Use the release that made it, or another place."
                )
            self._known = True
        return True
