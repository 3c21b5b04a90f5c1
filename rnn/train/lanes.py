"""A past series cut into lanes that are stepped side by side, and what training sees of them.

Features come from `rnn.nn.inputs.Inputs.advance`, reading after reading: the very code that serves. Imports torch and
numpy; knows no optimiser and no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.nn.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Lanes:
    """Equally long pieces of one series, each a stream of its own that starts with nothing known."""

    x: NDArray[np.float32]  # [steps, lanes, features], raw units, NaN = missing
    at_ms: NDArray[np.int64]  # [steps, lanes]


@dataclass(frozen=True, slots=True)
class Windows:
    """What a network sees at every step of every lane, and what it should have said."""

    feats: Tensor  # [steps, lanes, inputs.outputs]
    change: Tensor  # [steps, lanes, targets]: (x_{t+1} - last value at t) / std at t, the truth for a head's mean
    weight: Tensor  # [steps, lanes, targets]: 1 = counts in the loss; 0 = missing, not to be known, or burn-in
    scaled: Tensor | None = None  # [steps, lanes, features, linear], the latest reading last; None without linear path

    def __len__(self) -> int:
        return len(self.feats)

    def each(self, window: int, start: int = 0) -> Iterator[Windows]:
        """Consecutive windows of `window` steps (the last one may be shorter), from step `start` on."""
        for lo in range(start, len(self), window):
            span = slice(lo, lo + window)
            scaled = None if self.scaled is None else self.scaled[span]
            yield Windows(self.feats[span], self.change[span], self.weight[span], scaled)

    def map(self, change: Callable[[Tensor], Tensor]) -> Windows:
        """The same with each tensor as `change` makes it. The linear path's is a view of features that overlap."""
        scaled = None if self.scaled is None else change(self.scaled)
        return Windows(change(self.feats), change(self.change), change(self.weight), scaled)

    @property
    def past(self) -> Tensor | None:
        """What the linear path sees at every step, [steps, lanes, linear * features], the latest reading first."""
        return None if self.scaled is None else self.scaled.flip(3).transpose(2, 3).flatten(2)


def pieces(series: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]], steps: int) -> Lanes:
    """Cuts each series (x [n, features], at_ms [n]) into as many pieces of `steps` readings as it has, one at least.

    Its oldest readings are left out where they do not fill a piece; a series shorter than `steps` is followed by
    readings that are missing whole, which never count. Raises ValueError where there is no series.
    """
    xs, ats = [], []
    for x, at_ms in series:
        short = steps - len(x)
        if short > 0:
            x = np.pad(x, ((0, short), (0, 0)), constant_values=np.nan)
            at_ms = np.pad(at_ms, (0, short), mode="edge")
        lanes = len(x) // steps
        kept = slice(len(x) - steps * lanes, None)
        xs.append(x[kept].reshape(lanes, steps, -1))
        ats.append(at_ms[kept].reshape(lanes, steps))
    return Lanes(
        np.ascontiguousarray(np.concatenate(xs).swapaxes(0, 1), dtype=np.float32),
        np.ascontiguousarray(np.concatenate(ats).T),
    )


def prepare(inputs: Inputs, lanes: Lanes, burn_in: int, linear: int = 0) -> Windows:
    """Features, truth and weights of every step. The first `burn_in` steps of a lane only warm its state up.

    A step counts if something was read at it and the target's next value is known. The last step of a lane never does:
    its truth lies outside the lane, maybe in a range that training must not look into.
    """
    x, at_ms = torch.from_numpy(lanes.x), torch.from_numpy(lanes.at_ms)
    steps, n, _ = x.shape
    targets = inputs.target_index
    feats = torch.empty(steps, n, inputs.outputs)
    change = torch.empty(steps, n, len(targets))
    state, clock = inputs.initial(n)
    for t in range(steps):
        feats[t], scaled_last, std, mean = inputs.advance(state, clock, x[t], at_ms[t])
        if t + 1 < steps:
            change[t] = ((x[t + 1] - mean) / std - scaled_last)[:, targets]
    change[-1] = torch.nan
    known = ~change.isnan() & ~x.isnan().all(dim=2, keepdim=True)
    known[:burn_in] = False
    scaled = None
    if linear:  # a view, for every reading is in it `linear` times
        before = feats.new_zeros(linear - 1, n, inputs.features)  # as a new stream's state has it
        scaled = torch.cat((before, feats[:, :, : inputs.features])).unfold(0, linear, 1)
    return Windows(feats, change.masked_fill_(~known, 0.0), known.to(torch.float32), scaled)


def moments(x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean, standard deviation) of what is observed of each feature, x [n, features] with NaN = missing.

    0 and 1 for a feature that was never seen; a standard deviation of 1 for one that never changes.
    """
    seen = ~np.isnan(x)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, x, 0.0).sum(axis=0, dtype=np.float64) / count
    std = np.sqrt(np.square(np.where(seen, x - mean, 0.0)).sum(axis=0) / count)
    std[~(std > np.maximum(1e-6 * np.abs(mean), 1e-12))] = 1.0
    return mean, std
