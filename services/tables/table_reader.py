"""A table's cells, column by column, with complaints that name file, line and column. Imports pandas and
pyarrow when called."""

from __future__ import annotations

import csv
import difflib
import fnmatch
import hashlib
import itertools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

PARQUET = (".parquet", ".pq")
LAST_MS = 253_402_300_800_000
"""The end of the year 9999."""
NO_NUMBERS = ("", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "-nan", "-NaN", "null", "NULL", "None", "<NA>")
"""Cells that say that a value is missing, where numbers are expected."""


SEPARATORS = (",", ";", "\t", "|")
"""The first of them that a header holds parts its cells."""

_ZONE = r"[Tt ]\d\d[^Zz+-]*([Zz]|[+-]\d\d(?::?\d\d)?)\s*$"
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


class WrongTable(Exception):
    """A table, or what is said about one, means nothing. Remedy: the message names file, line, column or setting."""


class Oddity(UserWarning):
    """A table is read as it stands, but something in it is seldom meant. The message names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A table in memory."""

    path: Path
    cells: pd.DataFrame
    digest: str  # sha256 of the file, hex
    separator: str = ","  # of a CSV file

    def __len__(self) -> int:
        return len(self.cells)

    def line(self, row: int) -> str:
        """Where a row stands, for a sentence."""
        if self.path.suffix in PARQUET:
            return f"row {row + 1}"
        with self.path.open(newline="", encoding="utf-8-sig") as file:  # empty lines and breaks within quotes count
            reader = csv.reader(file, delimiter=self.separator)
            filled = (reader.line_num for cells in reader if cells)
            return f"line {next(itertools.islice(filled, row + 1, None), row + 2)}"

    def wrong(self, row: int, column: str, what: str) -> WrongTable:
        """A complaint about one cell."""
        return WrongTable(f"{self.path}: {self.line(row)}, column {column!r}: {what}")

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """The columns meant by names and patterns such as `p*`, in the table's order for each. Raises WrongTable."""
        found: list[str] = []
        columns = [str(name) for name in self.cells.columns]
        for pattern in patterns:
            names = [name for name in columns if name == pattern] or fnmatch.filter(columns, pattern)
            if not names:
                self.column(pattern)
            found += [name for name in names if name not in found]
        return found

    def column(self, name: str) -> pd.Series:
        """One column's cells. Raises WrongTable, naming the nearest column."""
        if name not in self.cells.columns:
            known = [str(one) for one in self.cells.columns]
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known[:20])}"
            raise WrongTable(f"{self.path}: no column {name!r}; {hint}")
        return self.cells[name]

    def words(self, name: str) -> list[str]:
        """A column as text; an empty cell is ''."""
        column = self.column(name)
        return ["" if none else str(cell) for cell, none in zip(column.tolist(), column.isna().tolist(), strict=True)]

    def numbers(self, name: str) -> NDArray[np.float32]:
        """A column as numbers; an empty cell is NaN. Raises WrongTable for a cell that is none, warns of an Oddity for
        one that is infinite or too large.
        """
        import pandas as pd

        column = self.column(name)
        values = pd.to_numeric(column, errors="coerce")
        bad = np.flatnonzero((values.isna() & column.notna()).to_numpy())
        bad = bad[[str(cell).strip() not in NO_NUMBERS for cell in column.iloc[bad]]] if len(bad) else bad
        if len(bad):
            cell = str(column.iloc[bad[0]])[:40]
            comma = "; write its decimal comma as a point" if _DECIMAL_COMMA.fullmatch(cell.strip()) else ""
            raise self.wrong(int(bad[0]), name, f"{cell!r} is not a number{comma}")
        with np.errstate(over="ignore"):
            x = values.to_numpy(np.float64).astype(np.float32)
        beyond = np.flatnonzero(np.isinf(x))
        if len(beyond):
            more = f", and there are {len(beyond) - 1} more such" if len(beyond) > 1 else ""
            what = (
                f"{str(column.iloc[beyond[0]])[:40]!r} is no number up to 3.4e38{more}: read as missing; mend it, or "
                "leave the cell empty"
            )
            # Level 1, so that a column that is read twice is told of once.
            warnings.warn(str(self.wrong(int(beyond[0]), name, what)), Oddity, stacklevel=1)
        x[beyond] = np.nan
        return np.asarray(x)

    def share_of_numbers(self, name: str) -> float:
        """Of the cells that are not empty."""
        import pandas as pd

        cells = self.column(name).dropna()
        return float(pd.to_numeric(cells, errors="coerce").notna().mean()) if len(cells) else 0.0

    def flags(self, name: str) -> NDArray[np.bool_]:
        """A column of 1 and 0, true and false, or empty cells. Raises WrongTable."""
        known = {"1": True, "true": True, "1.0": True, "yes": True, "": False, "0": False, "false": False, "0.0": False,
                 "no": False}  # fmt: skip
        made = np.zeros(len(self), np.bool_)
        for row, word in enumerate(self.words(name)):
            if word.lower() not in known:
                raise self.wrong(row, name, f"{word[:40]!r} is neither 1 nor 0")
            made[row] = known[word.lower()]
        return made

    def times(self, name: str) -> NDArray[np.int64]:
        """Milliseconds since 1970; ISO 8601 without a zone is UTC. Raises WrongTable."""
        import pandas as pd

        column = self.column(name)
        if column.isna().any():
            raise self.wrong(int(np.flatnonzero(column.isna())[0]), name, "no time")
        if not pd.api.types.is_datetime64_any_dtype(column):
            numeric = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
            if np.isfinite(numeric).mean() >= 0.5:
                bad = np.flatnonzero(~((numeric >= 0) & (numeric < LAST_MS) & (numeric == np.floor(numeric))))
                if len(bad):
                    cell = str(column.iloc[bad[0]])[:40]
                    raise self.wrong(int(bad[0]), name, f"{cell!r} is no whole number of milliseconds since 1970")
                return np.asarray(numeric.astype(np.int64))
        times = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        bad = np.flatnonzero(times.isna().to_numpy())
        if len(bad):
            cell = str(column.iloc[bad[0]])[:40]
            raise self.wrong(int(bad[0]), name, f"{cell!r} is neither milliseconds since 1970 nor ISO 8601")
        if not pd.api.types.is_datetime64_any_dtype(column):
            self._look_at_zones(name, column)
        return np.asarray(times.dt.as_unit("ms").astype("int64").to_numpy())

    def _look_at_zones(self, name: str, column: pd.Series) -> None:
        """Raises WrongTable where some times have a zone and others have none, warns of an Oddity where they have
        several, but for a clock that is put forward in spring and back in autumn.
        """
        zone = column.astype(str).str.extract(_ZONE, expand=False).fillna("").str.upper().to_numpy(str)
        other = np.flatnonzero(zone != zone[0])
        if not len(other):
            return
        bare = np.flatnonzero((zone == "") != (zone[0] == ""))
        row = int(bare[0] if len(bare) else other[0])
        said, first = (f"is of zone {one}" if one else "has no zone" for one in (zone[row], zone[0]))
        what = f"{str(column.iloc[row])[:40]!r} {said}, the time in {self.line(0)} {first}"
        if len(bare):
            raise self.wrong(row, name, f"{what}: write all of the column in one zone, best in UTC with a Z")
        if not _summer_time(zone):
            what += ": each is read in its own zone; if that is not meant, write all of the column in UTC with a Z"
            warnings.warn(str(self.wrong(row, name, what)), Oddity, stacklevel=3)


