"""`streamrnn models`: what a person and a script get, and what an error says."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from rnn.io import weights
from services.cli.models import app
from services.registry import Registry

REPORT = {
    "curve": [{"update": step, "train": 1 / (1 + step), "validation": 2 / (1 + step)} for step in range(100)],
    "scores": {"mse": 0.0123, "coverage": 0.79},
    "by_horizon": [{"horizon": 1, "mse": 0.01}, {"horizon": 2, "mse": 0.0456}],
    "by_group": {"north": {"mse": 0.0789, "streams": 3}},
    "calibration": {"0.8": 0.791},
    "rivals": {"persistence": {"mse": 0.555}, "ridge_var8": 0.444, "parent": None},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def models(place: Path):
    """models(args...) runs the command on the registry."""

    def call(*args: object) -> Result:
        return CliRunner().invoke(app, [*map(str, args)], env={"STREAMRNN__REGISTRY": str(place)}, terminal_width=200)

    return call


def said(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return done.output


def test_from_a_folder_to_the_champion_and_back(models, make_model, place):
    first, second = (json.loads(said(models("add", make_model(seed), "--json")))["model"] for seed in (1, 2))
    assert f"champion    {first}   (was -)" in said(
        models("promote", first[:6], "--reason", "the first", "--by", "ana")
    )
    said(models("challenge", second))
    assert "challenger" in said(models("list"))
    state = json.loads(said(models("promote", "challenger", "--json")))
    assert (state["champion"], state["challenger"], state["previous"]) == (second, None, first)
    assert "nothing changed" in said(models("withdraw"))
    said(models("rollback", "--reason", "worse at night"))
    said(models("pin", "--reason", "audit"))
    pinned = models("promote", second)
    assert pinned.exit_code and "audit" in str(pinned.exception)
    said(models("unpin"))
    told = json.loads(said(models("history", "--json")))
    assert [one["what"] for one in told] == ["promoted", "challenged", "promoted", "rolled back", "pinned", "unpinned"]
    assert (told[0]["by"], told[0]["reason"]) == ("ana", "the first") and "@" in told[1]["by"]
    assert "worse at night" in said(models("history"))
    listed = json.loads(said(models("list", "--json")))
    assert listed["aliases"]["champion"] == first
    assert {one["model"]: one["aliases"] for one in listed["models"]} == {first: ["champion"], second: ["previous"]}
    assert Registry(place).aliases().champion == first


def test_the_page_shows_what_there_is(models, make_model, place, tmp_path):
    folder = make_model(1, parent="0123456789ab")
    (folder / "report.json").write_text(json.dumps(REPORT))
    model = json.loads(said(models("add", folder, "--json")))["model"]
    said(models("promote", model, "--reason", "[/] is no markup"))
    Registry(place).add_verdict(model, {"verdict": "promoted", "readings": 12345, "p": 0.001})
    page = said(models("show", "champion", "--html", tmp_path / "page.html"))
    for word in (model, "0123456789ab", "lstm, 1 x 8", "mse 0.1", "0.0123", "0.0456", "north", "0.0789", "0.791",
                 "persistence", "0.555", "ridge_var8", "0.444", "12345", "[/] is no markup", "█"):  # fmt: skip
        assert word in page, word
    assert "0.0789" in (tmp_path / "page.html").read_text()
    whole = json.loads(said(models("show", model, "--json")))
    assert whole["report"] == REPORT and whole["card"]["sha256"].startswith(model)
    assert whole["verdicts"][0]["verdict"] == "promoted" and whole["aliases"] == ["champion"]


@pytest.mark.parametrize("report", ["", "[1, 2]", '{"curve": 3, "scores": [1], "by_group": null, "rivals": "?"}', "{"])
def test_a_page_without_a_report_or_with_a_strange_one(models, make_model, report):
    folder = make_model(1)
    if report:
        (folder / "report.json").write_text(report)
    model = json.loads(said(models("add", folder, "--json")))["model"]
    assert "mse 0.1" in said(models("show", model))


def test_garbage_is_named_before_it_goes(models, make_model):
    kept, gone = (json.loads(said(models("add", make_model(seed), "--json")))["model"] for seed in (1, 2))
    young = said(models("gc", "--without-rows"))
    assert "younger than 30 days" in young
    assert f"would go  {gone}" in said(models("gc", "--older-than-days", 0, "--keep", kept, "--dry-run"))
    assert json.loads(said(models("gc", "--older-than-days", 0, "--keep", kept, "--without-rows", "--json"))) == {
        "gone": [gone]
    }
    assert kept in said(models("list")) and gone not in said(models("list"))


def test_errors_are_one_line_that_teaches(tmp_path):
    def fails(*args: str, **env: str) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMRNN__")}
        done = subprocess.run([sys.executable, "-m", "services.cli.main", "models", *args], capture_output=True,
                              text=True, env=clean | env, check=False)  # fmt: skip
        assert done.returncode in (1, 2) and done.stdout == ""
        (line,) = done.stderr.splitlines()
        return line

    assert "Give --registry FOLDER" in fails("list")
    assert "is no model's id" in fails("show", "nonsense", "--registry", str(tmp_path / "r"))
    assert "give --config of the pipeline" in fails("gc", "-r", str(tmp_path / "r"))
    assert "has no previous champion" in fails("rollback", "-r", str(tmp_path / "r"))


# ---- MLflow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numbers", "symbols"])
def test_an_mlflow_folder_predicts_as_streamrnn_predict_does(models, make_model, tmp_path, kind):
    """As mlflow.pyfunc.load_model does it: import the loader that MLmodel names, give it the data's path."""
    import pandas as pd

    words = {"features": (), "vocabulary": ("x", "y"), "head": "categorical"}
    folder = make_model(1, **(words if kind == "symbols" else {}))
    model = json.loads(said(models("add", folder, "--json")))["model"]
    out = tmp_path / "exported"
    said(models("export-mlflow", model, out))
    described = yaml.safe_load((out / "MLmodel").read_text())
    flavor = described["flavors"]["python_function"]
    assert described["metadata"]["model"] == model
    assert weights.load(out / flavor["data"])[1].model == model
    assert (out / "requirements.txt").read_text().startswith("streamrnn")

    table = pd.DataFrame({"stream": ["n", "m", "n", "m"], "at": [1000, 1000, 2000, 2000]})
    read = {"symbol": ["x", "y", "y", "x"]} if kind == "symbols" else {"a": [1.0, 2, 3, 4], "b": [2.0, np.nan, 1, 0]}
    table = table.assign(**read)
    found = importlib.import_module(flavor["loader_module"])._load_pyfunc(str(out / flavor["data"])).predict(table)
    table.to_csv(tmp_path / "table.csv", index=False)
    symbol = ["--symbol", "symbol"] if kind == "symbols" else []
    args = ["--model", folder, "--time", "at", "--stream", "stream", "--out", tmp_path / "said.parquet", *symbol]
    subprocess.run(
        [sys.executable, "-m", "services.cli.main", "predict", tmp_path / "table.csv", *args],
        check=True,
        capture_output=True,
    )
    pd.testing.assert_frame_equal(found, pd.read_parquet(tmp_path / "said.parquet"))


def test_an_export_writes_over_nothing(models, make_model, tmp_path):
    model = json.loads(said(models("add", make_model(1), "--json")))["model"]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    done = models("export-mlflow", model, tmp_path / "taken")
    assert done.exit_code and "is there already" in str(done.exception)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]
