"""Words of Python itself and what kind of word each is, from the running interpreter. Imports the standard library."""

from __future__ import annotations

import builtins
import keyword
import random
import sys

from services.datasets.tables import START_MS, STEP_MS, Split, Table

CITATION = "Names of the Python language and its standard library (PSF licence)."
KINDS = ("keyword", "function", "exception", "type", "module")


def word_kinds(seed: int = 0, copies: int = 8) -> Split:
    """Each word with its kind: `word`, `kind`. A word without context can only be known or not known, so the test part
    has the words of the training part, and one in twenty that no model has seen.
    """
    known = _words()
    drawn = random.Random(f"word kinds {seed}")
    rows = list(known.items()) * copies
    drawn.shuffle(rows)
    asked = drawn.sample(sorted(known.items()), len(known))
    strange = [(f"{word}_{number}", "") for number, (word, _) in enumerate(asked[: len(asked) // 20])]
    return Split(_table(rows, "train"), _table([*asked, *strange], "test"), CITATION)


def _words() -> dict[str, str]:
    """Word -> kind; a word of two kinds has the first of `KINDS`."""
    found: dict[str, str] = {}
    for name in keyword.kwlist:
        found.setdefault(name, "keyword")
    for name, value in vars(builtins).items():
        if name.startswith("_"):
            continue
        if isinstance(value, type):
            found.setdefault(name, "exception" if issubclass(value, BaseException) else "type")
        elif callable(value):
            found.setdefault(name, "function")
    for name in sorted(sys.stdlib_module_names):
        if not name.startswith("_"):
            found.setdefault(name, "module")
    return found


def _table(rows: list[tuple[str, str]], part: str) -> Table:
    return Table(
        ("stream", "at", "word", "kind"),
        tuple((f"{part}-{k}", str(START_MS + STEP_MS * k), word, kind) for k, (word, kind) in enumerate(rows)),
    )
