"""Training on the past: truncated back-propagation through time, with early stopping on a later range.

One process, one machine; no cluster, no files, no printing. Imports torch and numpy only.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnn.cells import GRU, LSTM, Cell, State
from rnn.config import ModelConfig
from rnn.heads import surprise
from rnn.network import Network
from rnn.windows import Windows, moments, pieces, prepare


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. The defaults are meant to serve without tuning from ten thousand readings up."""

    seed: int = 0
    updates: int = 1280  # steps of the optimiser, rounded up to whole epochs
    lanes: int = 128  # pieces stepped side by side; fewer where a lane would be shorter than `lane_steps`
    lane_steps: int = 1024
    window: int = 64  # steps that gradients flow back over; the state itself is carried on
    burn_in: int = 64  # first steps of a lane that do not count
    learning_rate: float = 0.01  # at its peak; warmed up over a fifth of the updates, then annealed to nothing
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    validation: float = 0.1  # share of the readings, the latest ones, that decide which epoch's weights are kept
    patience: int = 480  # updates without a better validation error after which training stops
    threads: int = 1  # of torch; more help little, and hurt where other work runs beside. Part of what fixes the result
    budget_s: float | None = None  # a guard: no new epoch begins after that; None for reproducible results


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known after one pass over the training range. Errors are mean squares in scaled units."""

    epoch: int  # from 1
    epochs: int  # as planned
    train_mse: float
    validation_mse: float
    persistence_mse: float  # of predicting the last value, on the same validation steps
    seconds: float  # since the start
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


def default_config(features: Sequence[str], interval_s: float, targets: Sequence[str] = ()) -> ModelConfig:
    """A config that does well without tuning: one LSTM of 64 units with a band, for every feature or for `targets`.

    The running scaler looks far back: on household power a memory of 10,000 readings, a week, gave 20 % below
    persistence, the frozen global scaler as much, and a memory of 1,000 only 17 %.
    """
    return ModelConfig(
        features=tuple(features), targets=tuple(targets), interval_s=float(interval_s), scaler_memory=10_000
    )


def fit(
    config: ModelConfig,
    x: NDArray[np.float32] | Sequence[NDArray[np.float32]],
    at_ms: NDArray[np.int64] | Sequence[NDArray[np.int64]],
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Trains a new network on one series in time order, x [n, features] (raw units, NaN = missing) and at_ms [n], or on
    several: a list of each.

    Of every series the earlier readings (all but the share `validation`) are learned from, the global scaler included;
    the latest only choose among epochs. `progress` is called after each epoch. Raises ValueError for a series too short
    or with other features than the config; FloatingPointError if training diverges. Equal config, data and recipe give
    bit-identical weights on one machine.
    """
    recipe = recipe or Recipe()
    early, late = _split(config, x, at_ms, recipe.validation)
    rows, later_rows = sum(len(x) for x, _ in early), sum(len(x) for x, _ in late)
    least = 4 * (recipe.burn_in + 2)
    if min(max(len(x) for x, _ in early), max(len(x) for x, _ in late)) < least:
        raise ValueError(
            f"{rows + later_rows} readings are too few to train on: of the longest series the last "
            f"{recipe.validation:.0%}, for validation, must be {least} readings at least"
        )
    with _reproducible(recipe):
        network = Network(config)
        mean, std = moments(np.concatenate([x for x, _ in early]))
        network.scaler_mean.copy_(torch.from_numpy(mean))
        network.scaler_std.copy_(torch.from_numpy(std))
        train = prepare(network.inputs, pieces(early, _steps(early, recipe)), recipe.burn_in)
        validation = prepare(network.inputs, pieces(late, _steps(late, recipe)), recipe.burn_in)
        epochs = _train(network, train, validation, recipe, progress)
    best = [epoch for epoch in epochs if epoch.kept][-1]
    return Fitted(network.eval(), tuple(epochs), best, rows, later_rows)


