"""The registry: models by id, and which of them is champion, challenger and previous. ADR 10 has the layout.

Imports rnn's cards, and torch when a model is checked; no other room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rnn.io.card import Card, ModelRefused
from services.registry import collect
from services.registry.aliases import NAMES, Aliases, Change, Changes
from services.registry.compatibility import compatible
from services.registry.format_version import FormatVersion
from services.registry.model_store import ID, Added, ModelEntry, ModelStore
from services.registry.moves import SAME, Moves, Same
from services.registry.problems import Conflict, Mismatch, ModelUnknown, Pinned, Unreachable
from services.registry.storage import place_of


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Registry(Moves):
    """Models and their aliases in a folder, or at a URL of an object store (s3://, gs://, abfs://).

    A place where nothing is yet is an empty registry; the first `add` makes it one. Threads and processes may share a
    place: models come whole or not at all, aliases move by compare-and-swap. `cache` is where models of an object store
    are copied to; by default the user's cache folder. Every call may raise Unreachable, and WrongRegistry.
    """

    def __init__(self, where: str | Path, *, cache: Path | None = None, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._place = place_of(where)
        self.where = self._place.where
        self._clock_ms = clock_ms
        self._shelf = ModelStore(self._place, cache, clock_ms)
        self._changes = Changes(self._place)
        self._marker = FormatVersion(self._place)

    # ---- models -----------------------------------------------------------------------------------------------------

    def add(self, folder: Path, *, reason: str, by: str = "") -> Card:
        """Stores a model and what lies beside it in its folder (report.json, pictures). Returns its card.

        A model that is there already stays as it is, unless it was damaged: then it is written anew. Raises
        ModelRefused for what is no whole, finite model of this format, and Conflict while it is just being removed.
        """
        from rnn.io import weights

        _, card = weights.load(Path(folder))
        self._marker.claim()
        self._shelf.announce(card.model, reason, by)
        if card.model in self.aliases().leaving:
            raise Conflict(
                f"{card.model} is just being removed from {self.where}. Add it again in a moment; if its collector was "
                "killed, `streamrnn models gc` ends its work after ten minutes."
            )
        try:
            there = self._shelf.card(card.model)
            self._shelf.folder(card.model)
        except (ModelUnknown, ModelRefused):
            self._shelf.store(Path(folder), card)
            return card
        if there.sha256 != card.sha256:
            raise ModelRefused(f"{folder} and a model of {self.where} share the id {card.model} but no weights. "
                               "Train it again with another seed.")  # fmt: skip
        return there

    def folder(self, model: str) -> Path:
        """A folder on this machine with the model, checked whole: `weights.load` takes it. Do not write into it. While
        the place is away a copy that was made before does: an id is a digest of weights, so it can be no other model.

        Raises ModelUnknown, and ModelRefused with the reason.
        """
        try:
            self._marker.check()
            return self._shelf.folder(model)
        except Unreachable:
            if copy := self._shelf.copy(model):
                return copy
            raise

    def card(self, model: str) -> Card:
        """A model's card; while the place is away that of a copy. Raises ModelUnknown and ModelRefused."""
        try:
            self._marker.check()
            return self._shelf.card(model)
        except Unreachable:
            if card := self._shelf.copied_card(model):
                return card
            raise

    def added(self, model: str) -> Added:
        """When a model came, by whom and why."""
        return self._shelf.added(model)

    def report(self, model: str) -> Mapping[str, Any]:
        """The trainer's `report.json`; empty where there is none."""
        return self._shelf.report(model)

    def models(self) -> list[ModelEntry]:
        """All models, the newest first. One with a damaged card is listed with its problem."""
        self._marker.check()
        aliases, entries = self.aliases(), []
        traces = self._shelf.traces()
        for model in self._shelf.ids():
            verdicts = self._shelf.verdicts(model)
            rest: dict[str, Any] = {
                "bytes": traces.get(model, 0), "aliases": aliases.of(model), "added": self._shelf.added(model),
                "verdict": str(verdicts[-1].get("verdict")) if verdicts else None,
            }  # fmt: skip
            try:
                card = self._shelf.card(model)
            except ModelUnknown:  # removed while we look
                continue
            except ModelRefused as error:
                entries.append(ModelEntry(model, problem=str(error), **rest))
                continue
            entries.append(ModelEntry(model, card.created_ms, card.parent, card.scores, **rest))
        return sorted(entries, key=lambda one: (-one.created_ms, one.model))

    def resolve(self, name: str) -> str:
        """The id that is meant by an id, the beginning of one (4 digits or more) or an alias. Raises ModelUnknown."""
        if name in NAMES:
            model = getattr(self.aliases(), name)
            if model is None:
                raise ModelUnknown(f"{self.where} has no {name}. Name one with `streamrnn models "
                                   f"{'challenge' if name == 'challenger' else 'promote'} ID`.")  # fmt: skip
            return str(model)
        if ID.fullmatch(name):
            return name
        meant = sorted(model for model in self._shelf.ids() if len(name) >= 4 and model.startswith(name))
        if len(meant) > 1:
            raise ModelUnknown(f"{name!r} begins the ids of several models: {', '.join(meant[:8])}. Give more of it.")
        return meant[0] if meant else self.card(name).model

    def add_verdict(self, model: str, verdict: Mapping[str, Any]) -> None:
        """Keeps what was judged of a model, beside its card: `verdict["verdict"]` is promoted, rejected, undecided or
        expired, the rest its numbers. Raises ModelUnknown.
        """
        self._marker.claim()
        self._shelf.judge(model, verdict)

    def verdicts(self, model: str) -> list[Mapping[str, Any]]:
        """All verdicts on a model, the oldest first, each with its `at_ms`."""
        return self._shelf.verdicts(model)

    # ---- aliases ----------------------------------------------------------------------------------------------------

    def aliases(self) -> Aliases:
        """What the aliases name now. One small read, which may be made every few seconds."""
        latest = self._changes.latest()
        return latest.aliases if latest else Aliases()

    def history(self) -> list[Change]:
        """Every change of the aliases, the oldest first."""
        return self._changes.all()

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
        """Changes aliases if they are still those that were `seen`; returns what they are now. None clears one.

        Raises Conflict when somebody was quicker, ModelUnknown and ModelRefused for what cannot be served, Mismatch for
        what cannot take the champion's place, and Pinned where the champion would change though it is pinned.
        """
        if not reason:
            raise ValueError("reason: say why the aliases change; the history keeps it")
        given = {"champion": champion, "challenger": challenger, "previous": previous, "pinned": pinned}
        wanted: dict[str, Any] = {name: value for name, value in given.items() if not isinstance(value, Same)}
        self._marker.claim()
        now = self.aliases()
        if now != seen:
            raise Conflict(self._quicker(seen))
        after = replace(seen, version=seen.version + 1, **wanted)
        if seen.pinned and after.pinned and after.champion != seen.champion:
            raise Pinned(f"{self.where}: the champion {seen.champion} is pinned: {self._pinned_why()}. "
                         "Whoever may change that calls `streamrnn models unpin` first.")  # fmt: skip
        self._check_models(seen, after)
        if not self._changes.append(Change(self._clock_ms(), by, reason, what, after, dict(numbers or {}))):
            raise Conflict(self._quicker(seen))
        return after

    # ---- garbage ----------------------------------------------------------------------------------------------------

    def collect(
        self, keep: Collection[str] = (), *, older_than_s: float, by: str = "", dry_run: bool = False
    ) -> list[str]:
        """Removes models, and what crashes left of some, that came longer ago than that and that nobody needs. Needed
        are those of aliases, their parents, and `keep`: models that state rows name. Returns the ids that are gone.

        `older_than_s` must be longer than an add takes. Raises Conflict while another one collects.
        """
        self._marker.check()
        if dry_run:
            return sorted(collect.garbage(self._shelf, self.aliases(), keep, older_than_s, self._clock_ms()))
        self._place.sweep(older_than_s)
        return collect.collect(self._shelf, self._changes, keep, older_than_s, by, self._clock_ms)

    # ---- checks -----------------------------------------------------------------------------------------------------

    def _check_models(self, seen: Aliases, after: Aliases) -> None:
        for model in sorted(after.named() - seen.named()):
            if model in after.leaving:
                raise ModelUnknown(f"{model} is just being removed from {self.where}. Add it again first.")
            self._shelf.card(model)
        first = seen.champion or after.champion
        for name in ("champion", "challenger"):
            model = getattr(after, name)
            if model is None or model == getattr(seen, name):
                continue
            self._shelf.folder(model)
            why = None if first is None else self._misfit(first, model)
            if why:
                raise Mismatch(f"{model} cannot be {name} of {self.where}: {why} "
                               "A model of another question wants a pipeline and a registry of its own.")  # fmt: skip

    def _misfit(self, champion: str, model: str) -> str | None:
        try:
            known = self._shelf.card(champion).config
        except (ModelUnknown, ModelRefused):  # a champion that is damaged must not keep others from its place
            return None
        return compatible(known, self._shelf.card(model).config)

    def _quicker(self, seen: Aliases) -> str:
        latest = self._changes.latest()
        done = f"{latest.by or 'somebody'} has {latest.what} ({latest.reason})" if latest else "they were removed"
        return (f"The aliases of {self.where} are no longer those of change {seen.version}: {done}. "
                "Look again with `streamrnn models list`, then decide again.")  # fmt: skip

    def _pinned_why(self) -> str:
        pins = [change for change in self.history() if change.aliases.pinned]
        for change in reversed(pins):
            if change.what == "pinned":
                return f"{change.reason} ({change.by or 'somebody'})"
        return pins[-1].reason if pins else "nobody knows why"
