"""What a training file names, as series: its tables, or data that `streamrnn datasets` lists. Imports numpy and rnn."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.train.dataset import LabeledSeries
from rnn.train.recipe import default_config
from services.datasets.catalogue import DATA_SETS, series_of
from services.datasets.labelled import SEGLEARN, watch
from services.datasets.series import Series, cache_folder
from services.datasets.table_sets import TABLE_SETS
from services.settings.training import DataSection
from services.tables.data_warnings import tell
from services.tables.table_dataset import TableDataset, ends, material, material_in
from services.tables.table_reader import WrongTable, frame


def material_of(
    data: DataSection, model: dict[str, Any], test: bool = False, cache: Path | None = None
) -> TableDataset:
    """The series to learn from, or with `test` those that only test. Raises WrongTable, and DataUnavailable."""
    if data.set is None:
        if test and data.test is None:
            raise WrongTable("data.test: name the table to run on")
        known = material(data, model, data.file).config if test else None
        return material(data, model, data.test if test else data.file, known)
    if data.set in TABLE_SETS:
        folder = cache_folder(cache) / "tables" / data.set
        train, judged = TABLE_SETS[data.set].make(cache).write(folder)
        return material_of(data.model_copy(update={"set": None, "file": train, "test": judged}), model, test)
    if data.set == "watch":
        return recordings(data, model, test, cache)
    if data.set not in DATA_SETS:
        known_sets = [*DATA_SETS, *TABLE_SETS]
        near = difflib.get_close_matches(data.set, known_sets, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known_sets)}"
        raise WrongTable(f"data.set: there is no {data.set!r}; {hint}")
    return _forecasting(series_of(data.set, cache)[0], data, model, test)


def series_in(path: Path, time: str, stream: str | None, ignored: Sequence[str] = ()) -> list[Series]:
    """The table's series to forecast, a stream each: every column of numbers that nothing else is said of. Raises
    WrongTable.
    """
    return labelled_series_in(path, time, stream, None, ignored)[0]


def labelled_series_in(
    path: Path, time: str, stream: str | None, label: str | None, ignored: Sequence[str] = ()
) -> tuple[list[Series], list[NDArray[np.bool_]] | None]:
    """As `series_in`, and of each series which readings the column `label` calls anomalous, with 1 or true. Neither
    that column nor the `ignored` ones are read as features. Raises WrongTable.
    """
    data = DataSection(time=time, stream=stream)
    table = frame(path, [stream] if stream else [])
    told = [*table.matching(ignored), *([label] if label else [])]
    flags = table.flags(label) if label else None
    made = material_in(table, data, {}, None, told)
    features, interval_s = made.config.features, made.config.interval_s
    if label:
        marks = [name for name in features if _marks(table.numbers(name))]
        if marks:
            remedy = f"if it is a label, too, leave it out with --ignore {','.join(marks)}"
            tell([f"{path}: column {marks[0]!r} is read as a feature, but holds only 0 and 1: {remedy}"])
    series = [
        Series(name, features, interval_s, one.at_ms, one.x, made.digest, str(path))
        for name, one in zip(made.streams, made.series, strict=True)
    ]
    return series, None if flags is None else [flags[rows] for rows in made.rows]


def _marks(x: NDArray[np.float32]) -> bool:
    return set(np.unique(x[~np.isnan(x)]).tolist()) <= {0.0, 1.0}


def only(data: DataSection, keys: Collection[str]) -> None:
    """Raises WrongTable where the section has other keys than these, which would be passed over."""
    for key, field in DataSection.model_fields.items():
        if key not in keys and getattr(data, key) != field.default:
            raise WrongTable(f"data.{key}: means nothing here, where there is {', '.join(keys)}; leave it out")


def recordings(data: DataSection, model: dict[str, Any], test: bool, cache: Path | None = None) -> TableDataset:
    """The labelled recordings `watch`, of the test groups or of all others. Raises WrongTable for a group that is none,
    DataUnavailable.
    """
    only(data, ("set", "test_groups", "window"))
    found = watch(cache)
    groups = {one.group for one in found}
    if strange := sorted(set(data.test_groups) - groups):
        raise WrongTable(f"data.test_groups: {strange[0]!r} is none of {', '.join(sorted(groups))}")
    chosen = [one for one in found if (one.group in data.test_groups) == test]
    if not chosen:
        raise WrongTable("data.test_groups: leaves no recordings " + ("to test with" if test else "to learn from"))
    tree = {"features": found[0].features, "labels": found[0].labels, "head": "categorical", "predicts": "now",
            "interval_s": found[0].interval_s}  # fmt: skip
    config = _config(tree | model)
    series = []
    for one in chosen:
        end = np.zeros(len(one.x), np.bool_)
        end[-1] = True
        truth = one.label.astype(np.float32)[:, None]
        series.append(LabeledSeries(one.x, one.at_ms, ends(end, data.window).astype(np.uint8), truth))
    names = tuple(one.name for one in chosen)
    return TableDataset(config, tuple(series), names, SEGLEARN.sha256, groups=tuple(one.group for one in chosen))


def _forecasting(series: Series, data: DataSection, model: dict[str, Any], test: bool) -> TableDataset:
    """A series whose later readings are the truth; its last part tests."""
    only(data, ("set", "test_share", "window"))
    cut = len(series) - int(len(series) * data.test_share)
    part = slice(cut, None) if test else slice(0, cut)
    x, at_ms = np.array(series.x[part]), np.array(series.at_ms[part])
    if model:
        config = _config({"features": series.features, "interval_s": series.interval_s, **model})
    else:
        config = default_config(series.features, series.interval_s, (), cut)
    if config.features != series.features:
        raise WrongTable(f"model.features: {data.set} has {', '.join(series.features)}")
    none = np.zeros((len(x), 0), np.float32)
    one = LabeledSeries(x, at_ms, ends(np.zeros(len(x), np.bool_), data.window).astype(np.uint8), none)
    return TableDataset(config, (one,), (series.name,), series.digest)


def _config(tree: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.from_tree(tree)
    except (ValueError, TypeError) as error:
        raise WrongTable(f"model: {error}") from None
