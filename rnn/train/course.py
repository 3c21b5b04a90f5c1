"""One training, pass after pass over passages: the optimiser, the averaged weights, what is kept, where it stands.

Imports torch and numpy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rnn.io import checkpoint as checkpoints
from rnn.io.checkpoint import TrainerState
from rnn.nn.network import Network, States
from rnn.train import objectives
from rnn.train.practice import Practice
from rnn.train.segments import Passage, TrainingBatch, batch


@dataclass(frozen=True, slots=True)
class Pass:
    """What is known after one pass over the training part. Losses are nats of a class, else mean squares, scaled."""

    number: int  # from 1
    passes: int  # as planned
    train_loss: float
    validation_loss: float
    baseline_loss: float  # of the training part's class frequencies, or of no change: what knowing nothing costs
    accuracy: float | None  # share of right classes on what is held back
    seconds: float  # since the start, over all sittings
    kept: bool  # best so far


class Course:
    """One training: the network, its averaged twin, the optimiser and the record of passes."""

    def __init__(
        self, network: Network, early: list[Passage], late: list[Passage], practice: Practice, identity: str
    ) -> None:
        self.network, self.early, self.late, self.practice, self.identity = network, early, late, practice, identity
        config = network.config
        longest = max(map(len, early))
        # A window cuts the flow of gradients. Answers at the end need all of it, and a backward layer has no state.
        whole = config.at_end or config.direction != "forward" or longest <= practice.window
        self.window = longest if whole else practice.window
        side_by_side = practice.sequences if whole else practice.lanes
        self.groups = max(1, math.ceil(len(early) / side_by_side))
        windows = sum(math.ceil(max(map(len, group)) / self.window) for group in self._grouped(0, early))
        self.passes = max(math.ceil(practice.updates / windows), practice.least_passes)
        self.updates = self.passes * (windows + self.groups)  # windows begin elsewhere in each pass: one more at most
        self.parameters = dict(network.named_parameters())
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=practice.learning_rate, betas=(0.9, 0.99), weight_decay=practice.weight_decay
        )
        self.average = {name: one.detach().clone() for name, one in self.parameters.items()}
        self.best = {name: one.clone() for name, one in self.average.items()}
        self.best_worth, self.stale, self.update = (math.inf, math.inf), 0, 0
        self.made: list[Pass] = []
        self.class_weight, self.baseline = _classes(network, early, late, practice)

    def run(self, progress: Callable[[Pass], None] | None, checkpoint: Path | None) -> list[Pass]:
        """Leaves the best weights in the network."""
        if checkpoint is not None:
            self._resume(checkpoint)
        began = time.monotonic() - (self.made[-1].seconds if self.made else 0.0)
        stopped = self.stale >= self.practice.patience
        while len(self.made) < self.passes and not stopped:
            number = len(self.made) + 1
            checkpoints.reseed(self.practice.seed, number)
            train_loss = self._learn(number)
            with self._averaged():
                validation_loss, accuracy = self._judge()
                if not math.isfinite(validation_loss):
                    raise FloatingPointError(f"training diverged in pass {number}: lower the learning rate")
                worth = self._worth(validation_loss, accuracy)
                kept = worth < self.best_worth
                if kept:
                    self.best_worth, self.stale = worth, 0
                    self.best = {name: one.detach().clone() for name, one in self.parameters.items()}
            elapsed_s = time.monotonic() - began
            self.made.append(
                Pass(number, self.passes, train_loss, validation_loss, self.baseline, accuracy, elapsed_s, kept)
            )
            budget_s = self.practice.budget_s
            stopped = self.stale >= self.practice.patience or (budget_s is not None and elapsed_s >= budget_s)
            if checkpoint is not None:
                self._standing().write(checkpoint)
            if progress is not None:
                progress(self.made[-1])
        _put(self.parameters, self.best)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return self.made

    def _learn(self, number: int) -> float:
        """One pass; its mean loss."""
        network, practice = self.network.train(), self.practice
        total, count, longest = 0.0, 0, max(map(len, self.early))
        for group in self._grouped(number, self.early):
            whole = self._shaken(batch(group))
            first = self.window if self.window >= longest else int(torch.randint(1, self.window + 1, ()))
            edges = [0, *range(first, len(whole.raw), self.window), len(whole.raw)]
            state: States | None = None
            for begin, after in pairwise(edges):
                seen = whole.window(slice(begin, after))
                if network.config.symbolic and practice.unknown:
                    raw = seen.raw.masked_fill(torch.rand(seen.raw.shape) < practice.unknown, 0.0)
                    seen = replace(seen, raw=raw)
                shift = int(torch.randint(0, 1 << 20, ()))
                said, state = objectives.forward_batch(network, seen, state, practice.stride, shift)
                if said is None:
                    continue
                loss = objectives.loss(network, said, self.class_weight)
                self._step(loss)
                total += float(loss.detach())
                count += 1
        return total / max(count, 1)

    def _shaken(self, whole: TrainingBatch) -> TrainingBatch:
        """The features of each lane mixed a little, the same way at all its steps."""
        config, jitter = self.network.config, self.practice.jitter
        if not jitter or config.symbolic or not config.recurrent or not config.labels:
            return whole
        features, n = len(config.features), whole.raw.shape[1]
        mix = torch.eye(features) + jitter * torch.randn(n, features, features)
        mixed = torch.einsum("tnf,nfg->tng", whole.raw[..., :features], mix) + jitter * torch.randn(n, features)
        return replace(whole, raw=torch.cat((mixed, whole.raw[..., features:]), dim=2))

    def _step(self, loss: Tensor) -> None:
        self.optimiser.param_groups[0]["lr"] = self.practice.learning_rate * one_cycle(self.update / self.updates)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.practice.clip_norm)
        self.optimiser.step()
        self.update += 1
        self.stale += 1
        share = max(1 - self.practice.averaging, 3 / (3 + self.update))  # of the newest weights; the first ones fade
        newest = [one.detach() for one in self.parameters.values()]
        torch._foreach_lerp_([self.average[name] for name in self.parameters], newest, share)

    def _judge(self) -> tuple[float, float | None]:
        """(loss on what is held back, share of right classes); each long passage read from its beginning."""
        network, total, count, right = self.network.eval(), 0.0, 0.0, 0.0
        with torch.no_grad():
            for said in answers(network, self.late, self.practice):
                loss, values, correct = objectives.evaluate_batch(network, said)
                total, count, right = total + loss, count + values, right + correct
        return total / max(count, 1.0), right / max(count, 1.0) if network.config.labels else None

    def _worth(self, loss: float, accuracy: float | None) -> tuple[float, float]:
        """What passes are compared by, less is better. Of texts the share of wrong symbols comes first: what is said is
        the most probable one, and a network of few sentences grows too sure long before it has learned to say them.
        """
        spells = self.network.config.labels and self.network.config.decodes
        return (1 - accuracy if spells and accuracy is not None else 0.0, loss)

    def _grouped(self, number: int, whole: list[Passage]) -> Iterator[list[Passage]]:
        """Groups of passages of about one length, in the order that pass `number` draws."""
        random = np.random.default_rng([self.practice.seed, number])
        length = np.array([len(one) for one in whole]) * random.uniform(0.8, 1.25, len(whole))
        order = random.permutation(len(whole))
        order = order[np.argsort(length[order], kind="stable")]
        for group in random.permutation(self.groups):
            chosen = np.array_split(order, self.groups)[group]
            yield [whole[k] for k in chosen]

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """With the averaged weights in the network."""
        own = {name: one.detach().clone() for name, one in self.parameters.items()}
        _put(self.parameters, self.average)
        try:
            yield
        finally:
            _put(self.parameters, own)

    def _standing(self) -> TrainerState:
        said = {"passes": [asdict(one) for one in self.made], "stale": self.stale, "update": self.update}
        moments = checkpoints.moments_of(self.optimiser, self.parameters)
        weights = {name: one.detach() for name, one in self.parameters.items()}
        return TrainerState(self.identity, said, weights, self.average, self.best, moments)

    def _resume(self, path: Path) -> None:
        standing = checkpoints.read(path, self.identity)
        if standing is None:
            return
        self.made = [Pass(**one) for one in standing.said["passes"]]
        self.stale, self.update = standing.said["stale"], standing.said["update"]
        worths = (self._worth(one.validation_loss, one.accuracy) for one in self.made if one.kept)
        self.best_worth = min(worths, default=(math.inf, math.inf))
        _put(self.parameters, standing.weights)
        self.average, self.best = standing.average, standing.best
        checkpoints.load_optimizer_state(self.optimiser, self.parameters, standing.moments)


def one_cycle(done: float) -> float:
    """Share of the peak learning rate when a share `done` of the updates is: up over a fifth, then down to nothing."""
    up = min(done / 0.2, 1.0)
    if up < 1:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * up)) / 2
    return max(1e-4, (1 + math.cos(math.pi * min(1.0, (done - 0.2) / 0.8))) / 2)


def answers(network: Network, late: list[Passage], practice: Practice) -> Iterator[objectives.ModelOutput]:
    """What the network says of the passages, a few at a time; long ones are read from their beginning."""
    order = sorted(late, key=len)
    for begin in range(0, len(order), practice.lanes):
        whole = batch(order[begin : begin + practice.lanes])
        said, _ = objectives.forward_batch(network, whole, None, practice.stride)
        if said is not None:
            yield said


def _classes(
    network: Network, early: list[Passage], late: list[Passage], practice: Practice
) -> tuple[Tensor | None, float]:
    """(weight of each class, loss of knowing nothing but what is usual)."""
    if not network.config.labels:
        truth = torch.cat([one.truth[one.weight > 0] for one in late])
        return None, float(truth.square().mean())
    count = torch.zeros(2, len(network.config.classes))
    for place, part in enumerate((early, late)):
        seen = torch.cat([one.truth[one.weight > 0] for one in part]).long()
        count[place] = torch.bincount(seen, minlength=count.shape[1])
    share = (count[0] + 1) / (count[0] + 1).sum()
    baseline = float(-(count[1] / count[1].sum() * share.log()).sum())
    weight = share**-practice.balance
    return (weight / (weight * share).sum() if practice.balance else None), baseline


def _put(into: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, one in into.items():
        one.data.copy_(values[name])
