"""Training a network of any shape: `learn`. Forecasts go to `fit`; what has sequences, classes or decoders is here.

One process, or for forecasts one of a team; a checkpoint file at most; no printing. Imports torch and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.config import ModelConfig
from rnn.io import checkpoint as checkpoints
from rnn.nn.network import Network
from rnn.train.calibrate import calibrate
from rnn.train.course import Course, Pass, answers
from rnn.train.dataset import LabeledSeries, checked, still, validation_split
from rnn.train.fit import EpochMetrics, fit
from rnn.train.lanes import moments
from rnn.train.practice import Practice
from rnn.train.process_group import SINGLE_PROCESS, ProcessGroup
from rnn.train.recipe import Recipe
from rnn.train.segments import Passage, passages


@dataclass(frozen=True, slots=True)
class Learned:
    """The network with the weights of the best pass, in evaluation mode, and how it came about."""

    network: Network
    epochs: tuple[Pass, ...]
    best: Pass
    train_rows: int
    validation_rows: int


def learn(
    config: ModelConfig,
    series: Sequence[LabeledSeries],
    recipe: Recipe | None = None,
    progress: Callable[[Pass], None] | None = None,
    checkpoint: Path | None = None,
    groups: Sequence[str] = (),
    *,
    learned: Sequence[int] | None = None,
    start: Mapping[str, Tensor] | None = None,
    team: ProcessGroup = SINGLE_PROCESS,
) -> Learned:
    """Trains a new network of any shape on the series.

    A part is held back to choose among passes and to calibrate bands (`dataset.validation_split`); scalers come from
    the rest. `groups` says of each series whose it is, where a network must do well on those it has never met: then
    whole groups are held back. (Plain forecasts know no groups: they hold back what is latest.) `progress` is called
    after each pass. With `checkpoint`, a file, training that was cut off goes on where it stood, to the same weights;
    the file is deleted at the end. Equal arguments give bit-identical weights on one machine.

    `learned` says of each series how many of its readings are learned from; the later ones are held back, whatever else
    is said here. `start` are weights to begin from. A `team` of several processes trains plain forecasts only, as
    `rnn.train.fit` says.

    Raises ValueError for series that do not fit the config or are too few, or a team that cannot share the work;
    CheckpointMismatch for a checkpoint of something else; FloatingPointError if training diverges.
    """
    practice = Practice.of(recipe)
    known = [checked(config, number, one) for number, one in enumerate(series)]
    if not known:
        raise ValueError("there is no series to learn from")
    if forecasts(config) and not any(one.end.any() for one in known):
        return _forecast(config, known, practice, progress, checkpoint, learned, start, team)
    if team.size > 1:
        raise ValueError("only forecasts of the next reading are trained by several processes: train this one alone")
    if learned is None:
        held = validation_split(known, practice.validation, practice.seed, groups, alone=not config.recurrent)
    else:
        held = [np.arange(len(one)) >= count for one, count in zip(known, learned, strict=True)]
    rows = sum(int((~one).sum()) for one in held)
    _refuse_still(config, known, held)
    with _reproducible(practice):
        network = Network(config)
        if start is not None:
            network.load_state_dict(dict(start))
        _set_scales(network, known, held)
        hidden = [_with_gaps(config, one, practice, number) for number, one in enumerate(known)]
        whole = passages(network, hidden, held, practice.lane_steps, practice.burn_in)
        early, late = ([one for one in whole if one.held is late and bool(one.weight.any())] for late in (False, True))
        if not any(bool(one.weight.any()) for one in whole):
            raise ValueError(
                "no reading has a truth to learn from: name the column of what is asked for (label, tags, answer or "
                "truth); where a sequence is answered at its end, it stands on its last row"
            )
        if not early or not late:
            raise ValueError(
                f"{sum(map(len, known))} readings are too few to train on: {len(early)} sequences with a truth are "
                f"left to learn from and {len(late)} to judge by; give more, or lower the recipe's burn_in"
            )
        # Hazard: of a sequence shorter than the stride no reading is asked, and of its last one nothing is known later.
        usual = min(int(np.median([len(one) for one in part])) for part in (early, late))
        practice = replace(practice, stride=max(1, min(practice.stride, usual - 1)))
        data = (array for one in known for array in (one.x, one.at_ms, one.end, one.truth))
        begun = "" if start is None else checkpoints.identity("", (one.numpy() for one in start.values()))
        said = f"{config.to_json()} {practice} {list(groups)}{begun}{'' if learned is None else learned}"
        identity = checkpoints.identity(said, data)
        course = Course(network, early, late, practice, identity)
        passes = course.run(progress, checkpoint)
        network.eval()
        _calibrate(network, late, practice)
    best = [one for one in passes if one.kept][-1]
    return Learned(network.eval(), tuple(passes), best, rows, sum(map(len, known)) - rows)


def forecasts(config: ModelConfig) -> bool:
    """Whether `rnn.train.fit` trains such a network: one step of the next reading's values, at each reading."""
    return config.residual and config.task == "many-to-many"


