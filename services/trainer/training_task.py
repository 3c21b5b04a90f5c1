"""One training: what is learned from and how, and doing it in this process. On several: `services.trainer.workers`.

Imports numpy and rnn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.io import checkpoint as checkpoints
from rnn.io.checkpoint import CheckpointMismatch
from rnn.train.course import Pass
from rnn.train.dataset import LabeledSeries
from rnn.train.learn import Learned
from rnn.train.practice import Practice

Told = Callable[[Pass], None]


class NotTrained(Exception):
    """Training ended without a model. The message says why and what to do."""


class OutOfTime(NotTrained):
    """The time limit was reached first."""


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """What is to be trained. Plain values and arrays: it travels to other processes as it is."""

    config: ModelConfig
    series: tuple[LabeledSeries, ...]  # none of them empty; what only tests is not in it
    learned: tuple[int, ...] | None  # of each series the readings that are learned from; None: the recipe's share
    recipe: Practice
    groups: tuple[str, ...] = ()
    start: Mapping[str, NDArray[np.float32]] | None = None  # weights to begin from

    @property
    def readings(self) -> int:
        """In all series."""
        return sum(map(len, self.series))

    def identity(self) -> str:
        """Digest of all of it: equal work gives equal weights."""
        said = f"{self.config.to_json()} {self.recipe} {self.learned} {self.groups} {sorted(self.start or {})}"
        series = (array for one in self.series for array in (one.x, one.at_ms, one.end, one.truth))
        start = (self.start[name] for name in sorted(self.start)) if self.start is not None else ()
        return checkpoints.identity(said, [*series, *start])

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        series: Sequence[LabeledSeries],
        recipe: Practice,
        learned: Sequence[int],
        known: Sequence[int],
        start: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> TrainingTask:
        """The work of a split: of each series its first `known` readings, `learned` of them to learn from."""
        there = [number for number, count in enumerate(known) if count]
        cut = tuple(_first(series[number], known[number]) for number in there)
        return cls(config, cut, tuple(learned[number] for number in there), recipe, start=start)


def train(work: TrainingTask, told: Told | None, checkpoint: Path | None, limit_s: float | None = None) -> Learned:
    """Trains in this process. With `checkpoint`, a file, what was cut off goes on there.

    Raises OutOfTime after the pass in which `limit_s` seconds are over (the checkpoint stays), NotTrained for work that
    cannot be done, and CheckpointMismatch for a checkpoint of something else, or damaged.
    """
    from rnn.train.learn import learn

    more: dict[str, Any] = {}
    if work.learned is not None:
        more["learned"] = work.learned
    if work.start is not None:
        more["start"] = checkpoints.tensors_of(work.start)
    with refusals(work):
        return learn(work.config, work.series, work.recipe, within(limit_s, told), checkpoint, work.groups, **more)


def within(limit_s: float | None, told: Told | None, clock: Callable[[float], float] = lambda now_s: now_s) -> Told:
    """Passes on what is told, until the limit: then it raises OutOfTime. `clock` makes of this process's time that of
    all who train together.
    """
    began_s = time.monotonic()

    def heard(one: Pass) -> None:
        if told is not None:
            told(one)
        if limit_s is not None and one.number < one.passes and clock(time.monotonic() - began_s) >= limit_s:
            raise OutOfTime(
                f"stopped by the limit of {limit_s / 60:g} minutes after pass {one.number} of {one.passes}: raise the "
                "limit, lower recipe.updates or take a shorter range; or set recipe.budget_s, which keeps the best so "
                "far. The checkpoint is kept: `streamrnn train` goes on from it with --resume, a server begins anew"
            )

    return heard


@contextmanager
def refusals(work: TrainingTask) -> Iterator[None]:
    """Turns what training says of its arguments, and a lack of memory, into NotTrained."""
    try:
        yield
    except (NotTrained, CheckpointMismatch):
        raise
    except (ValueError, FloatingPointError) as error:
        raise NotTrained(str(error)) from None
    except (MemoryError, RuntimeError) as error:  # torch has no name of its own for the former on a CPU
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise NotTrained(
            f"out of memory while training on {work.readings:,} readings of {len(work.config.features)} values: take a "
            "shorter range, lower recipe.lanes or model.hidden, or give it more memory"
        ) from None


def _first(one: LabeledSeries, count: int) -> LabeledSeries:
    return LabeledSeries(one.x[:count], one.at_ms[:count], one.end[:count], one.truth[:count])
