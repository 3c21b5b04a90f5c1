"""One training of a forecast, epoch after epoch: loss, optimiser, averaged weights, what is kept, where it stands.

Several processes may share it (`rnn.train.process_group`): each has its lanes, all take the same steps. Imports torch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rnn.io import checkpoint as checkpoints
from rnn.io.checkpoint import TrainerState
from rnn.nn.cells import State
from rnn.nn.heads import Quantile
from rnn.nn.network import Network
from rnn.train.lanes import Windows
from rnn.train.process_group import ProcessGroup
from rnn.train.recipe import Recipe
from rnn.train.unroll import unroll


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What is known after one pass over the training range. Errors are mean squares in scaled units."""

    epoch: int  # from 1
    epochs: int  # as planned
    train_mse: float
    validation_mse: float
    persistence_mse: float  # of predicting the last value, on the same validation steps
    seconds: float  # since the start, over all sittings
    kept: bool  # best so far


Progress = Callable[[EpochMetrics], None]


def run(
    network: Network,
    train: Windows,
    validation: Windows,
    recipe: Recipe,
    progress: Progress | None,
    checkpoint: Path | None,
    identity: str,
    team: ProcessGroup,
    groups: int = 1,
) -> list[EpochMetrics]:
    """Trains on the team's lanes of this process, in so many groups one after the other; leaves the weights of the best
    epoch in `network`.
    """
    windows = groups * math.ceil(len(train) / recipe.window)
    planned = math.ceil(recipe.updates / windows)
    learning = {name: one for name, one in network.named_parameters() if not name.startswith("linear_path")}
    optimiser = torch.optim.AdamW(
        learning.values(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=planned * windows + 1, pct_start=0.2
    )
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging))  # type: ignore[no-untyped-call]
    persistence_mse = _mse([torch.zeros_like(validation.change)], validation, team)
    best_weights, stale, update = network.state_dict(), 0, 0
    epochs: list[EpochMetrics] = []
    standing = None if checkpoint is None else checkpoints.read(checkpoint, identity)
    if standing is not None:
        epochs = [EpochMetrics(**one) for one in standing.said["epochs"]]
        best_weights, stale, update = standing.best, standing.said["stale"], standing.said["update"]
        network.load_state_dict(standing.weights)
        average.load_state_dict(standing.average)
        checkpoints.load_optimizer_state(optimiser, learning, standing.moments)
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
        order = torch.randperm(train.feats.shape[1]) if groups > 1 else None
        if not team.first:  # other lanes, other draws of what is hidden from them
            checkpoints.reseed(recipe.seed + team.rank, number)
        errors, counted = train.change.new_zeros(()).double(), train.change.new_zeros(()).double()
        network.train()
        for group in _grouped(train, order, groups):
            counts = _counts(group, team)
            state: Sequence[State] | None = None
            for place, window in enumerate(group.each(recipe.window, start)):
                h, state = _unrolled(network, window.feats, state, team)
                state = [tuple(part.detach() for part in layer) for layer in state]
                loss, squares = _loss(network, h, window)
                if counts is not None:
                    at = start + place * recipe.window
                    loss = loss * (window.weight.sum() / counts[at : at + recipe.window].sum().clamp(min=1))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                team.all_reduce([one.grad for one in learning.values() if one.grad is not None])
                nn.utils.clip_grad_norm_(learning.values(), recipe.clip_norm)
                optimiser.step()
                schedule.step()
                average.update_parameters(network)
                stale += 1
                update += 1
                errors += squares
                counted += window.weight.sum()
        team.all_reduce([errors, counted])
        averaged = average.module.eval()
        assert isinstance(averaged, Network)
        mse = _mse(said(averaged, validation, team)[0], validation, team)
        if not math.isfinite(mse):
            raise FloatingPointError(f"training diverged in epoch {number}: lower the learning rate")
        kept = mse < best
        if kept:
            best, best_weights, stale = mse, copy.deepcopy(averaged.state_dict()), 0
        elapsed_s = team.broadcast_scalar(time.monotonic() - began)
        train_mse = float(errors) / max(float(counted), 1.0)
        epochs.append(EpochMetrics(number, planned, train_mse, mse, persistence_mse, elapsed_s, kept))
        if checkpoint is not None and team.first:
            told = {"epochs": [asdict(one) for one in epochs], "stale": stale, "update": update}
            moved = checkpoints.moments_of(optimiser, learning)
            weights = network.state_dict()
            TrainerState(identity, told, weights, average.state_dict(), best_weights, moved).write(checkpoint)
        if progress is not None:
            progress(epochs[-1])
    network.load_state_dict(best_weights)
    return epochs


