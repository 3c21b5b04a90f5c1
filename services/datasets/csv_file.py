"""A CSV file of somebody's sensors as series, one a stream. Imports pandas when called."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.datasets.series import Series


class WrongTable(Exception):
    """The file cannot be read as readings. Remedy: the message names file, column and line."""


def read_csv(path: Path, time: str, stream: str | None = None, features: Sequence[str] = ()) -> list[Series]:
    """Series of the file, by stream name; the features are the numeric columns left over unless named.

    Times are milliseconds since 1970 or ISO 8601 (without a zone: UTC). Empty cells are missing values. Rows are put in
    time order within a stream. Raises WrongTable.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise WrongTable(f"{path}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise WrongTable(f"{path}: not a CSV file: {error}") from None
    for column in (time, *([stream] if stream else []), *features):
        if column not in table.columns:
            near = difflib.get_close_matches(column, map(str, table.columns), 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(map(str, table.columns))}"
            raise WrongTable(f"{path}: no column {column!r}{hint}")
    at_ms = _times(path, table[time])
    names = list(features) or [
        str(name) for name in table.columns if name not in (time, stream) and pd.api.types.is_numeric_dtype(table[name])
    ]
    if not names:
        raise WrongTable(f"{path}: no numeric column beside {time!r}; name the features with --features A,B")
    columns = []
    for name in names:
        values = pd.to_numeric(table[name], errors="coerce")
        wrong = np.flatnonzero(values.isna() & table[name].notna())
        if len(wrong):
            cell = str(table[name].iloc[wrong[0]])[:40]
            raise WrongTable(f"{path}: line {wrong[0] + 2}, column {name!r}: {cell!r} is not a number")
        columns.append(values.to_numpy(np.float32))
    x = np.stack(columns, axis=1)
    x[~np.isfinite(x)] = np.nan
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    owners = table[stream].astype(str).to_numpy() if stream else np.full(len(table), path.stem)
    made = []
    for owner in dict.fromkeys(owners.tolist()):
        rows = np.flatnonzero(owners == owner)
        rows = rows[np.argsort(at_ms[rows], kind="stable")]
        gaps_s = np.diff(at_ms[rows]) / 1000
        interval_s = float(np.median(gaps_s[gaps_s > 0])) if (gaps_s > 0).any() else 1.0
        made.append(Series(owner, tuple(names), interval_s, at_ms[rows], x[rows], digest, str(path)))
    return made


def _times(path: Path, column: object) -> np.ndarray:
    import pandas as pd

    assert isinstance(column, pd.Series)
    if pd.api.types.is_numeric_dtype(column):
        if column.isna().any():
            raise WrongTable(f"{path}: line {int(np.flatnonzero(column.isna())[0]) + 2}: no time")
        return np.asarray(column.to_numpy(np.int64))
    times = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    wrong = np.flatnonzero(times.isna())
    if len(wrong):
        raise WrongTable(
            f"{path}: line {int(wrong[0]) + 2}: {str(column.iloc[wrong[0]])[:40]!r} is neither milliseconds since 1970 "
            "nor ISO 8601"
        )
    return np.asarray(times.dt.as_unit("ms").astype("int64").to_numpy())
