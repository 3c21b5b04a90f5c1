"""What is seldom meant in a table to learn from: refused where nothing could be learned, else told. Imports numpy."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.tables.table_reader import Frame, Oddity, WrongTable

TOLD = 3
"""Sentences about the streams of one table."""


def refuse_empty(table: Frame, features: Sequence[str], x: NDArray[np.float32]) -> None:
    """Raises WrongTable for a feature without one number; x [n, features]."""
    empty = np.flatnonzero(np.isnan(x).all(axis=0))
    if len(empty):
        raise WrongTable(
            f"{table.path}: column {features[empty[0]]!r} holds no number at all: take it out, or name the columns to "
            "read under data.features"
        )


def look_at_targets(table: Frame, targets: Sequence[str], truth: NDArray[np.float32]) -> list[str]:
    """A sentence about targets that are one number from end to end, if there are any; truth [n, targets or more].
    None where all of it is: there is nothing to learn then, and who learns refuses it.
    """
    low, high = (np.where(np.isnan(truth), fill, truth) for fill in (np.inf, -np.inf))
    fixed = low.min(axis=0) == high.max(axis=0)
    constant = np.flatnonzero(fixed[: len(targets)])
    if len(table) < 2 or not len(constant) or fixed.all():
        return []
    names = ", ".join(repr(targets[place]) for place in constant.tolist())
    return [f"{table.path}: {names} never changes: there is nothing to learn of it; name the targets without it"]


def look_at_times(
    table: Frame,
    column: str,
    line: NDArray[np.int64],
    at_ms: NDArray[np.int64],
    x: NDArray[np.float32] | None,
    stream: str,
    learns: bool,
) -> list[str]:
    """Sentences about one stream's readings in order of time: several of one time, rows that were not in that order;
    line, at_ms [n], x [n, features] or None for symbols.

    Raises WrongTable for a reading that stands there twice, where it would be learned from twice.
    """
    odd: list[str] = []
    again = np.flatnonzero(np.diff(at_ms) == 0) + 1
    if len(again) and x is not None and learns:
        equal = again[((x[again] == x[again - 1]) | (np.isnan(x[again]) & np.isnan(x[again - 1]))).all(axis=1)]
        if len(equal):
            row, first = int(line[equal[0]]), int(line[equal[0] - 1])
            more = f", and there are {len(equal) - 1} more such" if len(equal) > 1 else ""
            what = f"stream {stream!r} has the reading of {table.line(first)} a second time{more}: take one of them out"
            raise table.wrong(row, column, what)
    if len(again):
        what = (
            f"{len(again)} readings of stream {stream!r} are of a time that it has had, this one first: they are read "
            "in the order of their rows; give each its own time, or each sensor its own stream"
        )
        odd.append(str(table.wrong(int(line[again[0]]), column, what)))
    back = np.flatnonzero(np.diff(at_ms[np.argsort(line)]) < 0)
    if len(back):
        what = (
            f"earlier than a row before it of stream {stream!r}: its rows are read in order of time; sort the file to "
            "be rid of this"
        )
        odd.append(str(table.wrong(int(np.sort(line)[back[0] + 1]), column, what)))
    return odd


def tell(odd: Sequence[str]) -> None:
    """Warns of an Oddity for each sentence, or for the first few and how many more there are."""
    for message in odd[:TOLD]:
        warnings.warn(message, Oddity, stacklevel=3)
    if len(odd) > TOLD:
        warnings.warn(f"and {len(odd) - TOLD} more such sentences about other streams", Oddity, stacklevel=3)
