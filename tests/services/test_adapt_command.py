"""Adaptation as a user meets it: measured by `streamrnn backtest`, switched on by `state.adapt`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import streamrnn

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from services.fleet.model_loader import ModelLoader
from services.predictor.ports import Refused
from services.settings import load

SMALL = "model: {hidden: 8}\nrecipe: {updates: 10, burn_in: 8}\n"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sensor that works otherwise from reading 1,000 on."""
    random, x = np.random.default_rng(0), np.zeros(1600)
    for t in range(1, len(x)):
        x[t] = (0.95 if t < 1000 else -0.5) * x[t - 1] + random.normal()
    folder = tmp_path_factory.mktemp("table")
    (folder / "small.yaml").write_text(SMALL)
    (folder / "small-student.yaml").write_text("model: {hidden: 8, head: student}\n")
    path = folder / "pump.csv"
    path.write_text("at,flow,odd\n" + "".join(f"{1000 * t},{value:.4f},0\n" for t, value in enumerate(x)))
    return path


def backtest(table: Path, *more: str, config: str = "small.yaml") -> list[str]:
    return ["backtest", str(table), "--time", "at", "--target", "flow", "--train", "0.6", "--test", "0.3",
            "--config", str(table.parent / config), *more]  # fmt: skip


def test_backtest_tells_what_it_gains(table: Path) -> None:
    done = streamrnn(*backtest(table, "--adapt", "8", "--adapt-memory", "100", "--json"))
    figures = json.loads(done.stdout)
    assert figures["mse"] < 0.9 * figures["unadapted_mse"]
    assert figures["mse"] == figures["targets"]["flow"]["mse"]
    plain = json.loads(streamrnn(*backtest(table, "--json")).stdout)
    assert plain["mse"] == figures["unadapted_mse"] and plain["mae"] == figures["unadapted_mae"]
    assert "unadapted_mse" not in plain


@pytest.mark.parametrize(
    ("config", "more", "says"),
    [
        ("small.yaml", ("--adapt", "8", "--label", "odd"), "leave out --adapt or --label"),
        ("small.yaml", ("--adapt-memory", "50"), "ask for one with --adapt"),
        ("small-student.yaml", ("--adapt", "8"), "switch adaptation off"),
    ],
)
def test_backtest_refuses(table: Path, config: str, more: tuple[str, ...], says: str) -> None:
    done = streamrnn(*backtest(table, *more, config=config))
    assert done.returncode != 0
    assert says in " ".join(done.stderr.split())


def test_the_setting_makes_the_engine(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights.save(tmp_path / "plain", Network(ModelConfig(("flow",), hidden=8)), created_ms=0)
    weights.save(tmp_path / "student", Network(ModelConfig(("flow",), hidden=8, head="student")), created_ms=0)

    def row_bytes_of(model: str, *sets: str) -> int:
        settings = load(None, [f"model={tmp_path / model}", "state.slots=8", *sets])
        return int(ModelLoader(settings, "cpu").load("").engine.table.row_bytes)

    assert row_bytes_of("plain", "state.adapt=4") - row_bytes_of("plain") == 4 * (5 + 15 + 5)
    with pytest.raises(Refused, match=r"model: .*switch adaptation off"):
        row_bytes_of("student", "state.adapt=4")
