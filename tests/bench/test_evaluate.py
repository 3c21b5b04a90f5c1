"""bench.evaluate: scores are those of the served predictions, on the values that both sides can be judged by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.evaluate import evaluate
from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.engine import Engine
from rnn.train.fit import fit
from rnn.train.lanes import moments
from rnn.train.recipe import Recipe

CONFIG = ModelConfig(features=("a", "b"), hidden=8, interval_s=60.0, scaler_memory=0)


def walk(n: int = 1200) -> tuple[np.ndarray, np.ndarray]:
    x = np.cumsum(np.random.default_rng(1).normal(size=(n, 2)), axis=0).astype(np.float32) * [1, 50]
    return x.astype(np.float32), 60_000 * np.arange(n, dtype=np.int64)


def persistent() -> Network:
    """A network whose head says: no change."""
    network = Network(CONFIG)
    torch.nn.init.zeros_(network.head.linear.weight)
    return network


def test_persistence_has_no_skill():
    x, at_ms = walk()
    scores = evaluate(persistent(), x, at_ms, 1000)
    assert scores.skill == pytest.approx(0.0, abs=1e-5)
    assert scores.mse == pytest.approx(scores.persistence_mse, rel=1e-5)
    _, std = moments(x[:1000])
    assert scores.persistence_mse == pytest.approx(float(np.mean((np.diff(x[999:], axis=0) / std) ** 2)), rel=1e-5)
    assert scores.persistence_mae == pytest.approx(float(np.mean(np.abs(np.diff(x[999:], axis=0) / std))), rel=1e-5)
    assert scores.readings == 200 and scores.values == 400


def test_one_stream_is_scored_as_the_engine_serves_it():
    x, at_ms = walk()
    network = Network(CONFIG)
    mean, std = np.zeros(2), np.array([2.0, 40.0])
    scores = evaluate(network, x, at_ms, 1000, mean=mean, std=std, lanes=1, burn_in=999)
    slots = np.zeros(1199, dtype=np.int64)
    said = Engine(network, 1).run(slots, x[:-1], at_ms[:-1], slots - 1)
    error = (said.y[999:] - x[1000:]) / std
    assert scores.mse == pytest.approx(float(np.mean(error**2)), rel=1e-6)
    assert scores.mae == pytest.approx(float(np.mean(np.abs(error))), rel=1e-6)
    assert said.lo is not None and said.hi is not None
    inside = (said.lo[999:] <= x[1000:]) & (x[1000:] <= said.hi[999:])
    assert scores.coverage == pytest.approx(float(inside.mean()), abs=1e-9)


def test_slices_score_the_same_readings_and_nearly_the_same():
    x, at_ms = walk()
    network = fit(CONFIG, x[:900], at_ms[:900], Recipe(updates=10, burn_in=16, lane_steps=128)).network
    one = evaluate(network, x, at_ms, 900, lanes=1, burn_in=300)
    many = evaluate(network, x, at_ms, 900, lanes=6, burn_in=50)
    assert many.values == one.values and many.persistence_mse == one.persistence_mse
    assert many.mse == pytest.approx(one.mse, rel=1e-3)


def test_missing_values_count_for_neither_side():
    x, at_ms = walk()
    x[1050, 0] = np.nan  # cannot be a truth, nor can the next one be judged against it
    x[1100] = np.nan
    scores = evaluate(persistent(), x, at_ms, 1000)
    assert scores.values == 400 - 2 - 4
    assert scores.readings == 200 - 2
    assert scores.skill == pytest.approx(0.0, abs=1e-5)


def test_only_the_targets_are_scored():
    x, at_ms = walk()
    x[:, 0] = np.nan
    config = ModelConfig(features=("a", "b"), targets=("b",), hidden=8, interval_s=60.0, head="point")
    scores = evaluate(Network(config), x, at_ms, 1000)
    assert scores.values == 200
    assert scores.coverage is None and scores.surprise is None


def test_what_cannot_be_scored_is_refused():
    x, at_ms = walk(50)
    with pytest.raises(ValueError, match="start"):
        evaluate(persistent(), x, at_ms, 50)
    with pytest.raises(ValueError, match="nothing to score"):
        evaluate(persistent(), np.full_like(x, np.nan), at_ms, 20, mean=np.zeros(2), std=np.ones(2))
