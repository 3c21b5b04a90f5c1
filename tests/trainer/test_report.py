"""The report's numbers are those of the engine that serves, and its rivals are on the same values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from readings_topic import times, waves

from bench.evaluate import evaluate
from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.train.course import Pass
from rnn.train.dataset import LabeledSeries
from rnn.train.fit import fit
from rnn.train.lanes import moments
from rnn.train.recipe import Recipe
from services.quality.reference import Reference
from services.trainer.report import WARM_UP, HeldBack, reference, report
from services.trainer.split import split

QUICK = Recipe(updates=60, lanes=8, lane_steps=256, window=32, burn_in=16)
PASSES = [Pass(1, 1, 0.5, 0.4, 0.6, None, 1.0, True)]


def examples(x: np.ndarray) -> LabeledSeries:
    n = len(x)
    return LabeledSeries(x, times(n), np.zeros(n, np.uint8), np.zeros((n, 0), np.float32))


def test_one_stream_is_scored_as_evaluate_scores_it() -> None:
    x = waves(4000, 0)
    config = ModelConfig(features=("a", "b"), interval_s=60.0, hidden=8)
    network = fit(config, x[:3200], times(3200), QUICK).network
    one = examples(x)
    parts = split([one], 0.1, 0.1)
    told = report(network, PASSES, HeldBack.of(config, ("pump",), [one], parts), network)
    mean, std = moments(x[: parts.learned[0]])
    known = evaluate(network, x, times(4000), parts.known[0], mean=mean, std=std, lanes=1, burn_in=WARM_UP - 1)
    scores = told["scores"]
    assert scores["mse"] == pytest.approx(known.mse, rel=1e-5)
    assert scores["persistence_mse"] == told["rivals"]["persistence"] == pytest.approx(known.persistence_mse, rel=1e-5)
    assert scores["coverage_80"] == pytest.approx(known.coverage, rel=1e-5)
    assert told["calibration"]["0.8"] == pytest.approx(known.coverage, abs=0.01)
    shares = [told["calibration"][level] for level in ("0.5", "0.8", "0.9", "0.95", "0.99")]
    assert shares == sorted(shares)
    assert (scores["readings"], scores["values"]) == (known.readings, known.values)
    assert told["rivals"]["parent"] == scores["mse"]
    assert told["by_horizon"] == [
        {"step": 1, **{name: scores[name] for name in told["by_horizon"][0] if name != "step"}}
    ]
    assert told["rivals"]["ridge_var8"] < told["rivals"]["persistence"]
    json.dumps(told, allow_nan=False)


def test_streams_and_steps_are_scored_each_for_itself() -> None:
    x = waves(4000, 0)
    calm, wild = examples(x[:2000]), examples(x[2000:] * np.float32(3))
    config = ModelConfig(features=("a", "b"), targets=("b",), interval_s=60.0, hidden=8, task="encoder-decoder",
                         horizon=3)  # fmt: skip
    network = Network(config).eval()
    parts = split([calm, wild], 0.1, 0.1)
    told = report(network, PASSES, HeldBack.of(config, ("calm", "wild"), [calm, wild], parts))
    assert [one["step"] for one in told["by_horizon"]] == [1, 2, 3]
    assert told["by_horizon"][0]["persistence_mse"] < told["by_horizon"][2]["persistence_mse"]
    assert list(told["by_group"]) == ["calm", "wild"]
    assert told["by_group"]["calm"]["persistence_mse"] < told["by_group"]["wild"]["persistence_mse"]
    assert told["rivals"]["parent"] is None


def test_what_comes_every_hour_is_found_by_the_seasonal_rival() -> None:
    random = np.random.default_rng(0)
    x = np.tile(random.normal(size=(60, 1)), (20, 1)).astype(np.float32)
    config = ModelConfig(features=("a",), interval_s=60.0, hidden=8)
    one = examples(x)
    told = report(Network(config).eval(), PASSES, HeldBack.of(config, ("p",), [one], split([one], 0.1, 0.1)))
    assert told["season"] == "hour" and told["rivals"]["seasonal_naive"] == pytest.approx(0, abs=1e-9)
    assert told["rivals"]["persistence"] > 1


def test_what_drift_is_measured_against_is_of_the_training_part_alone() -> None:
    x = waves(1000, 0)
    x[900:] += 1000
    tree = reference(("a", "b"), [examples(x)], [800])
    made = Reference.from_tree(json.loads(json.dumps(tree)))
    assert made.features == ("a", "b") and made.edges[np.isfinite(made.edges)].max() < 100


def test_a_stream_that_is_silent_in_the_test_part_is_left_out() -> None:
    long, early = examples(waves(2000, 0)), examples(waves(300, 1))
    config = ModelConfig(features=("a", "b"), interval_s=60.0, hidden=8)
    told = report(
        Network(config).eval(), PASSES, HeldBack.of(config, ("long", "early"), [long, early], split([long, early], 0.1))
    )
    assert list(told["by_group"]) == ["long"]
