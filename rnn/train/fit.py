"""Training on the past: truncated back-propagation through time, with early stopping on a later range.

No cluster, a checkpoint file at most, no printing: one process, or one of a team that others have started. Imports
torch and numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.config import ModelConfig
from rnn.io import checkpoint as checkpoints
from rnn.nn.network import Network
from rnn.train import epochs as training
from rnn.train.calibrate import calibrate, solve_linear_path
from rnn.train.dataset import still
from rnn.train.epochs import EpochMetrics, Progress, with_path
from rnn.train.lanes import Lanes, Windows, moments, pieces, prepare
from rnn.train.process_group import SINGLE_PROCESS, ProcessGroup
from rnn.train.recipe import Recipe

__all__ = ["EpochMetrics", "Fitted", "Progress", "fit", "least_readings"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The network with the weights of the best epoch, in evaluation mode, and how it came about."""

    network: Network
    epochs: tuple[EpochMetrics, ...]
    best: EpochMetrics
    train_rows: int  # the first ones of what was given
    validation_rows: int  # the ones after them


OneSeries = tuple[NDArray[np.float32], NDArray[np.int64]]


def fit(
    config: ModelConfig,
    x: NDArray[np.float32] | Sequence[NDArray[np.float32]],
    at_ms: NDArray[np.int64] | Sequence[NDArray[np.int64]],
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    *,
    learned: Sequence[int] | None = None,
    start: Mapping[str, Tensor] | None = None,
    team: ProcessGroup = SINGLE_PROCESS,
) -> Fitted:
    """Trains a new network on one series in time order, x [n, features] (raw units, NaN = missing) and at_ms [n], or on
    several: a list of each.

    Of every series the earlier readings (all but the share `validation`) are learned from, the global scaler included;
    the latest only choose among epochs. An update learns from about `recipe.lanes` lanes, drawn anew in each epoch:
    what `recipe.updates` cost does not grow with the number of series. `progress` is called after each epoch. With
    `checkpoint`, a file, training that was cut off goes on after the last whole epoch; the file is deleted at the end.
    Equal config, data and recipe give bit-identical weights on one machine, cut off or not.

    `learned` says of each series how many of its readings are learned from, in place of all but the share `validation`.
    `start` are weights of such a network to begin from, in place of drawn ones; scalers and the linear path are those
    of the data all the same. With a `team` of several processes all call it with equal arguments; each trains on its
    share of the lanes, and only the first one's network is finished, with bands that hold.

    Raises ValueError for a series too short or with other features than the config, and for fewer lanes than processes;
    CheckpointMismatch for a checkpoint of another config, recipe or data; FloatingPointError if training diverges.
    """
    recipe = recipe or Recipe()
    early, late = _split(config, x, at_ms, recipe.validation, learned)
    rows, later_rows = sum(len(x) for x, _ in early), sum(len(x) for x, _ in late)
    least = least_readings(recipe)
    if min(max((len(x) for x, _ in part), default=0) for part in (early, late)) < least:
        raise ValueError(
            f"{rows + later_rows} readings are too few to train on: of the longest series the last "
            f"{recipe.validation:.0%}, for validation, must be {least} readings at least; lower recipe.burn_in "
            f"({recipe.burn_in}), or give more"
        )
    if said := still(config.targets, np.concatenate([x[:, list(config.target_index)] for x, _ in early])):
        raise ValueError(
            f"in the {rows:,} readings that are learned from {said}: there is nothing to learn; give more readings, or "
            "name other targets"
        )
    with _reproducible(recipe):
        network = Network(config)
        if start is not None:
            network.load_state_dict(dict(start))
        mean, std = moments(np.concatenate([x for x, _ in early]))
        network.scaler_mean.copy_(torch.from_numpy(mean))
        network.scaler_std.copy_(torch.from_numpy(std))
        lanes = [pieces(part, _steps(part, recipe)) for part in (early, late)]
        if team.size > lanes[0].x.shape[1]:
            raise ValueError(
                f"{team.size} processes cannot share {lanes[0].x.shape[1]} lanes: start fewer, or lower "
                f"recipe.lane_steps ({recipe.lane_steps})"
            )
        train, validation = (_prepared(network, part, recipe, whole=team.first, team=team) for part in lanes)
        if config.linear and team.first:
            solve_linear_path(network, [(train, torch.zeros_like(train.change))])
        with torch.no_grad():
            team.broadcast([*network.to(team.device).state_dict().values()])
        count = lanes[0].x.shape[1]
        groups = max(1, min(count // team.size, round(count / recipe.lanes)))
        begun = "" if start is None else checkpoints.identity("", (one.cpu().numpy() for one in start.values()))
        parted = f" {groups} groups" if groups > 1 else ""
        identity = checkpoints.identity(f"{config.to_json()} {recipe}{begun}{parted}", chain(*early, *late))
        mine = (_shared(train, team), _shared(validation, team))
        epochs = training.run(network, *mine, recipe, progress, checkpoint, identity, team, groups)
        network.cpu().eval()
        if team.first:
            _finish(network, train, validation)
    if checkpoint is not None and team.first:
        checkpoint.unlink(missing_ok=True)
    best = [epoch for epoch in epochs if epoch.kept][-1]
    return Fitted(network.eval(), tuple(epochs), best, rows, later_rows)


def least_readings(recipe: Recipe) -> int:
    """How many the validation part of the longest series must have."""
    return 4 * (recipe.burn_in + 2)


def _prepared(network: Network, lanes: Lanes, recipe: Recipe, *, whole: bool, team: ProcessGroup) -> Windows:
    """All lanes where the process finishes the network in the end, else those that it trains on."""
    if not whole:
        some = team.share(lanes.x.shape[1])
        lanes = Lanes(np.ascontiguousarray(lanes.x[:, some]), np.ascontiguousarray(lanes.at_ms[:, some]))
    return prepare(network.inputs, lanes, recipe.burn_in, network.config.linear)


def _shared(windows: Windows, team: ProcessGroup) -> Windows:
    """The lanes that the process trains on, where it trains."""
    if team.size > 1 and team.first:
        some = team.share(windows.feats.shape[1])
        feats, change, weight = (part[:, some].contiguous() for part in (windows.feats, windows.change, windows.weight))
        scaled = windows.scaled if windows.scaled is None else windows.scaled[:, some]  # a view: not copied
        windows = Windows(feats, change, weight, scaled)
    return windows if team.device == "cpu" else windows.map(lambda part: part.to(team.device))


def _said(network: Network, windows: Windows) -> tuple[Tensor, Tensor | None]:
    """(mean, scale) at every step, [steps, lanes, ..]."""
    means, scales = training.said(network, windows, SINGLE_PROCESS)
    return torch.cat(means), torch.cat(scales) if scales else None


def _weigh(network: Network, validation: Windows) -> None:
    """Multiplies what the recurrent path says of each target by the factor in 0..1 that fits the validation steps best:
    0 where it learned nothing that lasts, and the linear path is better off alone.
    """
    mean, _ = _said(network, validation)
    path = with_path(network, torch.zeros_like(mean), validation)
    said, left = (mean - path) * validation.weight, (validation.change - path) * validation.weight
    share = (said * left).sum(dim=(0, 1)) / (said * said).sum(dim=(0, 1)).clamp(min=1e-9)
    share = share.clamp(0, 1)
    head = network.head.linear
    head.weight.data[: len(share)] *= share.unsqueeze(1)
    head.bias.data[: len(share)] *= share


def _finish(network: Network, train: Windows, validation: Windows) -> None:
    """Calibrates the band; then the linear path, which hardly can overfit, learns from the validation steps, too.

    What was learned from has two votes on the band and what was not has one: the first is of all seasons but too well
    known, the second is unknown but of the latest season alone. Either alone misses the level by 4 points on one of
    the four data sets of `make quality`; two to one, all are within 3, which is why it is two to one.
    """
    if network.linear_path is not None:
        _weigh(network, validation)
    both = (train, validation)
    said = [_said(network, windows) for windows in both]
    votes = 2 * float(validation.weight.sum() / train.weight.sum().clamp(min=1))  # of one step learned from
    mean, change, weight = (
        torch.cat([part.flatten(0, 1) for part in parts])
        for parts in (
            [mean for mean, _ in said],
            [windows.change for windows in both],
            [train.weight * votes, validation.weight],
        )
    )
    scales = [scale.flatten(0, 1) for _, scale in said if scale is not None]
    calibrate(network.head, mean, torch.cat(scales) if scales else None, change, weight)
    if network.linear_path is None:
        return
    path = network.linear_path.weight.clone()
    network.linear_path.weight.data.zero_()
    known = [(windows, _said(network, windows)[0]) for windows in both]
    network.linear_path.weight.data.copy_(path)
    solve_linear_path(network, known)


def _split(
    config: ModelConfig,
    x: NDArray[np.float32] | Sequence[NDArray[np.float32]],
    at_ms: NDArray[np.int64] | Sequence[NDArray[np.int64]],
    validation: float,
    learned: Sequence[int] | None,
) -> tuple[list[OneSeries], list[OneSeries]]:
    """The earlier and the later part of every series."""
    xs, ats = ([x], [at_ms]) if isinstance(x, np.ndarray) or isinstance(at_ms, np.ndarray) else (x, at_ms)
    early, late = [], []
    for number, (one, times) in enumerate(zip(xs, ats, strict=True)):
        one, times = np.asarray(one, dtype=np.float32), np.asarray(times, dtype=np.int64)
        if one.ndim != 2 or one.shape[1] != len(config.features) or times.shape != one.shape[:1]:
            raise ValueError(
                f"fit wants x [n, {len(config.features)}] and at_ms [n], got {list(one.shape)} and {list(times.shape)}"
            )
        rows = len(one) - int(len(one) * validation) if learned is None else learned[number]
        early.append((one[:rows], times[:rows]))
        late.append((one[rows:], times[rows:]))
    return [part for part in early if len(part[0])], [part for part in late if len(part[0])]


def _steps(series: Sequence[OneSeries], recipe: Recipe) -> int:
    """Length of a lane: about `recipe.lanes` of them in all, none shorter than `lane_steps` unless the series are."""
    longest, total = max(len(x) for x, _ in series), sum(len(x) for x, _ in series)
    return longest // max(1, longest // max(recipe.lane_steps, total // recipe.lanes))


@contextmanager
def _reproducible(recipe: Recipe) -> Iterator[None]:
    """Seeds torch and fixes its threads, and gives both back as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
