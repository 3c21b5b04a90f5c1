"""What retraining asks of fit: a split of one's own, weights to begin from, a damaged checkpoint refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.io.checkpoint import CheckpointMismatch
from rnn.train.dataset import LabeledSeries
from rnn.train.fit import fit
from rnn.train.learn import learn
from rnn.train.process_group import ProcessGroup
from rnn.train.recipe import Recipe

QUICK = Recipe(updates=40, lanes=8, lane_steps=128, window=32, burn_in=16)
CONFIG = ModelConfig(features=("a", "b"), hidden=8, interval_s=1.0, linear=2)


def walk(n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    wave = np.sin(np.arange(n) / 5)[:, None] + 0.1 * random.normal(size=(n, 2))
    return wave.astype(np.float32), 1000 * np.arange(n, dtype=np.int64)


def test_a_split_of_ones_own_is_that_of_the_share_where_they_agree() -> None:
    x, at_ms = walk()
    shared = fit(CONFIG, x, at_ms, QUICK)
    given = fit(CONFIG, [x, x[:0]], [at_ms, at_ms[:0]], QUICK, learned=[1800, 0])
    ours, theirs = shared.network.state_dict(), given.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (given.train_rows, given.validation_rows) == (1800, 200)
    assert fit(CONFIG, x, at_ms, QUICK, learned=[1200]).train_rows == 1200


def test_training_from_weights_begins_where_they_are() -> None:
    x, at_ms = walk()
    before = fit(CONFIG, x, at_ms, dataclasses.replace(QUICK, updates=200))
    short = dataclasses.replace(QUICK, updates=1, learning_rate=1e-4)
    cold, warm = (
        fit(CONFIG, x, at_ms, short, start=start) for start in (None, {**before.network.state_dict()})
    )  # fmt: skip
    assert warm.best.validation_mse < cold.best.validation_mse
    assert warm.best.validation_mse < 1.1 * before.best.validation_mse


def test_other_weights_to_begin_from_are_another_training(tmp_path: Path) -> None:
    x, at_ms = walk()
    before, file = fit(CONFIG, x, at_ms, dataclasses.replace(QUICK, updates=1)), tmp_path / "standing"

    def cut(done: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, x, at_ms, QUICK, cut, file, start=before.network.state_dict())
    with pytest.raises(CheckpointMismatch, match="another config, recipe or data"):
        fit(CONFIG, x, at_ms, QUICK, checkpoint=file)


def test_a_checkpoint_that_was_half_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    x, at_ms = walk()
    file = tmp_path / "standing"

    def cut(done: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, x, at_ms, QUICK, cut, file)
    whole = file.read_bytes()
    for half in (whole[: len(whole) // 2], whole[:3], b""):
        file.write_bytes(half)
        with pytest.raises(CheckpointMismatch, match=r"standing is damaged: delete it"):
            fit(CONFIG, x, at_ms, QUICK, checkpoint=file)


def test_more_processes_than_lanes_are_refused() -> None:
    x, at_ms = walk()
    with pytest.raises(ValueError, match="9 processes cannot share 8 lanes: start fewer"):
        fit(CONFIG, x, at_ms, dataclasses.replace(QUICK, lanes=8), team=ProcessGroup(0, 9))


def test_sequences_are_split_as_asked_and_trained_by_one_process() -> None:
    random = np.random.default_rng(0)
    config = ModelConfig(vocabulary=("a", "b", "c"), head="categorical", hidden=8)
    x = random.integers(3, 6, (600, 1)).astype(np.float32)
    one = LabeledSeries(
        x, np.arange(600) * 1000, (np.arange(600) % 6 == 5).astype(np.uint8), np.zeros((600, 0), np.float32)
    )
    assert learn(config, [one], Recipe(updates=4), learned=[480]).validation_rows == 120
    with pytest.raises(ValueError, match="only forecasts of the next reading are trained by several"):
        learn(config, [one], Recipe(updates=4), team=ProcessGroup(0, 2))
