"""What people and programs do with aliases, made of two things that a registry can: look, and compare and swap.

Standard library only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from services.registry.aliases import Aliases
from services.registry.problems import Mismatch, ModelUnknown


class Same:
    """Says that an argument was not given: None clears an alias."""


SAME = Same()


class Moves(ABC):
    """Promote, roll back, challenge, withdraw, pin. Each is one change, or none."""

    where: str  # the place, for people

    @abstractmethod
    def aliases(self) -> Aliases:
        """What the aliases name now."""

    @abstractmethod
    def move(
        self,
        seen: Aliases,
        *,
        reason: str,
        by: str,
        champion: str | Same | None = SAME,
        challenger: str | Same | None = SAME,
        previous: str | Same | None = SAME,
        pinned: bool | Same = SAME,
        numbers: Mapping[str, Any] | None = None,
        what: str = "moved",
    ) -> Aliases:
        """Changes aliases if they are still those that were seen."""

    def promote(
        self, model: str, *, reason: str, by: str, numbers: Mapping[str, Any] | None = None, seen: Aliases | None = None
    ) -> Aliases:
        """Makes `model` the champion and the champion the previous one; a challenger is cleared. With `seen` only if
        the aliases are still those. If it is the champion nothing happens. Raises as `move`.
        """
        seen = seen or self.aliases()
        if model == seen.champion:
            return seen
        return self.move(
            seen, reason=reason, by=by, champion=model, previous=seen.champion, challenger=None, numbers=numbers,
            what="promoted",
        )  # fmt: skip

    def rollback(
        self, *, reason: str, by: str, numbers: Mapping[str, Any] | None = None, seen: Aliases | None = None
    ) -> Aliases:
        """Makes the previous champion the champion again, and this one the previous: a second rollback undoes it. A
        challenger stays. Raises ModelUnknown where there is no previous one, and as `move`.
        """
        seen = seen or self.aliases()
        if seen.previous is None:
            raise ModelUnknown(f"{self.where} has no previous champion to go back to. "
                               "Name one with `streamrnn models promote ID`.")  # fmt: skip
        challenger = None if seen.challenger == seen.previous else seen.challenger
        return self.move(
            seen, reason=reason, by=by, champion=seen.previous, previous=seen.champion, challenger=challenger,
            numbers=numbers, what="rolled back",
        )  # fmt: skip

    def challenge(
        self, model: str, *, reason: str, by: str, numbers: Mapping[str, Any] | None = None, seen: Aliases | None = None
    ) -> Aliases:
        """Sets the challenger, in another's place if there is one. Raises as `move`, and Mismatch for the champion."""
        seen = seen or self.aliases()
        if model == seen.champion:
            raise Mismatch(f"{model} is the champion of {self.where}: it cannot challenge itself. Name another model.")
        if model == seen.challenger:
            return seen
        return self.move(seen, reason=reason, by=by, challenger=model, numbers=numbers, what="challenged")

    def withdraw(
        self, *, reason: str, by: str, numbers: Mapping[str, Any] | None = None, seen: Aliases | None = None
    ) -> Aliases:
        """Clears the challenger; where there is none nothing happens."""
        seen = seen or self.aliases()
        if seen.challenger is None:
            return seen
        return self.move(seen, reason=reason, by=by, challenger=None, numbers=numbers, what="withdrawn")

    def pin(self, pinned: bool = True, *, reason: str, by: str) -> Aliases:
        """Keeps the champion from being changed, or lets go of it. Raises ModelUnknown where there is no champion."""
        seen = self.aliases()
        if seen.champion is None:
            raise ModelUnknown(f"{self.where} has no champion to pin. Name one with `streamrnn models promote ID`.")
        if pinned == seen.pinned:
            return seen
        return self.move(seen, reason=reason, by=by, pinned=pinned, what="pinned" if pinned else "unpinned")
