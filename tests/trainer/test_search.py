"""The search: the default is where it begins, and where it ends unless something is better by more than chance."""

from __future__ import annotations

import numpy as np
from readings_topic import times, waves

from rnn.config import ModelConfig
from rnn.train.dataset import LabeledSeries
from rnn.train.practice import Practice
from services.trainer.search import KEPT, Candidate, Tried, candidates, chosen, search
from services.trainer.training_task import TrainingTask


def work(hidden: int = 4) -> TrainingTask:
    n = 1500
    one = LabeledSeries(waves(n, 0), times(n), np.zeros(n, np.uint8), np.zeros((n, 0), np.float32))
    config = ModelConfig(features=("a", "b"), interval_s=60.0, hidden=hidden)
    return TrainingTask(config, (one,), (1300,), Practice(updates=160, lanes=4, lane_steps=128, burn_in=8, window=32))


def test_all_are_tried_a_little_and_the_best_with_the_default_for_longer() -> None:
    told: list[Tried] = []
    found, tried = search(work(), 600.0, told.append)
    assert told == tried
    first, second = ([one for one in tried if one.round == number] for number in (1, 2))
    assert [one.candidate for one in first] == candidates(work()) and first[0].default
    assert len(second) == KEPT and second[0].default
    assert second[0].updates == 4 * first[0].updates
    best = sorted(first, key=lambda one: one.loss or 9e9)[0]
    assert best.candidate in [one.candidate for one in second]
    assert found.recipe.updates == work().recipe.updates
    assert (found.config.hidden, found.config.cell) == (chosen(work(), tried).hidden, chosen(work(), tried).cell)
    losses = {one.candidate: one.loss for one in second}
    winner = chosen(work(), tried)
    assert (
        losses[winner] == min(loss for loss in losses.values() if loss is not None) or winner == candidates(work())[0]
    )


def test_on_a_budget_too_small_the_default_comes_back() -> None:
    found, tried = search(work(), 0.0)
    assert [(one.default, one.round) for one in tried] == [(True, 1)]
    assert (found.config, found.recipe) == (work().config, work().recipe)


def test_a_hair_better_is_not_better() -> None:
    base, other = candidates(work())[:2]

    def tried(candidate: Candidate, loss: float | None) -> Tried:
        return Tried(candidate, 1, 10, loss, 0.1, candidate == base)

    assert chosen(work(), [tried(base, 1.0), tried(other, 0.995)]) == base
    assert chosen(work(), [tried(base, 1.0), tried(other, 0.9)]) == other
    assert chosen(work(), [tried(base, 1.0), tried(other, None)]) == base
