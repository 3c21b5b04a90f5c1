"""Training on the past: truncated back-propagation through time, with early stopping on a later range.

One process, one machine; no cluster, a checkpoint file at most, no printing. Imports torch and numpy only.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rnn import checkpoint as checkpoints
from rnn.calibrate import calibrate, solve_linear_path
from rnn.cells import State
from rnn.checkpoint import Standing
from rnn.config import ModelConfig
from rnn.heads import Quantile
from rnn.kernels import unroll
from rnn.network import Network
from rnn.recipe import Recipe
from rnn.windows import Windows, moments, pieces, prepare


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known after one pass over the training range. Errors are mean squares in scaled units."""

    epoch: int  # from 1
    epochs: int  # as planned
    train_mse: float
    validation_mse: float
    persistence_mse: float  # of predicting the last value, on the same validation steps
    seconds: float  # since the start, over all sittings
    kept: bool  # best so far


@dataclass(frozen=True, slots=True)
class Fitted:
    """The network with the weights of the best epoch, in evaluation mode, and how it came about."""

    network: Network
    epochs: tuple[Epoch, ...]
    best: Epoch
    train_rows: int  # the first ones of what was given
    validation_rows: int  # the ones after them


OneSeries = tuple[NDArray[np.float32], NDArray[np.int64]]
Progress = Callable[[Epoch], None]


