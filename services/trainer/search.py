"""A small search for a better shape than the default: successive halving on the part that chooses, within a budget.

Jamieson and Talwalkar 2016: all candidates train a little, the better third of them four times as long. Imports rnn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.trainer.training_task import NotTrained, TrainingTask, train

SHARES = (1 / 16, 1 / 4)
"""Of the recipe's updates, in the two rounds."""
KEPT = 3
"""Candidates in the second round, the default among them."""
MARGIN = 0.01
"""So much better than the default's a candidate's loss must be: less is chance, and the default is known to do well."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One shape and its learning rate."""

    cell: str
    hidden: int
    layers: int
    learning_rate: float

    def of(self, work: TrainingTask, updates: int | None = None) -> TrainingTask:
        """The work with this shape, for so many updates; None: for all of the recipe's."""
        config = replace(work.config, cell=self.cell, hidden=self.hidden, layers=self.layers)
        recipe = replace(work.recipe, learning_rate=self.learning_rate)
        if updates is not None:
            recipe = replace(recipe, updates=updates, patience=updates)
        return replace(work, config=config, recipe=recipe)


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a candidate in one round."""

    candidate: Candidate
    round: int  # from 1
    updates: int
    loss: float | None  # on the part that chooses; None: it diverged
    seconds: float
    default: bool


def candidates(work: TrainingTask) -> list[Candidate]:
    """The default first; then what differs from it in a thing or two."""
    config, rate = work.config, work.recipe.learning_rate
    base = Candidate(config.cell, config.hidden, config.layers, rate)
    other = "gru" if config.cell == "lstm" else "lstm"
    wide, narrow = 2 * base.hidden, max(8, base.hidden // 2)
    return [
        base,
        replace(base, cell=other),
        replace(base, hidden=narrow),
        replace(base, learning_rate=rate / 3),
        replace(base, hidden=wide),
        replace(base, layers=base.layers + 1),
        replace(base, learning_rate=2 * rate),
        replace(base, cell=other, hidden=wide),
        replace(base, hidden=wide, learning_rate=rate / 3),
    ]


def search(
    work: TrainingTask, budget_s: float, told: Callable[[Tried], None] = lambda one: None
) -> tuple[TrainingTask, list[Tried]]:
    """The work with the best shape found in `budget_s` seconds, and everything that was tried, in order.

    Nothing begins that is not likely to end in time, judged by how long the default took; so on a budget that is too
    small the default comes back. The part that tests is never looked at. Raises NotTrained where even the default
    cannot be trained.
    """
    began_s, made = time.monotonic(), list[Tried]()
    entrants = candidates(work)
    default = entrants[0]
    for number, share in enumerate(SHARES, 1):
        updates = max(1, round(work.recipe.updates * share))
        for one in entrants:
            spent_s = time.monotonic() - began_s
            if made and spent_s + _likely_s(made, one, default, updates) > budget_s:
                continue
            begun_s = time.monotonic()
            loss = None
            try:
                loss = train(one.of(work, updates), None, None).best.validation_loss
            except NotTrained:
                if one == default:
                    raise
            made.append(Tried(one, number, updates, loss, time.monotonic() - begun_s, one == default))
            told(made[-1])
        this = _ranked(made, number)
        entrants = list(dict.fromkeys([default, *(one.candidate for one in this)]))[:KEPT]
    return chosen(work, made).of(work), made


def chosen(work: TrainingTask, made: Sequence[Tried]) -> Candidate:
    """The best of the last round in which the default was tried with another, if it is better by the margin."""
    default = candidates(work)[0]
    for number in range(len(SHARES), 0, -1):
        this = _ranked(made, number)
        own = next((one.loss for one in this if one.default), None)
        if own is None or len(this) < 2:
            continue
        best = this[0]
        assert best.loss is not None
        return best.candidate if best.loss < (1 - MARGIN) * own else default
    return default


def _ranked(made: Sequence[Tried], number: int) -> list[Tried]:
    found = [one for one in made if one.round == number and one.loss is not None]
    return sorted(found, key=lambda one: one.loss or 0.0)


def _likely_s(made: Sequence[Tried], one: Candidate, default: Candidate, updates: int) -> float:
    """How long a candidate will take, from what the default took: the cost goes with layers, and more than width."""
    first = made[0]
    wider: float = (one.hidden / default.hidden) ** 1.5 * one.layers / default.layers
    return first.seconds * max(1.0, wider) * updates / first.updates
