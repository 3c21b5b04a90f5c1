"""Models by id in a place, each whole or not there; what is kept about them beside; and checked copies on this machine.

`models/ID/` holds a model's files, its card last: without a card there is no model. `added/ID.json` says when and why
it came, `verdicts/ID/` what was judged of it. Imports rnn's cards; weights, and with them torch, when one is checked.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnn.io.card import CARD, Card, ModelRefused, read_card
from services.registry.aliases import plain
from services.registry.problems import ModelUnknown
from services.registry.storage import Storage

ID = re.compile(r"[0-9a-f]{12}")
WEIGHTS = "model.safetensors"
VERDICTS = ("promoted", "rejected", "undecided", "expired")


@dataclass(frozen=True, slots=True)
class Added:
    """When a model came into the registry last, and why. `at_ms` is 0 where nothing is known of it."""

    at_ms: int = 0
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A line of the list of models."""

    model: str
    created_ms: int = 0
    parent: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    bytes: int = 0  # of all its files
    aliases: tuple[str, ...] = ()
    added: Added = field(default_factory=Added)
    verdict: str | None = None  # the newest one
    problem: str | None = None  # why it must not be used, where that is seen from its card


class ModelStore:
    """The models of one place. `cache` is where copies go whose originals are not on this machine."""

    def __init__(self, place: Storage, cache: Path | None, now_ms: Callable[[], int]) -> None:
        self._place, self._cache, self._now_ms = place, cache, now_ms

    # ---- in and out -------------------------------------------------------------------------------------------------

    def ids(self) -> set[str]:
        """Of all models that are whole, by their cards' presence."""
        names = (name.split("/") for name in self._place.files("models"))
        return {parts[1] for parts in names if len(parts) == 3 and parts[2] == CARD and ID.fullmatch(parts[1])}

    def traces(self) -> dict[str, int]:
        """Id -> bytes of everything that is there of it, whole models and what is left of interrupted ones."""
        found: dict[str, int] = {}
        for under in ("models", "added", "verdicts"):
            for name, size in self._place.files(under).items():
                model = name.split("/")[1].removesuffix(".json")
                if ID.fullmatch(model):
                    found[model] = found.get(model, 0) + size
        return found

    def announce(self, model: str, reason: str, by: str) -> None:
        """The first thing that is written of a model that comes, so that its age is known whatever happens."""
        text = json.dumps({"at_ms": self._now_ms(), "by": by, "reason": reason})
        self._place.put(f"added/{model}.json", text.encode())

    def store(self, folder: Path, card: Card) -> None:
        """Writes the files of a model that `weights.load` accepted; its card comes last and makes it visible."""
        files = files_of(folder)
        content = {name: path.read_bytes() for name, path in files.items()}
        if missing := sorted({CARD, WEIGHTS} - content.keys()):
            raise ModelRefused(f"{folder}: {missing[0]} is a link that leads out of the folder. Copy the file there.")
        text = content.pop(CARD)
        if hashlib.sha256(content[WEIGHTS]).hexdigest() != card.sha256 or json.loads(text)["sha256"] != card.sha256:
            raise ModelRefused(f"{folder} changed while it was read. Add it again when its trainer is done.")
        for name, one in content.items():
            self._place.put(f"models/{card.model}/{name}", one)
        self._place.put(f"models/{card.model}/{CARD}", text)

    def card(self, model: str) -> Card:
        """Raises ModelUnknown and ModelRefused."""
        name = f"models/{model}/{CARD}"
        if not ID.fullmatch(model):
            raise ModelUnknown(
                f"{model!r} is no model's id: that is 12 digits and letters a to f, as `models list` says."
            )
        try:
            text = self._place.read(name)
        except FileNotFoundError:
            raise ModelUnknown(self._unknown(model)) from None
        with tempfile.TemporaryDirectory() as copy:
            Path(copy, CARD).write_bytes(text)
            try:
                card = read_card(Path(copy))
            except ModelRefused as error:
                raise ModelRefused(str(error).replace(copy, f"{self._place.where}/models/{model}")) from None
        if card.model != model:
            raise ModelRefused(
                f"{self._place.where}/{name} is the card of {card.model}: files were copied by hand. "
                "Add the right folder again with `streamrnn models add FOLDER`."
            )
        return card

    def folder(self, model: str) -> Path:
        """A folder on this machine with the model, checked from card to last weight. Raises as `card`."""
        from rnn.io import weights

        self.card(model)
        here = self._place.folder(f"models/{model}")
        if here is not None:
            weights.load(here)
            return here
        return self.copy(model) or self._copied(model, self._copies() / model)

    def copy(self, model: str) -> Path | None:
        """The copy of a model that this machine has, if it is whole."""
        from rnn.io import weights

        copy = self._copies() / model
        try:
            return copy if ID.fullmatch(model) and copy.is_dir() and weights.load(copy)[1].model == model else None
        except ModelRefused:
            return None  # it may be made anew

    def copied_card(self, model: str) -> Card | None:
        """The card of a copy that this machine has."""
        try:
            return read_card(self._copies() / model) if ID.fullmatch(model) else None
        except ModelRefused:
            return None

    def _copied(self, model: str, copy: Path) -> Path:
        from rnn.io import weights

        listed, where = self._place.files(f"models/{model}"), f"models/{model}/{WEIGHTS}"
        weights.check_size(self.card(model), listed.get(where, 0), f"{self._place.where}/{where}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{model}.", dir=copy.parent))
        try:
            for name in listed:
                (fresh / Path(name).name).write_bytes(self._place.read(name))
            try:
                weights.load(fresh)
            except ModelRefused as error:
                place = f"{self._place.where}/models/{model}"
                raise ModelRefused(str(error).replace(str(fresh), place)) from None
            fresh.chmod(0o755)
            shutil.rmtree(copy, ignore_errors=True)
            try:
                fresh.rename(copy)
            except OSError:  # another process has put the same there
                weights.load(copy)
        except FileNotFoundError:
            raise ModelUnknown(f"{model} was removed from {self._place.where} while it was copied.") from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return copy

    def _copies(self) -> Path:
        if self._cache is None:
            import platformdirs

            return Path(platformdirs.user_cache_dir("streamrnn", appauthor=False)) / "models"
        return self._cache

    def _unknown(self, model: str) -> str:
        known = sorted(self.ids())
        some = f"it has {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}" if known else "it is empty"
        return f"{self._place.where} has no model {model}; {some}. Add it with `streamrnn models add FOLDER`."

    # ---- what is kept about them ------------------------------------------------------------------------------------

    def added(self, model: str) -> Added:
        """When and why it came last."""
        try:
            tree = json.loads(self._place.read(f"added/{model}.json"))
            return Added(int(tree["at_ms"]), str(tree["by"]), str(tree["reason"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return Added()

    def judge(self, model: str, verdict: Mapping[str, Any]) -> None:
        """Keeps a verdict. Raises ModelUnknown, and ValueError for a verdict that is none of `VERDICTS`."""
        if verdict.get("verdict") not in VERDICTS:
            raise ValueError(f"verdict: wants one of {', '.join(VERDICTS)}; got {verdict.get('verdict')!r}")
        self.card(model)
        text = json.dumps({"at_ms": self._now_ms(), **plain(verdict)}, allow_nan=False).encode()
        number = len(self._place.files(f"verdicts/{model}")) + 1
        while not self._place.create(f"verdicts/{model}/{number:06d}.json", text):
            number += 1

    def verdicts(self, model: str) -> list[Mapping[str, Any]]:
        """All verdicts, the oldest first. What is not readable is left out."""
        found: list[Mapping[str, Any]] = []
        for name in self._place.files(f"verdicts/{model}"):
            try:
                tree = json.loads(self._place.read(name))
            except (FileNotFoundError, ValueError):
                continue
            if isinstance(tree, dict):
                found.append(tree)
        return found

    def report(self, model: str) -> Mapping[str, Any]:
        """What its trainer said, `report.json`; empty where it said nothing that can be read."""
        try:
            tree = json.loads(self._place.read(f"models/{model}/report.json"))
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def remove(self, model: str) -> None:
        """Removes everything of a model, its card first: from then on it is not there."""
        self._place.remove(f"models/{model}/{CARD}")
        for under in (f"models/{model}", f"verdicts/{model}"):
            for name in self._place.files(under):
                self._place.remove(name)
        self._place.remove(f"added/{model}.json")


def files_of(folder: Path) -> dict[str, Path]:
    """The plain files of a model's folder by name; no hidden ones, no folders. Links count only as a volume made of a
    ConfigMap has them: to files within the folder.
    """
    whole = folder.resolve()
    ours = (one for one in sorted(folder.iterdir()) if one.name[0] != "." and one.is_file())
    return {one.name: one for one in ours if one.resolve().is_relative_to(whole)}
