"""rnn.train, lanes and fit: training is reproducible, looks only at the past, sees what serving sees, and learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.io.checkpoint import CheckpointMismatch
from rnn.nn.cells import CELLS
from rnn.nn.network import Network
from rnn.serve.engine import Engine
from rnn.train.fit import EpochMetrics, fit
from rnn.train.lanes import moments, pieces, prepare
from rnn.train.recipe import Recipe, default_config
from rnn.train.unroll import unroll

QUICK = Recipe(updates=60, lanes=8, lane_steps=128, window=32, burn_in=16)
ONE_EPOCH = dataclasses.replace(QUICK, updates=1)
CONFIG = ModelConfig(features=("wave", "echo"), hidden=16, interval_s=60.0)


def waves(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy sine and an autoregressive echo of it, on scales far from 1, with some values missing."""
    random = np.random.default_rng(seed)
    t = np.arange(n)
    wave = np.sin(2 * np.pi * t / 24) + 0.1 * random.normal(size=n)
    echo = np.zeros(n)
    for i in range(1, n):
        echo[i] = 0.6 * echo[i - 1] + 0.5 * wave[i - 1] + 0.1 * random.normal()
    x = np.stack([200 + 30 * wave, 0.01 * echo], axis=1).astype(np.float32)
    x[random.random(x.shape) < 0.01] = np.nan
    x[500:510] = np.nan
    return x, 60_000 * t.astype(np.int64)


def same(a: Network, b: Network) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours if name != "head.calibration")


class Cut(Exception):
    """Training was cut off."""


def cut(done: EpochMetrics) -> None:
    if done.epoch == 2:
        raise Cut


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("head", ["point", "gaussian"])
def test_it_beats_persistence_on_what_can_be_foreseen(cell: str, head: str):
    x, at_ms = waves()
    fitted = fit(dataclasses.replace(CONFIG, cell=cell, head=head), x, at_ms, QUICK)
    assert fitted.best.validation_mse < 0.75 * fitted.best.persistence_mse
    assert not fitted.network.training


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path):
    x, at_ms = waves()
    seeds = {"first": 1, "again": 1, "other": 2}
    for before, (name, seed) in enumerate(seeds.items()):
        torch.manual_seed(before)  # what torch did before does not matter
        fitted = fit(CONFIG, x, at_ms, dataclasses.replace(QUICK, seed=seed, updates=20))
        weights.save(tmp_path / name, fitted.network, created_ms=0)
    first, again, other = ((tmp_path / name / weights.WEIGHTS).read_bytes() for name in seeds)
    assert first == again
    assert first != other


def test_it_leaves_torch_as_it_was():
    x, at_ms = waves()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    fit(CONFIG, x, at_ms, dataclasses.replace(ONE_EPOCH, threads=threads + 1))
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads


def test_what_comes_later_changes_no_weight():
    x, at_ms = waves()
    seen = fit(CONFIG, x, at_ms, ONE_EPOCH)
    later = x.copy()
    later[seen.train_rows :] = 7.0 - 3 * later[seen.train_rows :]
    changed = fit(CONFIG, later, at_ms, ONE_EPOCH)
    assert seen.train_rows + seen.validation_rows == len(x)
    assert same(seen.network, changed.network)  # scaler included
    assert seen.best.validation_mse != changed.best.validation_mse  # but it is what epochs are judged by
    earlier = x.copy()
    earlier[seen.train_rows - 1] += 1.0
    assert not same(seen.network, fit(CONFIG, earlier, at_ms, ONE_EPOCH).network)


def test_the_best_epoch_is_kept_and_training_stops_when_none_is_better():
    random = np.random.default_rng(5)
    x = random.normal(size=(2400, 2)).astype(np.float32)
    x[: 2400 - 240] = np.cumsum(
        x[: 2400 - 240], axis=0
    )  # what is learned from the walk is wrong for the noise after it
    told: list[EpochMetrics] = []
    recipe = dataclasses.replace(QUICK, updates=2000, patience=40)
    fitted = fit(CONFIG, x, np.arange(2400) * 60_000, recipe, told.append)
    assert tuple(told) == fitted.epochs
    assert fitted.best.validation_mse == min(epoch.validation_mse for epoch in told)
    assert len(told) < told[0].epochs
    again = fit(CONFIG, x, np.arange(2400) * 60_000, recipe)
    assert same(fitted.network, again.network)


