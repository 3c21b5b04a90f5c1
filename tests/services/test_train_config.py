"""`streamrnn train --config` and `predict`: every way a truth can stand in a table, and every way it can be wrong."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from serving import streamrnn
from typer.testing import CliRunner

from rnn.config import ModelConfig
from rnn.io import weights
from services.cli.main import app
from services.cli.train import train_model
from services.driver import StreamDriver
from services.settings.problems import WrongSettings
from services.settings.training import DataSection, training_file
from services.tables.recipes import recipe_of
from services.tables.table_dataset import material
from services.tables.table_reader import WrongTable

SEED = 20_261_124
QUICK = "recipe: {updates: 150, least_passes: 12, sequences: 32, patience: 1000}"


def sentences(path: Path, n: int = 300, seed: int = SEED) -> Path:
    """Whoever acts is named first: the mood says whether it was the cat."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        first, second = random.permutation(["cat", "mouse"])
        rows.append(f"the {first} chased the {second},{'good' if first == 'cat' else 'bad'},O A O O B")
    path.write_text("text,mood,tags\n" + "\n".join(rows) + "\n")
    return path


def config_file(folder: Path, model: str, data: str, more: str = QUICK) -> Path:
    path = folder / "config.yaml"
    path.write_text(f"model: {model}\ndata: {data}\n{more}\nout: model\n")
    return path


def test_word_order_is_learned_from_a_table_served_and_predicted_alike(tmp_path: Path) -> None:
    sentences(tmp_path / "train.csv")
    sentences(tmp_path / "test.csv", 40, SEED + 1)
    config = config_file(
        tmp_path,
        "{task: many-to-one, predicts: now, hidden: 16}",
        "{file: train.csv, test: test.csv, text: text, label: mood}",
    )
    trained = streamrnn("train", "--config", str(config), "--seed", "3")
    assert trained.returncode == 0, trained.stderr
    assert "100.0% right" in trained.stdout
    assert (tmp_path / "model" / "learning-curve.png").stat().st_size > 5_000
    _, card = weights.load(tmp_path / "model")
    assert card.config.labels == ("bad", "good") and set(card.config.vocabulary) == {"the", "cat", "chased", "mouse"}
    again = streamrnn("train", "--config", str(config), "--seed", "3", "--out", str(tmp_path / "again"))
    assert again.returncode == 0 and weights.load(tmp_path / "again")[1].sha256 == card.sha256

    tested = streamrnn("backtest", "--config", str(config), "--json")
    figures = json.loads(tested.stdout)
    assert figures["accuracy"] == 1.0 and figures["predictions"] == 40

    out = tmp_path / "said.parquet"
    model = str(tmp_path / "model")
    done = streamrnn("predict", str(tmp_path / "test.csv"), "--model", model, "--text", "text", "--out", str(out))
    assert done.returncode == 0, done.stderr
    said, truth = pd.read_parquet(out), pd.read_csv(tmp_path / "test.csv")
    assert said["label"].tolist() == truth["mood"].tolist()
    assert (said["flags"].str.contains("ended")).all()

    driver = StreamDriver(tmp_path / "model")  # the numbers of the server, bit for bit
    for row, text in enumerate(truth["text"]):
        words = text.split()
        for place, word in enumerate(words):
            driver.send(str(row), 1000 * (len(words) * row + place), word, end=place == len(words) - 1)
    driver.run()
    for row in range(len(truth)):
        (served,) = driver.predictions(str(row))
        assert served.top is not None
        assert served.top[0] == (said["label"][row], pytest.approx(said["prob_1"][row], abs=1e-7))


