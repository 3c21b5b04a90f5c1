"""A table unfolded into readings: a row each, or a row that is a whole sequence of symbols. Imports numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn.config import SYMBOL
from services.settings.training import DataSection
from services.tables.table_reader import Frame, WrongTable


@dataclass(frozen=True, slots=True)
class Rows:
    """A table unfolded: a row is a reading. Symbols and classes are words still."""

    frame: Frame
    line: NDArray[np.int64]  # [n], row of the table that each reading stands in
    stream: NDArray[Any]  # [n]
    at_ms: NDArray[np.int64]  # [n]
    end: NDArray[np.bool_]  # [n]
    symbols: list[str] | None  # [n]
    x: NDArray[np.float32] | None  # [n, features]
    features: tuple[str, ...]
    classes: list[tuple[str, ...]] | None  # [n], of each reading: none, one, or an answer's symbols


def unfolded(table: Frame, data: DataSection, model: dict[str, Any], ignored: Sequence[str]) -> Rows:
    """The readings of a table; `ignored` columns are no features. Raises WrongTable."""
    return _sentences(table, data, model) if data.text else _readings(table, data, model, ignored)


def _sentences(table: Frame, data: DataSection, model: dict[str, Any]) -> Rows:
    """Every row of the table is a sequence of symbols."""
    assert data.text is not None
    texts = [text.split() for text in table.words(data.text)]
    for row, symbols in enumerate(texts):
        if not symbols:
            raise table.wrong(row, data.text, "an empty sequence: take the row out")
    counts = np.array([len(symbols) for symbols in texts])
    line = np.repeat(np.arange(len(texts)), counts)
    end = np.zeros(len(line), np.bool_)
    end[np.cumsum(counts) - 1] = True
    classes: list[tuple[str, ...]] | None = None
    if data.tags:
        classes = []
        for row, (tags, symbols) in enumerate(zip(map(str.split, table.words(data.tags)), texts, strict=True)):
            if len(tags) != len(symbols):
                raise table.wrong(row, data.tags, f"{len(tags)} tags for {len(symbols)} symbols; want as many")
            classes += [(tag,) for tag in tags]
    elif (column := data.label or data.answer) is not None:
        answers = [tuple(cell.split()) if data.answer else (cell,) for cell in table.words(column)]
        classes = [answers[row] if last else () for row, last in zip(line.tolist(), end.tolist(), strict=True)]
    interval_ms = _interval_ms(model)
    stream = line if data.stream is None else np.array(table.words(data.stream), object)[line]
    return Rows(table, line, stream, interval_ms * np.arange(len(line)), end, [s for one in texts for s in one], None,
                (SYMBOL,), classes)  # fmt: skip


def _readings(table: Frame, data: DataSection, model: dict[str, Any], ignored: Sequence[str]) -> Rows:
    n = len(table)
    interval_ms = _interval_ms(model)
    at_ms = interval_ms * np.arange(n) if data.time is None else table.times(data.time)
    stream = np.array(table.words(data.stream) if data.stream else [table.path.stem] * n, object)
    end = table.flags(data.end) if data.end else np.zeros(n, np.bool_)
    symbols, x = None, None
    features: tuple[str, ...] = (SYMBOL,)
    if data.symbol:
        symbols = table.words(data.symbol)
    else:
        given = data.features or tuple(model.get("features") or ())
        features = tuple(table.matching(given) if given else _numeric(table, data, ignored))
        x = np.stack([table.numbers(name) for name in features], axis=1)
    classes: list[tuple[str, ...]] | None = None
    if data.label:
        classes = [(word,) if word else () for word in table.words(data.label)]
    elif data.answer:
        classes = [tuple(word.split()) for word in table.words(data.answer)]
    return Rows(table, np.arange(n), stream, at_ms, end, symbols, x, features, classes)


def _interval_ms(model: dict[str, Any]) -> int:
    """Time between two rows without a time of their own."""
    given = model.get("interval_s", 1.0)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0.001 <= given < 1e9:
        raise WrongTable(f"model.interval_s: wants a number of seconds; got {given!r}")
    return round(1000 * given)


def _numeric(table: Frame, data: DataSection, ignored: Sequence[str]) -> list[str]:
    """Columns of numbers that nothing else is said of. A column with a number in every other cell is meant to be one:
    raises WrongTable for what else is in it.
    """
    told = {*ignored, data.time, data.stream, data.end, data.label, data.answer, *table.matching(data.truth)}
    found = []
    for name in map(str, table.cells.columns):
        if name not in told:
            try:
                table.numbers(name)
            except WrongTable:
                if table.share_of_numbers(name) >= 0.5:
                    raise
                continue
            found.append(name)
    if not found:
        raise WrongTable(f"{table.path}: no column of numbers; name the features or the symbol under data")
    return found


def by_stream(rows: Rows) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each stream with its readings in time order; streams as they first appear."""
    number: dict[Any, int] = {}
    of = np.array([number.setdefault(name, len(number)) for name in rows.stream.tolist()], np.int64)
    order = np.lexsort((rows.at_ms, of))  # stable: readings of one time stay as they stand
    edges = np.flatnonzero(np.diff(of[order])) + 1
    yield from zip(map(str, number), np.split(order, edges), strict=True)