def test_a_spent_budget_ends_training_after_the_epoch_under_way():
    x, at_ms = waves()
    fitted = fit(CONFIG, x, at_ms, dataclasses.replace(QUICK, budget_s=0.0))
    assert len(fitted.epochs) == 1 < fitted.epochs[0].epochs


def test_it_goes_on_after_the_last_whole_epoch_of_the_same_training_only(tmp_path: Path):
    x, at_ms = waves()
    config = dataclasses.replace(CONFIG, layers=2, dropout=0.3, linear=2)
    recipe = dataclasses.replace(QUICK, averaging=0.5, learning_rate=0.05)  # not every epoch is better than before
    whole, file = fit(config, x, at_ms, recipe), tmp_path / "standing"
    with pytest.raises(Cut):
        fit(config, x, at_ms, recipe, cut, file)
    other = x.copy()
    other[-1] += 1
    for wrong in (
        (dataclasses.replace(config, hidden=8), x, at_ms, recipe),
        (config, other, at_ms, recipe),
        (config, x, at_ms, dataclasses.replace(recipe, seed=1)),
    ):
        with pytest.raises(CheckpointMismatch, match="another config, recipe or data"):
            fit(*wrong, checkpoint=file)
    told: list[EpochMetrics] = []
    resumed = fit(config, x, at_ms, recipe, told.append, file)
    assert [one.epoch for one in told] == list(range(3, whole.epochs[-1].epoch + 1))
    assert not file.exists()
    ours, theirs = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    known = [[(one.validation_mse, one.kept) for one in fitted.epochs] for fitted in (whole, resumed)]
    assert known[0] == known[1]
    seconds = [one.seconds for one in resumed.epochs]
    assert seconds == sorted(seconds)  # over both sittings


def test_training_that_was_cut_off_at_its_end_learns_no_more(tmp_path: Path):
    x, at_ms = waves()
    spent, file = dataclasses.replace(QUICK, budget_s=0.0), tmp_path / "standing"

    def cut(done: EpochMetrics) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, x, at_ms, spent, cut, file)
    resumed = fit(CONFIG, x, at_ms, spent, checkpoint=file)
    assert len(resumed.epochs) == 1
    assert same(resumed.network, fit(CONFIG, x, at_ms, spent).network)


def test_series_that_cannot_be_learned_from_are_refused():
    x, at_ms = waves(300)
    with pytest.raises(ValueError, match="too few"):
        fit(CONFIG, x, at_ms, QUICK)
    with pytest.raises(ValueError, match=r"x \[n, 2\]"):
        fit(CONFIG, x[:, :1], at_ms, QUICK)
    with pytest.raises(ValueError, match="at_ms"):
        fit(CONFIG, x, at_ms[1:], QUICK)


def test_a_constant_and_a_dead_sensor_do_no_harm():
    x, at_ms = waves()
    x = np.concatenate([x, np.full((len(x), 1), 3.25), np.full((len(x), 1), np.nan)], axis=1).astype(np.float32)
    config = dataclasses.replace(CONFIG, features=("wave", "echo", "constant", "dead"), targets=("wave", "constant"))
    fitted = fit(config, x, at_ms, QUICK)
    assert fitted.best.validation_mse < 0.8 * fitted.best.persistence_mse