def test_a_plain_file_of_numbers_still_needs_no_config(tmp_path: Path) -> None:
    random = np.random.default_rng(SEED)
    flow = np.cumsum(random.normal(size=3200))
    path = tmp_path / "pumps.csv"
    path.write_text("at,flow,name\n" + "\n".join(f"{1000 * t},{x:.4f},p" for t, x in enumerate(flow)) + "\n")
    config = tmp_path / "c.yaml"
    config.write_text("model: {hidden: 8, linear: 2}\nrecipe: {updates: 20}\ndata: {time: at}\n")
    done = streamrnn("train", str(path), "--config", str(config), "--out", str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    model = str(tmp_path / "model")
    said = streamrnn("predict", str(path), "--model", model, "--time", "at", "--out", str(tmp_path / "y.csv"))
    assert said.returncode == 0, said.stderr
    table = pd.read_csv(tmp_path / "y.csv")
    assert list(table.columns) == ["row", "stream", "at", "flow", "flow_lo", "flow_hi", "score", "flags"]
    assert len(table) == 3200
    inside = (table["flow_lo"].to_numpy()[:-1] <= flow[1:]) & (flow[1:] <= table["flow_hi"].to_numpy()[:-1])
    assert 0.7 < inside.mean() < 0.9


DATA_MISTAKES = {
    "{file: t.csv, text: txt, label: mood}": "did you mean 'text'",
    "{file: t.csv, text: text, label: mood, lable: x}": "nearest is 'label'",
    "{file: t.csv, text: text, tags: short}": "line 3, column 'short': 1 tags for 2 symbols",
    "{file: t.csv, text: gaps, label: mood}": "line 3, column 'gaps': an empty sequence",
    "{file: none.csv, text: text}": "none.csv: cannot be read",
    "{text: text}": "data.file",
    "{file: t.csv, features: [mood]}": "line 2, column 'mood': 'good' is not a number",
    "{file: t.csv, time: mood, symbol: text}": "line 2, column 'mood': 'good' is neither",
}


@pytest.mark.parametrize("data", DATA_MISTAKES)
def test_a_wrong_table_is_named_with_line_and_column(tmp_path: Path, data: str) -> None:
    (tmp_path / "t.csv").write_text("text,mood,short,gaps\na b,good,O O,a\nb a,bad,O,\n")
    path = config_file(tmp_path, "{task: many-to-one, predicts: now}", data)
    with pytest.raises((WrongTable, WrongSettings)) as told:
        _read(path)
    assert DATA_MISTAKES[data] in str(told.value)


def _read(config: Path) -> None:
    plan = training_file(config)
    material(plan.data, plan.model, plan.data.file)


def test_what_a_known_model_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("w,k\nx,one\ny,two\n")
    (tmp_path / "b.csv").write_text("w,k\nx,one\nz,two\n")
    (tmp_path / "c.csv").write_text("w,k\nx,three\n")
    data, model = DataSection(symbol="w", label="k"), {"task": "one-to-one", "predicts": "now"}
    config = material(data, model, tmp_path / "a.csv").config
    (other,) = material(data, model, tmp_path / "b.csv", config).series
    assert other.x[:, 0].tolist() == [3.0, 0.0]  # a symbol that is not known, is <unknown>
    with pytest.raises(WrongTable, match=r"c.csv: line 2, column 'k': 'three' is none of the classes one, two"):
        material(data, model, tmp_path / "c.csv", config)
    (tmp_path / "d.csv").write_text("v\n1\n")
    with pytest.raises(WrongTable, match="the model reads a symbol"):
        material(DataSection(), model, tmp_path / "d.csv", config)


def test_a_sequence_that_is_too_long_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,k\na b c,one\na,two\n")
    model = {"task": "many-to-one", "predicts": "now", "max_length": 2}
    with pytest.raises(WrongTable, match="3 readings, more than max_length 2"):
        material(DataSection(text="text", label="k"), model, tmp_path / "a.csv")


def test_mistakes_of_the_recipe_and_the_model_name_the_nearest_key(tmp_path: Path) -> None:
    sentences(tmp_path / "t.csv", 40)
    data = "{file: t.csv, text: text, label: mood}"
    for model, more, hint in (
        ("{task: many-to-one, predicts: now}", "recipe: {update: 3}", "the nearest is 'updates'"),
        ("{task: many-to-one, predicts: now}", "recipe: {updates: many}", "'many' is not a whole number of at least 1"),
        (
            "{task: many-to-one, predicts: now}",
            "recipe: {learning_rate: 1e-3, validation: 1}",
            "1 is not a number from",
        ),
        ("{task: many-to-one, predicts: now}", "recipe: {updates: null}", "recipe.updates: null is not a whole number"),
        ("{task: many-to-one, predicts: now}", "recipe: {averaging: null}", "recipe.averaging: null is not a number"),
        ("{task: many-to-one, predicts: now, hiden: 3}", "", "the nearest known one is 'hidden'"),
        ("{task: many-to-two}", "", "the nearest is 'many-to-one'"),
    ):
        done = streamrnn("train", "--config", str(config_file(tmp_path, model, data, more)))
        assert done.returncode != 0 and hint in done.stderr.replace("\n", " "), done.stderr
        assert "Traceback" not in done.stderr


def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    sentences(tmp_path / "train.csv", 400)
    data = "{file: train.csv, text: text, tags: tags}"
    more = "recipe: {updates: 400, sequences: 32, patience: 1000, seed: 7}"
    config = config_file(tmp_path, "{predicts: now, hidden: 8}", data, more)
    whole = streamrnn("train", "--config", str(config), "--out", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr

    checkpoint = tmp_path / ".model.checkpoint"
    command = [sys.executable, "-m", "services.cli.main", "train", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as training:
        while not checkpoint.exists():
            with suppress(subprocess.TimeoutExpired):
                training.wait(0.02)
                pytest.fail("it ended before its first checkpoint")
        training.send_signal(signal.SIGINT)
        _, told = training.communicate()
    assert training.returncode == 130
    assert "--resume goes on from" in told and "Traceback" not in told
    assert not (tmp_path / "model").exists()

    resumed = streamrnn("train", "--config", str(config), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert not checkpoint.exists()
    cards = [weights.load(tmp_path / name)[1] for name in ("whole", "model")]
    assert cards[0].sha256 == cards[1].sha256 and cards[0].scores == cards[1].scores


def test_a_checkpoint_of_another_training_is_not_gone_on_from(tmp_path: Path) -> None:
    sentences(tmp_path / "train.csv", 60)
    (tmp_path / ".model.checkpoint").write_bytes(b"something else")
    data = "{file: train.csv, text: text, tags: tags}"
    config = config_file(tmp_path, "{predicts: now, hidden: 4}", data, "recipe: {updates: 5, least_passes: 1}")
    refused = streamrnn("train", "--config", str(config), "--resume")
    assert refused.returncode == 1 and ".model.checkpoint" in refused.stderr and "Traceback" not in refused.stderr
    assert "is damaged: delete it, or train without --resume" in refused.stderr.replace("\n", " ")
    assert "safetensors" not in refused.stderr
    anew = streamrnn("train", "--config", str(config))
    assert anew.returncode == 0, anew.stderr
    assert f"deleting {tmp_path / '.model.checkpoint'}; --resume would have gone on from it" in anew.stderr
    assert not (tmp_path / ".model.checkpoint").exists()
    nothing = streamrnn("train", "--config", str(config), "--resume")
    assert nothing.returncode == 0, nothing.stderr
    assert f"nothing to resume at {tmp_path / '.model.checkpoint'}: training from the beginning" in nothing.stderr
    plain = streamrnn("train", "--config", str(config))
    assert plain.returncode == 0 and "resume" not in plain.stderr


def _small(folder: Path) -> Path:
    sentences(folder / "train.csv", 60)
    data = "{file: train.csv, text: text, tags: tags}"
    return config_file(folder, "{predicts: now, hidden: 4}", data, "recipe: {updates: 5, least_passes: 1}")


@pytest.mark.parametrize("out", [".", "train.csv", "train.csv/model", "/", "/proc/x"])
def test_where_no_model_can_lie_is_found_out_before_training(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _small(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rnn.train.learn.learn", lambda *_: pytest.fail("it trained"))
    done = CliRunner().invoke(app, ["train", "--config", str(config), "--out", out])
    assert isinstance(done.exception, weights.ModelNotSaved)
    assert "Errno" not in str(done.exception) and "\n" not in str(done.exception)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_may_be_trained_over_and_in_an_empty_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _small(tmp_path)
    (tmp_path / "here").mkdir()
    for _ in range(2):
        monkeypatch.chdir(tmp_path / "here")
        done = CliRunner().invoke(app, ["train", "--config", str(config), "--out", "."], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert {path.name for path in (tmp_path / "here").iterdir()} == {
            "card.json", "model.safetensors", "learning-curve.png"
        }  # fmt: skip


@pytest.mark.parametrize("resume", [False, None])
def test_only_a_training_that_can_be_gone_on_with_says_so_when_it_is_stopped(
    resume: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = training_file(_small(tmp_path))
    found = material(plan.data, plan.model, plan.data.file)
    kept: list[Path | None] = []

    def stopped(*given: Any) -> None:
        kept.append(given[4])
        (given[4] or tmp_path / ".model.checkpoint").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr("rnn.train.learn.learn", stopped)
    told = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        train_model(plan, found, tmp_path / "model", 0, resume, Console(file=told))
    assert kept == [None if resume is None else tmp_path / ".model.checkpoint"]
    assert ("--resume" in told.getvalue()) == (resume is not None)


def test_a_backtest_of_a_file_cannot_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _small(tmp_path)
    config.write_text(config.read_text().replace("file: train.csv", "file: train.csv, test: train.csv"))
    monkeypatch.setattr("rnn.train.learn.learn", _interrupted)
    done = CliRunner().invoke(app, ["backtest", "--config", str(config)])
    assert done.exit_code == 130 and "resume" not in done.output


def _interrupted(*given: Any) -> None:
    assert given[4] is None
    raise KeyboardInterrupt


def test_a_seed_is_of_63_bits(tmp_path: Path) -> None:
    config = ModelConfig(vocabulary=("a", "b"), head="categorical")
    assert recipe_of({"seed": 2**63 - 1, "budget_s": None}, config, 100, None).seed == 2**63 - 1
    assert recipe_of({"seed": 5}, config, 100, 0).seed == 0
    for asked, seed, hint in (
        ({"seed": 2**63}, None, "recipe.seed: 9223372036854775808 is not a whole number from 0 to 9223372036854775807"),
        ({"seed": -1}, 3, "recipe.seed: -1 is not"),
        ({}, 2**63, "seed: 9223372036854775808 is not a whole number from 0 to"),
    ):
        with pytest.raises(WrongTable, match=hint):
            recipe_of(asked, config, 100, seed)
    done = CliRunner().invoke(app, ["train", "--config", str(_small(tmp_path)), "--seed", "-1"])
    assert done.exit_code == 2 and "--seed" in done.output
