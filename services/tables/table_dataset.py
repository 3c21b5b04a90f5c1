"""From a table to what a network learns from or predicts: series, and the config that fits them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn.config import SPECIALS, ModelConfig
from rnn.train.dataset import LabeledSeries, truth_width
from rnn.train.recipe import default_config
from services.codecs.readings_write import encode
from services.settings.training import DataSection
from services.tables.data_warnings import look_at_targets, look_at_times, refuse_empty, tell
from services.tables.rows import Rows, by_stream, unfolded
from services.tables.table_reader import Frame, WrongTable, frame


@dataclass(frozen=True, slots=True)
class TableDataset:
    """Series of one table."""

    config: ModelConfig
    series: tuple[LabeledSeries, ...]
    streams: tuple[str, ...]  # names of the series
    digest: str  # sha256 of the source, hex
    rows: tuple[NDArray[np.int64], ...] = ()  # of each series the row of the table that each reading stands in
    words: tuple[list[str], ...] = ()  # of each series the symbols as they stand there; none where it has numbers
    groups: tuple[str, ...] = ()  # whose each series is, where that is known

    @property
    def readings(self) -> int:
        """In all series."""
        return sum(map(len, self.series))


def material(
    data: DataSection,
    model: dict[str, Any],
    path: Path | None,
    known: ModelConfig | None = None,
    ignored: Sequence[str] = (),
) -> TableDataset:
    """The series in the table at `path`. `model` are fields of ModelConfig; what it leaves out (features, vocabulary,
    labels, targets, horizon, interval) comes from the table. With `known` the config is that one: a symbol that it does
    not have is unknown, a class that it does not have is refused. The columns `ignored` are no features.

    Raises WrongTable, naming file, line and column; and for a config that is none. Warns of an Oddity.
    """
    if path is None:
        raise WrongTable("data.file: name the table to read")
    return material_in(frame(path, _words(data)), data, model, known, ignored)


def material_in(
    table: Frame, data: DataSection, model: dict[str, Any], known: ModelConfig | None, ignored: Sequence[str]
) -> TableDataset:
    """As `material`, of a table that has been read."""
    path, rows = table.path, unfolded(table, data, model, ignored)
    config = known or _config(rows, data, model)
    series, names, lines, words, odd = [], [], [], [], []
    truth = _truth(rows, data, config, strange_words=known is not None and config.decodes)
    x = _x(rows, config)
    if rows.symbols is None and known is None:
        refuse_empty(table, rows.features, x)
        if not config.labels:
            odd += look_at_targets(table, config.targets, truth if data.truth else x[:, [*config.target_index]])
    for name, mine in by_stream(rows):
        if data.time is not None:
            numbers = None if rows.symbols is not None else x[mine]
            odd += look_at_times(table, data.time, rows.line[mine], rows.at_ms[mine], numbers, name, known is None)
        if not 0 < len(name.encode()) <= 256:
            what = "names no stream" if not name else "a stream's name has at most 256 bytes"
            raise rows.frame.wrong(int(rows.line[mine[0]]), data.stream or "", what)
        end = rows.end[mine]
        if data.end is None and data.text is None and _answered_whole(config):
            end[-1] = True
        end = ends(end, data.window)
        lengths = np.diff(np.append(-1, np.flatnonzero(np.append(end[:-1], True))))
        if known is None and config.max_length and config.recurrent and int(lengths.max()) > config.max_length:
            raise WrongTable(
                f"{path}: stream {name!r} has a sequence of {int(lengths.max())} readings, more than max_length "
                f"{config.max_length}: raise it, or cut the sequence"
            )
        series.append(LabeledSeries(x[mine], rows.at_ms[mine], end.astype(np.uint8), truth[mine]))
        names.append(str(name))
        lines.append(rows.line[mine])
        if rows.symbols is not None:
            words.append([rows.symbols[place] for place in mine.tolist()])
    tell(odd)
    return TableDataset(config, tuple(series), tuple(names), rows.frame.digest, tuple(lines), tuple(words))


def records(material: TableDataset) -> Iterator[tuple[bytes, list[bytes]]]:
    """(key, values) of each series, as its sensor would write them."""
    words = material.words or [None] * len(material.series)
    for name, one, its in zip(material.streams, material.series, words, strict=True):
        yield name.encode(), encode(one.x, one.at_ms, one.end, its)


def ends(end: NDArray[np.bool_], window: int) -> NDArray[np.bool_]:
    """Where sequences end [n], those cut that have more than `window` readings; 0 = none is."""
    if not window:
        return end
    begun = np.maximum.accumulate(np.where(np.append(True, end[:-1]), np.arange(len(end)), 0))
    cut: NDArray[np.bool_] = end | ((np.arange(len(end)) - begun) % window == window - 1)
    return cut


def _answered_whole(config: ModelConfig) -> bool:
    return config.task == "many-to-one" or (config.task == "encoder-decoder" and bool(config.labels))


def _words(data: DataSection) -> list[str]:
    """Columns whose cells are names, whatever they look like."""
    named = (data.stream, data.symbol, data.text, data.label, data.tags, data.answer)
    return [name for name in named if name is not None]


# ---- config ---------------------------------------------------------------------------------------------------------


def _config(rows: Rows, data: DataSection, model: dict[str, Any]) -> ModelConfig:
    if not model and rows.symbols is None and rows.classes is None and not data.truth:
        return default_config(rows.features, _interval_s(rows), (), len(rows.line))
    tree = dict(model)
    if rows.symbols is not None:
        tree.pop("features", None)
        tree.setdefault("vocabulary", _common(Counter(rows.symbols), data.min_count))
        if not tree["vocabulary"] and "vocabulary" not in model:
            raise WrongTable(f"{rows.frame.path}: no symbol is there {data.min_count} times, as data.min_count asks")
    else:
        tree["features"] = rows.features
    if rows.classes is not None:
        said = Counter(word for one in rows.classes for word in one)
        if not said:
            raise WrongTable(f"{rows.frame.path}: column {data.label or data.tags or data.answer!r} names no class")
        if len(said) == 1 and not data.answer and "labels" not in tree:
            raise WrongTable(
                f"{rows.frame.path}: column {data.label or data.tags!r} has one class only, {next(iter(said))!r}"
            )
        tree.setdefault("labels", _common(said, 1) if data.answer else tuple(sorted(said)))
        tree.setdefault("head", "categorical")
        tree.setdefault("predicts", "now")
        if data.answer:
            tree.setdefault("horizon", max(map(len, rows.classes)) + 1)
    elif data.truth:
        columns = rows.frame.matching(data.truth)
        if "targets" not in tree and int(tree.get("horizon", 1)) == len(columns) > 1:
            tree["targets"] = (re.sub(r"[_\W\d]+$", "", columns[0]) or "target",)
        tree.setdefault("targets", columns)
        tree.setdefault("predicts", "now")
    tree.setdefault("interval_s", _interval_s(rows))
    try:
        return ModelConfig.from_tree(tree)
    except (ValueError, TypeError) as error:
        raise WrongTable(f"model: {error}") from None


def _common(counts: Counter[str], least: int) -> tuple[str, ...]:
    """Most frequent first; equally frequent ones in their own order."""
    words = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(word for word, count in words if word and count >= least and word not in SPECIALS)


def _interval_s(rows: Rows) -> float:
    """Usual time between two readings of a stream."""
    gaps = np.concatenate([np.diff(rows.at_ms[mine]) for _, mine in by_stream(rows)])
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) / 1000 if len(gaps) else 1.0


# ---- numbers --------------------------------------------------------------------------------------------------------


def _x(rows: Rows, config: ModelConfig) -> NDArray[np.float32]:
    if rows.symbols is None:
        if config.symbolic or rows.features != config.features:
            wanted = "a symbol" if config.symbolic else ", ".join(config.features)
            raise WrongTable(f"{rows.frame.path}: the model reads {wanted}, the table has {', '.join(rows.features)}")
        assert rows.x is not None
        return rows.x
    if not config.symbolic:
        raise WrongTable(f"{rows.frame.path}: the model reads {', '.join(config.features)}, not symbols")
    number = {word: place for place, word in enumerate(config.vocabulary, len(SPECIALS))}
    known = [number.get(word, 0) if word else np.nan for word in rows.symbols]
    return np.array(known, np.float32).reshape(-1, 1)


STRANGE = -1.0
"""Class of a word that a model cannot say; in truths to be judged by, never in those to learn from."""


def _truth(rows: Rows, data: DataSection, config: ModelConfig, strange_words: bool) -> NDArray[np.float32]:
    """[n, width], NaN = unknown."""
    width = truth_width(config)
    truth = np.full((len(rows.line), width), np.nan, np.float32)
    if not width:
        return truth
    if config.labels:
        if rows.classes is None:
            return truth
        number = {word: place for place, word in enumerate(config.labels)}
        column = data.tags or data.label or data.answer or ""
        for row, words in enumerate(rows.classes):
            if len(words) > width and strange_words:
                words = words[:width]
            if len(words) > width:
                raise rows.frame.wrong(
                    int(rows.line[row]), column, f"an answer of {len(words)} symbols; model.horizon is {width}"
                )
            for place, word in enumerate(words):
                if word not in number and strange_words:
                    truth[row, place] = STRANGE
                    continue
                if word not in number:
                    raise rows.frame.wrong(
                        int(rows.line[row]), column, f"{word[:40]!r} is none of the classes {_some(config.labels)}"
                    )
                truth[row, place] = number[word]
        return truth
    if not data.truth:
        return truth
    columns = rows.frame.matching(data.truth)
    if len(columns) != width:
        raise WrongTable(
            f"{rows.frame.path}: data.truth names {len(columns)} columns, but the model says {config.horizon} steps of "
            f"{len(config.targets)} targets"
        )
    return np.stack([rows.frame.numbers(name) for name in columns], axis=1)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