@pytest.mark.parametrize("cell", CELLS)
def test_training_unrolls_as_the_network_does(cell: str):
    network = Network(dataclasses.replace(CONFIG, cell=cell, layers=2))
    feats = torch.randn(20, 5, 5)
    state = [tuple(torch.randn(5, 16) for _ in part) for part in network.initial_state(5)]
    with torch.no_grad():
        ours, after = unroll(network, feats, state)
        theirs, wanted = network.unroll(feats, state)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(after, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("memory", [0, 50])
def test_training_sees_what_serving_sees(memory: int):
    x, at_ms = waves(400)
    network = Network(dataclasses.replace(CONFIG, scaler_memory=memory, targets=("echo",)))
    mean, std = moments(x)
    network.scaler_mean.copy_(torch.from_numpy(mean))
    network.scaler_std.copy_(torch.from_numpy(std))
    windows = prepare(network.inputs, pieces([(x, at_ms)], 400), burn_in=0)
    with torch.no_grad():
        predicted, _ = network.head(network.unroll(windows.feats)[0])
    slots = np.zeros(len(x), dtype=np.int64)
    y = Engine(network, 1).run(slots, x, at_ms, slots - 1).y[:, 0]
    # truth - prediction, in raw units, is the same said by both: scaled residual error times the scale of that step
    counts = windows.weight[:-1, 0, 0].numpy() > 0
    assert counts.sum() > 380
    if memory == 0:
        residual = (windows.change - predicted)[:-1, 0, 0].numpy() * std[1]
        np.testing.assert_allclose(residual[counts], (x[1:, 1] - y[:-1])[counts], atol=1e-6)
    else:
        ratio = (x[1:, 1] - y[:-1])[counts] / (windows.change - predicted)[:-1, 0, 0].numpy()[counts]
        assert (ratio > 0).all()
        assert abs(np.diff(ratio)).max() < 0.2 * ratio.mean()  # the running scale, which moves slowly


def test_windows_count_what_is_known_and_nothing_else():
    x, at_ms = waves(40)
    x[:] = np.arange(80).reshape(40, 2)
    x[20, 1] = np.nan
    x[30] = np.nan
    network = Network(CONFIG)
    windows = prepare(network.inputs, pieces([(x, at_ms)], 20), burn_in=3)  # lanes of 20 readings: 0-19 and 20-39
    counts = windows.weight.numpy().astype(bool)
    assert not counts[:3].any() and not counts[-1].any()  # burn-in, and truths outside the lane
    assert counts[3:-1, 0].all()
    assert not counts[9, 1].any()  # the reading after it is missing
    assert not counts[10, 1].any()  # nothing was read
    assert counts[11:-1, 1].all()
    assert np.isfinite(windows.change.numpy()).all()


def test_pieces_keep_the_latest_readings():
    x = np.arange(11, dtype=np.float32)[:, None]
    lanes = pieces([(x, np.arange(11) * 10)], 3)
    assert lanes.x[:, :, 0].T.tolist() == [[2, 3, 4], [5, 6, 7], [8, 9, 10]]
    assert lanes.at_ms.T.tolist() == [[20, 30, 40], [50, 60, 70], [80, 90, 100]]


def test_series_never_run_into_each_other():
    """A piece holds one series; a short one is filled up with readings that do not count."""
    network = Network(CONFIG)
    long, short = np.ones((9, 2), np.float32), np.full((2, 2), 5, np.float32)
    lanes = pieces([(long, np.arange(9)), (short, np.arange(2) + 100)], 4)
    assert lanes.x[:, :, 0].T.tolist()[:2] == [[1] * 4, [1] * 4]
    assert lanes.x[:2, 2, 0].tolist() == [5, 5] and np.isnan(lanes.x[2:, 2]).all()
    counts = prepare(network.inputs, lanes, burn_in=0).weight.numpy().astype(bool)
    assert counts[0, 2].all() and not counts[1:, 2].any()


def test_many_series_train_one_network():
    x, at_ms = waves(3000)
    fitted = fit(CONFIG, [x[:1800], x[1800:]], [at_ms[:1800], at_ms[1800:]], QUICK)
    assert fitted.train_rows == 1620 + 1080
    assert fitted.validation_rows == 180 + 120


def test_many_short_series_cost_no_more_than_one_long_one(tmp_path: Path):
    x, at_ms = waves(12_000)
    many = [(x[begin : begin + 250], at_ms[begin : begin + 250]) for begin in range(0, len(x), 250)]
    recipe = dataclasses.replace(QUICK, validation=0.3, updates=200)
    train = [list(part) for part in zip(*many, strict=True)]
    fitted = fit(CONFIG, *train, recipe)
    in_one = -(-175 // recipe.window) * 48 // recipe.lanes  # windows of 8 of the 48 series
    assert fitted.epochs[0].epochs == -(-200 // in_one)
    assert fitted.best.validation_mse < 0.75 * fitted.best.persistence_mse
    with pytest.raises(Cut):
        fit(CONFIG, *train, recipe, cut, tmp_path / "standing")
    resumed = fit(CONFIG, *train, recipe, checkpoint=tmp_path / "standing")
    assert same(fitted.network, resumed.network)


def test_the_default_config_predicts_every_feature_with_a_band():
    config = default_config(["a", "b"], 60.0)
    assert config.targets == ("a", "b") and config.head == "gaussian" and config.interval_s == 60.0
    assert default_config(["a", "b"], 60.0, targets=["b"]).targets == ("b",)