def said(network: Network, windows: Windows, team: ProcessGroup) -> tuple[list[Tensor], list[Tensor]]:
    """(means, scales) at every step, window by window, [steps, lanes, ..], without gradients; the linear path is in the
    mean. No scales of a head without a band.
    """
    means: list[Tensor] = []
    scales: list[Tensor] = []
    state: Sequence[State] | None = None
    with torch.no_grad():
        for window in windows.each(256) if windows.feats.shape[1] else ():
            h, state = _unrolled(network, window.feats, state, team)
            mean, scale = network.head(h)
            means.append(with_path(network, mean, window))
            scales += [scale] if scale is not None else []
    return means, scales


def with_path(network: Network, mean: Tensor, windows: Windows) -> Tensor:
    """The mean with what the linear path says."""
    past = windows.past
    return mean if network.linear_path is None or past is None else mean + network.linear_path(past).detach()


def _unrolled(
    network: Network, feats: Tensor, state: Sequence[State] | None, team: ProcessGroup
) -> tuple[Tensor, Sequence[State]]:
    if not team.mixed:
        return unroll(network, feats, state)
    with torch.autocast(feats.device.type, torch.bfloat16):
        h, after = unroll(network, feats, state)
    return h.float(), [tuple(part.float() for part in layer) for layer in after]


def _over(recipe: Recipe, latest: EpochMetrics, stale: int) -> bool:
    """Whether no epoch is to follow the latest, which was `stale` updates after the best one."""
    return stale >= recipe.patience or (recipe.budget_s is not None and latest.seconds >= recipe.budget_s)


def _grouped(train: Windows, order: Tensor | None, groups: int) -> Iterator[Windows]:
    """The lanes in `groups` of about one size, drawn by `order`."""
    if order is None:
        yield train
        return
    for some in order.to(train.feats.device).tensor_split(groups):
        yield train.map(lambda part, some=some: part[:, some])  # type: ignore[misc]


def _counts(train: Windows, team: ProcessGroup) -> Tensor | None:
    """How many values count at each step in the lanes of all processes [steps]; None where there is one process.

    A process's loss is a mean over its own values; weighed by its share of them, the losses add up to that of one
    process with all lanes.
    """
    if team.size == 1:
        return None
    counts = train.weight.sum(dim=(1, 2))
    team.all_reduce([counts])
    return counts


def _loss(network: Network, h: Tensor, window: Windows) -> tuple[Tensor, Tensor]:
    """(loss, sum of squared errors). The mean and all below it learn from squared error alone, in scaled units; a
    head's scale learns how wide the error is for the given h, without a say in what h or the mean become: likelihood
    would trade accuracy on the large changes for certainty about the small ones. A quantile head's mean is a median
    and learns from its own loss.
    """
    h = functional.dropout(h, network.config.dropout, network.training)
    mean = with_path(network, network.head(h)[0], window)
    squares = ((mean - window.change).square() * window.weight).sum()
    if isinstance(network.head, Quantile):
        _, scale = network.head(h)
        return network.head.loss(mean, scale, window.change, window.weight), squares.detach()
    loss = squares / window.weight.sum().clamp(min=1)
    if network.head.BANDED:
        _, scale = network.head(h.detach())
        loss = loss + network.head.loss(mean.detach(), scale, window.change, window.weight)
    return loss, squares.detach()


def _mse(means: Sequence[Tensor], windows: Windows, team: ProcessGroup) -> float:
    """Over the lanes of all processes."""
    sums = windows.change.new_zeros(2)
    if means:
        mean = torch.cat(list(means))
        sums[0] = ((mean - windows.change).square() * windows.weight).sum()
        sums[1] = windows.weight.sum()
    team.all_reduce([sums])
    return float(sums[0] / sums[1].clamp(min=1))