def _calibrate(network: Network, late: list[Passage], practice: Practice) -> None:
    if not network.head.BANDED:
        return
    with torch.no_grad():
        said = list(answers(network, late, practice))
        mean, truth, weight = (torch.cat([getattr(one, name) for one in said]) for name in ("mean", "truth", "weight"))
        scale = torch.cat([one.scale for one in said if one.scale is not None])
        calibrate(network.head, mean, scale, truth, weight)


def _refuse_still(config: ModelConfig, series: Sequence[LabeledSeries], held: Sequence[NDArray[np.bool_]]) -> None:
    """Raises ValueError for targets of which none takes two values where they are learned from. What was never known
    has an error of its own.
    """
    if not config.targets:
        return
    parts = [(one.x[:, list(config.target_index)] if config.residual else one.truth)[~late]
             for one, late in zip(series, held, strict=True)]  # fmt: skip
    values = np.concatenate(parts).reshape(-1, len(config.targets))
    if len(values) > 1 and not np.isnan(values).all() and (said := still(config.targets, values)):
        raise ValueError(f"in the readings that are learned from {said}: there is nothing to learn; name other targets")


def _set_scales(network: Network, series: Sequence[LabeledSeries], held: Sequence[NDArray[np.bool_]]) -> None:
    """Global scalers of features and targets, of what is learned from."""
    config = network.config
    if not config.symbolic:
        mean, std = moments(np.concatenate([one.x[~late] for one, late in zip(series, held, strict=True)]))
        network.scaler_mean.copy_(torch.from_numpy(mean))
        network.scaler_std.copy_(torch.from_numpy(std))
    if config.targets and not config.residual:
        truth = [one.truth[~late] for one, late in zip(series, held, strict=True)]
        mean, std = moments(np.concatenate(truth).reshape(-1, len(config.targets)))
        network.target_mean.copy_(torch.from_numpy(mean))
        network.target_std.copy_(torch.from_numpy(std))


def _with_gaps(config: ModelConfig, one: LabeledSeries, practice: Practice, number: int) -> LabeledSeries:
    if not practice.hide or config.symbolic:
        return one
    random = np.random.default_rng([practice.seed, 1, number])
    return replace(one, x=np.where(random.random(one.x.shape) < practice.hide, np.nan, one.x).astype(np.float32))


def _forecast(
    config: ModelConfig,
    series: Sequence[LabeledSeries],
    practice: Practice,
    progress: Callable[[Pass], None] | None,
    checkpoint: Path | None,
    learned: Sequence[int] | None,
    start: Mapping[str, Tensor] | None,
    team: ProcessGroup,
) -> Learned:
    def passed(one: EpochMetrics) -> Pass:
        return Pass(one.epoch, one.epochs, one.train_mse, one.validation_mse, one.persistence_mse, None,
                    one.seconds, one.kept)  # fmt: skip

    told = None if progress is None else lambda one: progress(passed(one))
    x, at_ms = [one.x for one in series], [one.at_ms for one in series]
    fitted = fit(config, x, at_ms, practice, told, checkpoint, learned=learned, start=start, team=team)
    epochs = tuple(map(passed, fitted.epochs))
    return Learned(fitted.network, epochs, passed(fitted.best), fitted.train_rows, fitted.validation_rows)


@contextmanager
def _reproducible(practice: Practice) -> Iterator[None]:
    """Seeds torch and fixes its threads, and gives both back as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(practice.seed)
        torch.set_num_threads(practice.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
