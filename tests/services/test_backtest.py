"""`streamrnn backtest` and what it is made of: the figures are those of the protocol, and come out the same twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from serving import streamrnn

from services.backtest.forecast import BacktestPlan, NothingToTest, backtest
from services.backtest.ridge import LAGS, RidgeVar, filled
from services.backtest.scores import StreamForecasts, scored
from services.datasets.series import Series

SEED = 20_261_124


def autoregression(n: int, seed: int = SEED) -> np.ndarray:
    """Two channels: x_t = 0.6 x_{t-1} + 0.3 x_{t-2} + noise of 1; the second one follows the first a reading later."""
    random = np.random.default_rng(seed)
    x = np.zeros((n, 2))
    for t in range(2, n):
        x[t, 0] = 0.6 * x[t - 1, 0] + 0.3 * x[t - 2, 0] + random.normal()
        x[t, 1] = x[t - 1, 0] + 0.1 * random.normal()
    return x


def series(n: int = 6000) -> Series:
    x = autoregression(n).astype(np.float32)
    return Series("made", ("a", "b"), 1.0, 1000 * np.arange(n), x, "00", "nobody")


def test_ridge_finds_the_coefficients_of_an_autoregression() -> None:
    x = autoregression(20_000)
    predicted = RidgeVar([x[:15_000]]).predict(x, 15_000)
    errors = np.square(predicted - x[15_000:]).mean(axis=0)
    np.testing.assert_allclose(errors, [1.0, 0.01], rtol=0.06)  # the noise alone


def test_what_is_missing_is_filled_with_the_last_value_and_first_with_the_mean() -> None:
    z = np.array([[np.nan, 1.0], [2.0, np.nan], [np.nan, np.nan]])
    assert filled(z).tolist() == [[0.0, 1.0], [2.0, 1.0], [2.0, 1.0]]
    with pytest.raises(ValueError, match="longer series"):
        RidgeVar([np.zeros((LAGS, 1))])


def test_only_values_count_that_every_rival_knows() -> None:
    nan = np.nan
    truth = np.array([[1.0, nan], [2.0, 5.0], [3.0, 6.0]])
    last = np.array([[0.0, 4.0], [1.0, nan], [nan, 5.0]])
    y, band = truth + 0.5, truth + 10
    made = scored([StreamForecasts(truth, last, y, y - 1, band, truth + 1)], ("a", "b"))
    assert (made["mse"], made["mae"], made["persistence_mse"], made["ridge_var8_mse"]) == (0.25, 0.5, 1.0, 1.0)
    assert made["coverage_80"] == 1.0
    with pytest.raises(ValueError, match="nothing to score"):
        scored([StreamForecasts(truth * nan, last, y, None, None, y)], ("a", "b"))


def test_a_network_comes_near_the_noise_and_its_band_holds(tmp_path: Path) -> None:
    figures, (run,) = backtest([series()], BacktestPlan(recipe={"updates": 200}), tmp_path / "model")
    assert figures["readings"] == 1200 and figures["train_readings"] == 4200
    targets = figures["targets"]
    assert isinstance(targets, dict) and set(targets) == {"a", "b"}
    for name in ("a", "b"):
        assert targets[name]["mse"] < 1.1 * targets[name]["ridge_var8_mse"] < targets[name]["persistence_mse"]
        assert 0.74 < targets[name]["coverage_80"] < 0.86
    assert len(run.truth) == 1200


def test_the_command_prints_one_object_and_the_same_one_twice(tmp_path: Path) -> None:
    x = autoregression(1500)
    path = tmp_path / "pumps.csv"
    lines = [f"{1000 * t},p{s},{x[t, 0] + s:.4f},{x[t, 1]:.4f}" for s in (1, 2) for t in range(1500)]
    path.write_text("at,pump,flow,level\n" + "\n".join(lines) + "\n")
    model, recipe = "model: {hidden: 8, head: student, linear: 2}", "recipe: {updates: 20, burn_in: 8}"
    (tmp_path / "small.yaml").write_text(f"{model}\n{recipe}\n")
    command = ["backtest", str(path), "--time", "at", "--stream", "pump", "--target", "flow", "--json",
               "--config", str(tmp_path / "small.yaml"), "--plot", str(tmp_path / "p.png")]  # fmt: skip
    one, other = (streamrnn(*command) for _ in range(2))
    assert one.returncode == 0, one.stderr
    first, second = json.loads(one.stdout), json.loads(other.stdout)
    assert first.pop("train_seconds") >= 0 and second.pop("train_seconds") >= 0
    assert first == second
    assert first["readings"] == 600 and list(first["targets"]) == ["flow"]
    assert set(first) == {"mse", "mae", "persistence_mse", "ridge_var8_mse", "coverage_80", "targets", "readings",
                          "train_readings", "model"}  # fmt: skip
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "short.csv"
    path.write_text("at,a\n" + "\n".join(f"{t},{t}" for t in range(9)))
    wrong = {
        ("aplliances",): "did you mean the data set 'appliances'",
        (str(path),): "--time",
        (str(path), "--time", "when"): "no column 'when'",
        (str(path), "--time", "at"): "cannot be split",
        (str(path), "--time", "at", "--config", str(tmp_path / "none.yaml")): "none.yaml",
    }
    for arguments, sentence in wrong.items():
        done = streamrnn("backtest", *arguments)
        assert done.returncode != 0 and sentence in done.stderr.replace("\n", " "), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    with pytest.raises(NothingToTest, match="at most 1"):
        backtest([series(100)], BacktestPlan(train=0.9), tmp_path / "model")
