"""Data by name in a training file, and what `streamrnn backtest` makes of names, files and shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from serving import streamrnn

from services.backtest.forecast import BacktestPlan, backtest
from services.datasets import DataUnavailable
from services.datasets.catalogue import DATA_SETS, series_of
from services.settings.problems import WrongSettings
from services.settings.training import DataSection, training_file
from services.tables.sets import material_of
from services.tables.table_dataset import ends
from services.tables.table_reader import WrongTable

ROOT = Path(__file__).parents[2]
NOW = {"task": "many-to-one", "predicts": "now"}


def test_every_series_that_is_listed_is_what_the_list_says() -> None:
    for name, about in DATA_SETS.items():
        found = series_of(name)
        assert len(found) == about.streams, name
        assert sum(map(len, found)) == about.rows and len(found[0].features) == about.channels, name
        assert found[0].interval_s == pytest.approx(about.interval_s), name
    with pytest.raises(DataUnavailable, match="did you mean 'appliances'"):
        series_of("aplliances")


def test_a_series_is_cut_in_time_and_recordings_by_whose_they_are() -> None:
    data = DataSection(set="beijing-pm25", test_share=0.25)
    early, late = material_of(data, {}), material_of(data, {}, test=True)
    assert early.readings == 43_824 - 10_956 and late.readings == 10_956
    assert early.series[0].at_ms[-1] < late.series[0].at_ms[0]
    watch = DataSection(set="watch", test_groups=("subject-1", "subject-6"), window=100)
    early, late = material_of(watch, NOW), material_of(watch, NOW, test=True)
    assert set(late.groups) == {"subject-1", "subject-6"} and not set(early.groups) & set(late.groups)
    whole = late.series[0]
    assert np.diff(np.flatnonzero(whole.end))[0] == 100 and whole.end[-1] == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (DataSection(set="watsh"), "did you mean 'watch'"),
        (DataSection(set="watch", test_groups=("kim",)), "'kim' is none of subject-1"),
        (DataSection(set="watch", features=("ax",)), "data.features: means nothing here"),
        (DataSection(set="beijing-pm25", time="at"), "data.time: means nothing here"),
        (DataSection(), "data.file: name the table"),
    ],
)
def test_what_is_not_there_is_named(data: DataSection, sentence: str) -> None:
    with pytest.raises(WrongTable, match=sentence):
        material_of(data, NOW)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ("{set: watch, file: a.csv}", "set and file do not go together"),
        ("{file: a.csv, symbol: w, features: [x]}", "symbol and features do not go together"),
        ("{file: a.csv, text: t, time: at}", "text and time do not go together"),
        ("{file: a.csv, label: a, truth: [b]}", "label and truth do not go together"),
        ("{file: a.csv, tags: a}", "tags means something beside text only"),
        ("{file: a.csv, test_share: 0.3}", "test_share means something beside set only"),
    ],
)
def test_a_key_that_would_be_passed_over_is_refused(section: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(f"data: {section}\n")
    with pytest.raises(WrongSettings, match=sentence):
        training_file(path)


def test_a_window_ends_sequences_that_do_not_end_themselves() -> None:
    given = np.array([0, 0, 1, 0, 0, 0, 0, 0], bool)
    assert ends(given, 2).tolist() == [False, True, True, False, True, False, True, False]
    assert ends(given, 0).tolist() == given.tolist()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["entities"], "entities: sequences want a network, with --config FILE"),
        (["--config", "CONFIG", "--train", "0.5"], "--train/--test: is for forecasts of the next reading"),
        (["--config", "CONFIG", "--target", "a"], "--target: is for forecasts of the next reading"),
        (["t.csv", "--config", "CONFIG"], "of a network that does not forecast"),
        ([], "name a series, or a file with --config"),
    ],
)
def test_backtest_says_what_it_wants(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    config = str(ROOT / "examples" / "entities" / "config.yaml")
    done = streamrnn("backtest", *(config if one == "CONFIG" else one for one in arguments))
    assert done.returncode == 1 and sentence in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stderr


def test_a_plain_forecast_of_two_files_is_tested_on_the_second_one(tmp_path: Path) -> None:
    random = np.random.default_rng(20_261_125)
    for name, n in (("train", 3000), ("test", 500)):
        flow = np.cumsum(random.normal(size=n))
        rows = "\n".join(f"{1000 * t},{x:.4f}" for t, x in enumerate(flow))
        (tmp_path / f"{name}.csv").write_text(f"at,flow\n{rows}\n")
    config = tmp_path / "c.yaml"
    config.write_text(
        "model: {hidden: 4, linear: 2}\nrecipe: {updates: 10}\ndata: {file: train.csv, test: test.csv, time: at}\n"
    )
    done = streamrnn("backtest", "--config", str(config))
    assert done.returncode == 0, done.stderr
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert said["readings"] == "500" and float(said["persistence_mse"]) > 0 and float(said["mse"]) > 0
    assert training_file(config).data.test == tmp_path / "test.csv"


def test_backtest_answers_for_the_targets_that_the_file_names(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("model: {targets: [trunk_vert], hidden: 4, linear: 2}\nrecipe: {updates: 10}\n"
                      "data: {set: daphnet, test_share: 0.1}\n")  # fmt: skip
    done = streamrnn("backtest", "--config", str(config), "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert list(figures["targets"]) == ["trunk_vert"] and figures["readings"] == 704
    config.write_text("model: {targets: [trunk], hidden: 4}\ndata: {set: daphnet}\n")
    done = streamrnn("backtest", "--config", str(config))
    assert done.returncode == 1 and "targets: 'trunk' is not a feature" in done.stderr.replace("\n", " ")


def test_recordings_are_short_and_can_be_forecast_all_the_same(tmp_path: Path) -> None:
    series = series_of("watch")[:6]
    plan = BacktestPlan(model={"hidden": 4, "linear": 2}, recipe={"updates": 10})
    figures, runs = backtest(series, plan, tmp_path / "model")
    assert len(runs) == 6 and figures["readings"] == sum(int(len(one) * 0.2) for one in series)


def test_a_table_on_the_command_line_takes_the_place_of_the_files_data(tmp_path: Path) -> None:
    flow = np.cumsum(np.random.default_rng(1).normal(size=3000))
    (tmp_path / "mine.csv").write_text(
        "at,flow\n" + "\n".join(f"{1000 * t},{x:.4f}" for t, x in enumerate(flow)) + "\n"
    )
    config = tmp_path / "c.yaml"
    config.write_text("model: {hidden: 4, linear: 2}\nrecipe: {updates: 10, seed: 7}\ndata: {set: daphnet}\n")
    asked = ["--time", "at", "--config", str(config)]
    done = streamrnn("train", str(tmp_path / "mine.csv"), *asked, "--out", str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    assert "3,000 readings of 1 streams" in done.stdout and "flow" in done.stdout
    ids = set()
    for more in ([], ["--seed", "7"], ["--seed", "8"]):  # the file's own seed counts where none is named
        tested = streamrnn("backtest", str(tmp_path / "mine.csv"), *asked, "--json", *more)
        ids.add(json.loads(tested.stdout)["model"])
    assert len(ids) == 2


def test_a_file_without_a_test_part_has_nothing_to_run_on(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("w,k\na,x\nb,y\n")
    with pytest.raises(WrongTable, match=r"data\.test: name the table to run on"):
        material_of(DataSection(file=tmp_path / "a.csv", symbol="w", label="k"), {"task": "one-to-one"}, test=True)
