"""Tables of sequences to learn from: one reading a line, as `streamrnn train` reads them.

Columns are `stream` (the name of the sequence), `at` (ms since 1970), what is read (`word`, or numbers), `end` (1 with
a sequence's last reading) and the truth. Imports the standard library only.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

START_MS, STEP_MS = 1_700_000_000_000, 1000
"""Time of the first reading of every table, and between two readings."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, under the names of their columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        """The cells of one column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def first(self, rows: int) -> Table:
        """The first rows, `rows` at most; where there is a column `end`, whole sequences only, one at least."""
        kept = self.rows[:rows]
        if "end" in self.columns and len(kept) < len(self.rows):
            ends = [number for number, end in enumerate(self.column("end"), 1) if end == "1"]
            kept = self.rows[: max((number for number in ends if number <= rows), default=ends[0])]
        return Table(self.columns, kept)

    def write(self, path: Path) -> None:
        """As a CSV file; it appears whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        with fresh.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(self.rows)
        fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Split:
    """What to learn from, what to judge by, and whose work it is."""

    train: Table
    test: Table
    citation: str

    def first(self, rows: int) -> Split:
        """So many rows of the training part at most and a quarter as many of the test part; only whole sequences."""
        return Split(self.train.first(rows), self.test.first(max(1, rows // 4)), self.citation)

    def write(self, folder: Path) -> list[Path]:
        """train.csv and test.csv in `folder`."""
        paths = [folder / "train.csv", folder / "test.csv"]
        self.train.write(paths[0])
        self.test.write(paths[1])
        return paths


@dataclass(frozen=True, slots=True)
class Spoken:
    """Symbols read one after another, and what is true: of each symbol, or of all of them (then one truth)."""

    words: tuple[str, ...]
    truth: tuple[str, ...]


def table_of(sequences: Iterable[Spoken], truth: str, prefix: str) -> Table:
    """One row a symbol. A truth of the whole stands on the last row, those of symbols on their own rows."""
    rows: list[tuple[str, ...]] = []
    for number, one in enumerate(sequences):
        last = len(one.words) - 1
        aligned = len(one.truth) == len(one.words)
        for k, word in enumerate(one.words):
            said = one.truth[k] if aligned else (one.truth[0] if k == last and one.truth else "")
            at_ms = START_MS + STEP_MS * len(rows)
            rows.append((f"{prefix}-{number}", str(at_ms), word, str(int(k == last)), said))
    columns = ("stream", "at", "word", "end", truth)
    if not truth:
        return Table(columns[:-1], tuple(row[:-1] for row in rows))
    return Table(columns, tuple(rows))