def _summer_time(zone: NDArray[np.str_]) -> bool:
    """Whether the zones of a column [n] are two spelled as +hh:mm, an hour apart, that seldom change."""
    kinds = sorted({one[:3] for one in np.unique(zone).tolist()})
    if len(kinds) != 2 or not all(len(one) == 3 for one in kinds):
        return False
    changes = int((zone[1:] != zone[:-1]).sum())
    return abs(int(kinds[0]) - int(kinds[1])) == 1 and 1000 * changes <= len(zone)


def frame(path: Path, words: Sequence[str] = ()) -> Frame:
    """The table in a file; cells of the columns `words` are text, whatever they look like. Raises WrongTable if there
    is none.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise WrongTable("reading tables wants pandas: pip install 'streamrnn[train]'") from None
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        separator = "," if path.suffix in PARQUET else _separator(path)
        in_csv = path.suffix not in PARQUET
        cells = pd.read_csv(path, **_as(path, separator, words)) if in_csv else _of_parquet(path)
    except OSError as error:
        raise WrongTable(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise WrongTable(f"{path}: not a table: {error}") from None
    if not len(cells):
        raise WrongTable(f"{path}: holds no row")
    if path.suffix in PARQUET and cells.index.name is not None:
        cells = cells.reset_index()
    return Frame(path, cells, digest, separator)


def _of_parquet(path: Path) -> pd.DataFrame:
    """Raises WrongTable, OSError, or MemoryError."""
    import pandas as pd
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                batch.validate(full=True)
        return pd.read_parquet(path)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # what a damaged file leads to in Arrow has no class in common
        raise WrongTable(f"{path}: not a table: {str(error).partition(chr(10))[0][:200]}") from None


def _separator(path: Path) -> str:
    """What parts the cells of a CSV file, by its header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = file.readline()
    return next((one for one in SEPARATORS if len(next(csv.reader([header], delimiter=one), [])) > 1), SEPARATORS[0])


def _as(path: Path, separator: str, words: Sequence[str]) -> dict[str, Any]:
    """How pandas is to read a CSV file."""
    import pandas as pd

    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file, delimiter=separator), [])
    if twice := [name for name in header if header.count(name) > 1]:
        raise WrongTable(f"{path}: line 1: two columns are called {twice[0]!r}")
    columns = [str(name) for name in pd.read_csv(path, nrows=0, index_col=False, sep=separator).columns]
    return {
        "sep": separator,
        "index_col": False,  # a row with a cell too many does not move the names
        "dtype": {name: str for name in words if name in columns},
        "keep_default_na": False,  # `null` and `None` are words
        "na_values": {name: NO_NUMBERS for name in columns if name not in words},
        "low_memory": False,  # one type a column
    }