def fit(
    config: ModelConfig,
    x: NDArray[np.float32] | Sequence[NDArray[np.float32]],
    at_ms: NDArray[np.int64] | Sequence[NDArray[np.int64]],
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Fitted:
    """Trains a new network on one series in time order, x [n, features] (raw units, NaN = missing) and at_ms [n], or on
    several: a list of each.

    Of every series the earlier readings (all but the share `validation`) are learned from, the global scaler included;
    the latest only choose among epochs. `progress` is called after each epoch. With `checkpoint`, a file, training that
    was cut off goes on after the last whole epoch; the file is deleted at the end. Equal config, data and recipe give
    bit-identical weights on one machine, cut off or not.

    Raises ValueError for a series too short or with other features than the config; OtherTraining for a checkpoint of
    another config, recipe or data; FloatingPointError if training diverges.
    """
    recipe = recipe or Recipe()
    early, late = _split(config, x, at_ms, recipe.validation)
    rows, later_rows = sum(len(x) for x, _ in early), sum(len(x) for x, _ in late)
    least = least_readings(recipe)
    if min(max(len(x) for x, _ in early), max(len(x) for x, _ in late)) < least:
        raise ValueError(
            f"{rows + later_rows} readings are too few to train on: of the longest series the last "
            f"{recipe.validation:.0%}, for validation, must be {least} readings at least; lower recipe.burn_in "
            f"({recipe.burn_in}), or give more"
        )
    with _reproducible(recipe):
        network = Network(config)
        mean, std = moments(np.concatenate([x for x, _ in early]))
        network.scaler_mean.copy_(torch.from_numpy(mean))
        network.scaler_std.copy_(torch.from_numpy(std))
        linear = config.linear
        train = prepare(network.inputs, pieces(early, _steps(early, recipe)), recipe.burn_in, linear)
        validation = prepare(network.inputs, pieces(late, _steps(late, recipe)), recipe.burn_in, linear)
        if linear:
            solve_linear_path(network, [(train, torch.zeros_like(train.change))])
        identity = checkpoints.identity(f"{config.to_json()} {recipe}", chain(*early, *late))
        epochs = _train(network, train, validation, recipe, progress, checkpoint, identity)
        _finish(network.eval(), train, validation)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    best = [epoch for epoch in epochs if epoch.kept][-1]
    return Fitted(network.eval(), tuple(epochs), best, rows, later_rows)


def least_readings(recipe: Recipe) -> int:
    """How many the validation part of the longest series must have."""
    return 4 * (recipe.burn_in + 2)


def _train(
    network: Network,
    train: Windows,
    validation: Windows,
    recipe: Recipe,
    progress: Progress | None,
    checkpoint: Path | None,
    identity: str,
) -> list[Epoch]:
    """Leaves the weights of the best epoch in `network`."""
    windows = math.ceil(len(train) / recipe.window)
    planned = math.ceil(recipe.updates / windows)
    learning = {name: one for name, one in network.named_parameters() if not name.startswith("linear_path")}
    optimiser = torch.optim.AdamW(
        learning.values(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=planned * windows + 1, pct_start=0.2
    )
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging))  # type: ignore[no-untyped-call]
    persistence_mse = _mse(torch.zeros_like(validation.change), validation)
    best_weights, stale, update = network.state_dict(), 0, 0
    epochs: list[Epoch] = []
    standing = None if checkpoint is None else checkpoints.read(checkpoint, identity)
    if standing is not None:
        epochs = [Epoch(**one) for one in standing.said["epochs"]]
        best_weights, stale, update = standing.best, standing.said["stale"], standing.said["update"]
        network.load_state_dict(standing.weights)
        average.load_state_dict(standing.average)
        checkpoints.put_moments(optimiser, learning, standing.moments)
        optimiser.step()  # changes nothing, as there is no gradient yet; a schedule must not step before it
        schedule.last_epoch = update - 1
        schedule.step()
    best = min((one.validation_mse for one in epochs if one.kept), default=math.inf)
    began = time.monotonic() - (epochs[-1].seconds if epochs else 0.0)
    while len(epochs) < planned and not (epochs and _over(recipe, epochs[-1], stale)):
        number = len(epochs) + 1
        checkpoints.reseed(recipe.seed, number)
        # Windows begin elsewhere in each epoch, so that gradients are not always cut at the same readings.
        start = int(torch.randint(0, min(recipe.window, len(train) // 2), ()))
        state: Sequence[State] | None = None
        errors, counted = 0.0, 0.0
        network.train()
        for window in train.each(recipe.window, start):
            h, state = unroll(network, window.feats, state)
            state = [tuple(part.detach() for part in layer) for layer in state]
            loss, squares = _loss(network, h, window)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learning.values(), recipe.clip_norm)
            optimiser.step()
            schedule.step()
            average.update_parameters(network)
            stale += 1
            update += 1
            errors += float(squares)
            counted += float(window.weight.sum())
        averaged = average.module.eval()
        assert isinstance(averaged, Network)
        mse = _mse(_said(averaged, validation)[0], validation)
        if not math.isfinite(mse):
            raise FloatingPointError(f"training diverged in epoch {number}: lower the learning rate")
        kept = mse < best
        if kept:
            best, best_weights, stale = mse, copy.deepcopy(averaged.state_dict()), 0
        elapsed_s = time.monotonic() - began
        epochs.append(Epoch(number, planned, errors / max(counted, 1.0), mse, persistence_mse, elapsed_s, kept))
        if checkpoint is not None:
            said = {"epochs": [asdict(one) for one in epochs], "stale": stale, "update": update}
            moved = checkpoints.moments_of(optimiser, learning)
            weights = network.state_dict()
            Standing(identity, said, weights, average.state_dict(), best_weights, moved).write(checkpoint)
        if progress is not None:
            progress(epochs[-1])
    network.load_state_dict(best_weights)
    return epochs


def _over(recipe: Recipe, latest: Epoch, stale: int) -> bool:
    """Whether no epoch is to follow the latest, which was `stale` updates after the best one."""
    return stale >= recipe.patience or (recipe.budget_s is not None and latest.seconds >= recipe.budget_s)


def _loss(network: Network, h: Tensor, window: Windows) -> tuple[Tensor, Tensor]:
    """(loss, sum of squared errors). The mean and all below it learn from squared error alone, in scaled units; a
    head's scale learns how wide the error is for the given h, without a say in what h or the mean become: likelihood
    would trade accuracy on the large changes for certainty about the small ones. A quantile head's mean is a median
    and learns from its own loss.
    """
    h = functional.dropout(h, network.config.dropout, network.training)
    mean = _with_path(network, network.head(h)[0], window)
    squares = ((mean - window.change).square() * window.weight).sum()
    if isinstance(network.head, Quantile):
        _, scale = network.head(h)
        return network.head.loss(mean, scale, window.change, window.weight), squares.detach()
    loss = squares / window.weight.sum().clamp(min=1)
    if network.head.BANDED:
        _, scale = network.head(h.detach())
        loss = loss + network.head.loss(mean.detach(), scale, window.change, window.weight)
    return loss, squares.detach()


def _with_path(network: Network, mean: Tensor, windows: Windows) -> Tensor:
    past = windows.past
    return mean if network.linear_path is None or past is None else mean + network.linear_path(past).detach()


def _said(network: Network, windows: Windows) -> tuple[Tensor, Tensor | None]:
    """(mean, scale) at every step, [steps, lanes, ..], without gradients; the linear path is in the mean."""
    with torch.no_grad():
        means, scales, state = [], [], None
        for window in windows.each(256):
            h, state = unroll(network, window.feats, state)
            mean, scale = network.head(h)
            means.append(_with_path(network, mean, window))
            scales += [scale] if scale is not None else []
    return torch.cat(means), torch.cat(scales) if scales else None


def _weigh(network: Network, validation: Windows) -> None:
    """Multiplies what the recurrent path says of each target by the factor in 0..1 that fits the validation steps best:
    0 where it learned nothing that lasts, and the linear path is better off alone.
    """
    mean, _ = _said(network, validation)
    path = _with_path(network, torch.zeros_like(mean), validation)
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


def _mse(mean: Tensor, windows: Windows) -> float:
    counted = windows.weight.sum().clamp(min=1)
    return float(((mean - windows.change).square() * windows.weight).sum() / counted)


def _split(
    config: ModelConfig,
    x: NDArray[np.float32] | Sequence[NDArray[np.float32]],
    at_ms: NDArray[np.int64] | Sequence[NDArray[np.int64]],
    validation: float,
) -> tuple[list[OneSeries], list[OneSeries]]:
    """The earlier and the later part of every series."""
    xs, ats = ([x], [at_ms]) if isinstance(x, np.ndarray) or isinstance(at_ms, np.ndarray) else (x, at_ms)
    early, late = [], []
    for one, times in zip(xs, ats, strict=True):
        one, times = np.asarray(one, dtype=np.float32), np.asarray(times, dtype=np.int64)
        if one.ndim != 2 or one.shape[1] != len(config.features) or times.shape != one.shape[:1]:
            raise ValueError(
                f"fit wants x [n, {len(config.features)}] and at_ms [n], got {list(one.shape)} and {list(times.shape)}"
            )
        rows = len(one) - int(len(one) * validation)
        early.append((one[:rows], times[:rows]))
        late.append((one[rows:], times[rows:]))
    return early, late


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
