"""Every example, in a small form: it is learned, run online, killed on the way, and its page says what is there."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from rnn.io import weights
from rnn.train.learn import learn
from services.backtest.sequences import figures
from services.datasets.table_sets import TABLE_SETS
from services.driver import StreamDriver
from services.records import Role
from services.settings.training import TrainingFile, training_file
from services.tables.recipes import recipe_of
from services.tables.sets import material_of
from services.tables.table_dataset import TableDataset, records

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.relative_to(ROOT / "examples").as_posix() for path in (ROOT / "examples").glob("*/*.yaml"))
QUICK = {"updates": 6, "least_passes": 1, "lanes": 8, "sequences": 16, "lane_steps": 128, "burn_in": 4, "window": 32}
SHAPES = {"one-to-one", "one-to-many", "many-to-one", "many-to-many", "encoder-decoder"}


def small(plan: TrainingFile, folder: Path) -> tuple[TableDataset, TableDataset]:
    """A little of what the example learns from, and of what it is tested on."""
    name = plan.data.set
    if name in TABLE_SETS:
        train, test = TABLE_SETS[name].make(None).first(800).write(folder / "data")
        data = plan.data.model_copy(update={"set": None, "file": train, "test": test})
        return material_of(data, plan.model), material_of(data, plan.model, test=True)
    parts = []
    for test, rows in ((False, 1600), (True, 300)):
        whole = material_of(plan.data, plan.model, test)
        step = max(1, len(whole.series) // 12)
        chosen = range(0, len(whole.series), step)
        each = rows // len(chosen)
        series = []
        for one in (whole.series[number] for number in chosen):
            cut = {field.name: getattr(one, field.name)[:each].copy() for field in dataclasses.fields(one)}
            cut["end"][-1] = one.end[-1]
            series.append(dataclasses.replace(one, **cut))
        names, groups = (tuple(all_[k] for k in chosen) if all_ else () for all_ in (whole.streams, whole.groups))
        parts.append(dataclasses.replace(whole, series=tuple(series), streams=names, groups=groups))
    return parts[0], parts[1]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_learned_served_and_killed(example: str, tmp_path: Path) -> None:
    plan = training_file(ROOT / "examples" / example)
    early, late = small(plan, tmp_path)
    recipe = recipe_of({**plan.recipe, **QUICK}, early.config, early.readings, 0)
    learned = learn(early.config, early.series, recipe, groups=early.groups)
    weights.save(tmp_path / "model", learned.network, created_ms=0)

    found = figures(tmp_path / "model", late)
    numbers = [value for value in found.values() if isinstance(value, float)]
    assert numbers and all(map(math.isfinite, numbers)), found
    ends = sum(int((one.end > 0).sum()) for one in late.series)
    assert found["predictions"] == (ends if early.config.at_end else late.readings)

    assert served(tmp_path / "model", late, kills=3) == served(tmp_path / "model", late, kills=0)


def served(folder: Path, material: TableDataset, kills: int) -> dict[bytes | None, list[bytes | None]]:
    """What is said of each stream; the shard dies `kills` times, once with an epoch begun and not committed."""
    driver = StreamDriver(folder, slots=16, max_readings=50, flush_after_ms=60_000)
    given = [(key, value) for key, values in records(material) for value in values]
    cuts = np.linspace(0, len(given), kills + 2).astype(int)
    for begin, after in itertools.pairwise(cuts.tolist()):
        for key, value in given[begin:after]:
            driver.send_record(key, value, partition=0)
        driver.turn()  # part of what is there
        if kills:
            driver.crash()
        driver.run()
    driver.advance(60_001)
    driver.turn()
    made = driver.broker.records(Role.PREDICTIONS, 0)
    said: dict[bytes | None, list[bytes | None]] = {}
    for key, value in zip(made.keys, made.values, strict=True):
        said.setdefault(key, []).append(value)
    return said


def test_there_is_an_example_of_every_shape_with_numbers_and_with_symbols() -> None:
    shapes = set()
    for example in EXAMPLES:
        plan = training_file(ROOT / "examples" / example)
        symbols = bool(plan.data.symbol or plan.data.text or plan.data.answer)
        shapes.add((str(plan.model.get("task", "many-to-many")), symbols))
    assert shapes == {(shape, symbols) for shape in SHAPES for symbols in (False, True)}


@pytest.mark.parametrize("folder", sorted({example.partition("/")[0] for example in EXAMPLES}))
def test_an_example_has_a_page_of_one_screen(folder: str) -> None:
    text = (ROOT / "examples" / folder / "README.md").read_text()
    assert len(text.splitlines()) <= 60
    named = re.findall(rf"examples/{folder}/[\w.-]+\.yaml", text)
    assert {name.partition(f"{folder}/")[2] for name in named} == {
        path.name for path in (ROOT / "examples" / folder).glob("*.yaml")
    }
    overview = (ROOT / "examples" / "README.md").read_text()
    assert f"]({folder}/README.md)" in overview
    for path in (ROOT / "examples" / folder).glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["out"].startswith("model")  # which git ignores