def _train(
    network: Network, train: Windows, validation: Windows, recipe: Recipe, progress: Progress | None
) -> list[Epoch]:
    """Leaves the weights of the best epoch in `network`."""
    began = time.monotonic()
    windows = math.ceil(len(train) / recipe.window)
    planned = math.ceil(recipe.updates / windows)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=planned * windows + 1, pct_start=0.2
    )
    persistence_mse = _mse(torch.zeros_like(validation.change), validation)
    shift = torch.Generator().manual_seed(recipe.seed)
    best, best_weights, stale, epochs = math.inf, network.state_dict(), 0, []
    for number in range(1, planned + 1):
        # Windows begin elsewhere in each epoch, so that gradients are not always cut at the same readings.
        start = int(torch.randint(0, min(recipe.window, len(train) // 2), (), generator=shift))
        state: Sequence[State] | None = None
        errors, counted = 0.0, 0.0
        for window in train.each(recipe.window, start):
            h, state = unroll(network, window.feats, state)
            state = [tuple(part.detach() for part in layer) for layer in state]
            loss, squares = _loss(network, h, window)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimiser.step()
            schedule.step()
            stale += 1
            errors += float(squares)
            counted += float(window.weight.sum())
        with torch.no_grad():
            mse = _mse(network.head(unroll(network, validation.feats, None)[0])[0], validation)
        if not math.isfinite(mse):
            raise FloatingPointError(f"training diverged in epoch {number}: lower the learning rate")
        kept = mse < best
        if kept:
            best, best_weights, stale = mse, copy.deepcopy(network.state_dict()), 0
        elapsed_s = time.monotonic() - began
        epochs.append(Epoch(number, planned, errors / max(counted, 1.0), mse, persistence_mse, elapsed_s, kept))
        if progress is not None:
            progress(epochs[-1])
        if stale >= recipe.patience or (recipe.budget_s is not None and elapsed_s >= recipe.budget_s):
            break
    network.load_state_dict(best_weights)
    return epochs


def _loss(network: Network, h: Tensor, window: Windows) -> tuple[Tensor, Tensor]:
    """(loss, sum of squared errors). The mean and all below it learn from squared error alone, in scaled units; a
    Gaussian head's scale learns how wide the error is for the given h, without a say in what h or the mean become:
    likelihood would trade accuracy on the large changes for certainty about the small ones.
    """
    mean, scale = network.head(h)
    squares = ((mean - window.change).square() * window.weight).sum()
    counted = window.weight.sum().clamp(min=1)
    loss = squares / counted
    if scale is not None:
        _, scale = network.head(h.detach())
        loss = loss + (surprise(mean.detach(), scale, window.change) * window.weight).sum() / counted
    return loss, squares.detach()


def _mse(mean: Tensor, windows: Windows) -> float:
    counted = windows.weight.sum().clamp(min=1)
    return float(((mean - windows.change).square() * windows.weight).sum() / counted)


def unroll(network: Network, feats: Tensor, state: Sequence[State] | None) -> tuple[Tensor, tuple[State, ...]]:
    """As `Network.unroll`, by torch's own recurrent kernels on the same parameters: the same sums, sooner."""
    if state is None:
        state = network.initial_state(feats.shape[1])
    after: list[State] = []
    ys = feats
    for cell, before in zip(network.cells, state, strict=True):
        ys, end = _kernel(cell, ys, before)
        after.append(end)
    return ys, tuple(after)


def _kernel(cell: Cell, xs: Tensor, state: State) -> tuple[Tensor, State]:
    weights: list[Tensor] = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    before = [part.unsqueeze(0) for part in state]
    one_layer = (True, 1, 0.0, True, False, False)  # biases, layers, dropout, training, bidirectional, batch first
    if isinstance(cell, LSTM):
        ys, h, c = torch.lstm(xs, before, weights, *one_layer)
        return ys, (h[0], c[0])
    kernel = torch.gru if isinstance(cell, GRU) else torch.rnn_tanh
    ys, h = kernel(xs, before[0], weights, *one_layer)
    return ys, (h[0],)


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
