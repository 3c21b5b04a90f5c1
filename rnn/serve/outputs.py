"""What a network answers, given the states it is in: real values with a band, a class, or symbols one after another.

Rows are streams; nothing here knows slots, waves or time. Imports torch and numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.nn.cells import State
from rnn.nn.inputs import Inputs
from rnn.nn.network import Network


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers for m streams; the fields are those of `rnn.serve.result.Result`."""

    y: NDArray[np.float32]  # [m, width]
    lo: NDArray[np.float32] | None = None
    hi: NDArray[np.float32] | None = None
    top: NDArray[np.int32] | None = None  # [m, k]
    prob: NDArray[np.float32] | None = None  # [m, k] or [m, 1]
    cut: NDArray[np.bool_] | None = None  # [m], whose symbols did not end by themselves

    def chosen(self, rows: NDArray[np.int64] | slice) -> Answers:
        """The rows named."""
        optional = ("lo", "hi", "top", "prob", "cut")
        given = {name: getattr(self, name) for name in optional}
        return Answers(self.y[rows], **{name: None if array is None else array[rows] for name, array in given.items()})

    def mask_unavailable(self, rows: NDArray[np.bool_]) -> None:
        """Makes the rows [m] say nothing, in place."""
        for array in (self.y, self.lo, self.hi, self.prob):
            if array is not None:
                array[rows] = np.nan

    def all_finite(self) -> NDArray[np.bool_]:
        """Which rows are numbers. [m]"""
        edges = (self.y, self.lo, self.hi) if self.prob is None else (self.prob,)
        good = [np.isfinite(array).all(axis=1) for array in edges if array is not None]
        return np.asarray(np.logical_and.reduce(good))


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a forecast's scaled units lie: raw = (scaled_last + change) * std + mean. Each [m, targets]."""

    scaled_last: Tensor
    std: Tensor
    mean: Tensor

    @classmethod
    def of(cls, inputs: Inputs, x_state: Tensor) -> Scale:
        """From input states [m, width]."""
        columns = inputs.columns(x_state.t())
        std = torch.maximum(columns.var, inputs.var_floor).sqrt()
        scaled_last = (columns.last - columns.mean) / std
        return cls(*(part.t()[:, inputs.target_index] for part in (scaled_last, std, columns.mean)))


Context = tuple[Scale | None, Tensor | None]
"""What a forecast needs beside the hidden state: the scale, and the linear path's readings [m, linear * features]."""


class OutputDecoder:
    """The answering end of one network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.config = network.config

    def nothing(self, m: int) -> Answers:
        """Answers that say nothing, shaped as this network's are."""
        config = self.config
        y = np.full((m, config.width), np.nan, np.float32)
        if config.labels:
            k = 1 if config.decodes else min(config.top_k, len(config.classes))
            prob = np.full((m, k), np.nan, np.float32)
            return Answers(y, top=None if config.decodes else np.zeros((m, k), np.int32), prob=prob)
        return Answers(y, y.copy(), y.copy()) if self.network.head.BANDED else Answers(y)

    def predict_next(self, state: Sequence[State], past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the head says of the next step alone, (mean, scale) in its own units; for surprise. One way only."""
        network = self.network
        if self.config.decodes:
            n, targets = len(state[0][0]), len(self.config.targets)
            h, _ = network.decode(state[0][0].new_zeros(n, targets), state)
        else:
            h = network.top(state)
        mean, scale = network.head(h)
        return self._with_past(mean, scale, past)

    def of_state(self, state: Sequence[State], context: Context, keys: NDArray[np.uint64] | None = None) -> Answers:
        """Answers of streams in such a state; of one-to-many the decoder's. keys [m] seed the sampling."""
        if self.config.decodes:
            return self._spelt(state, keys) if self.config.labels else self._foretold(state, context)
        return self.of_h(self.network.top(state), context, keys)

    def of_h(self, h: Tensor, context: Context = (None, None), keys: NDArray[np.uint64] | None = None) -> Answers:
        """Answers of one step; h [m, out] is what the head sees."""
        mean, scale = self.network.head(h)
        if self.config.labels:
            return self._chosen(mean, keys)
        scales, past = context
        mean, scale = self._with_past(mean, scale, past)
        return self._real(mean, scale, scales)

    def _with_past(self, mean: Tensor, scale: Tensor | None, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        path = self.network.linear_path
        return (mean if path is None or past is None else mean + path(past)), scale

    def _foretold(self, state: Sequence[State], context: Context) -> Answers:
        mean, scale = self.network.rollout(state)  # [m, horizon, targets]
        scales, past = context
        path = self.network.linear_path
        if path is not None and past is not None:
            mean = torch.cat((mean[:, :1] + path(past).unsqueeze(1), mean[:, 1:]), dim=1)
        return self._real(mean, scale, scales)

    def _real(self, mean: Tensor, scale: Tensor | None, scales: Scale | None) -> Answers:
        y, band = self._raw(mean, scales), self.network.head.band(mean, scale)
        return Answers(y) if band is None else Answers(y, self._raw(band[0], scales), self._raw(band[1], scales))

    def _raw(self, values: Tensor, scales: Scale | None) -> NDArray[np.float32]:
        """[m, (horizon,) targets] in the head's units -> [m, width] in raw ones."""
        if scales is None:
            values = values * self.network.target_std + self.network.target_mean
        elif values.dim() == 3:
            values = (values + scales.scaled_last.unsqueeze(1)) * scales.std.unsqueeze(1) + scales.mean.unsqueeze(1)
        else:
            values = (values + scales.scaled_last) * scales.std + scales.mean
        return np.array(values.reshape(len(values), -1).cpu().numpy())

    def _chosen(self, logits: Tensor, keys: NDArray[np.uint64] | None) -> Answers:
        """The class of each row, the most probable ones beside it."""
        p, top = torch.softmax(logits, dim=-1).topk(min(self.config.top_k, logits.shape[-1]), dim=-1)
        prob, classes = p.cpu().numpy(), top.cpu().numpy()
        place = self._draw(prob, keys, 0)
        y = np.take_along_axis(classes, place[:, None], axis=1).astype(np.float32)
        return Answers(y, top=classes.astype(np.int32), prob=prob)

    def _draw(self, prob: NDArray[np.float32], keys: NDArray[np.uint64] | None, step: int) -> NDArray[np.int64]:
        """Which of the listed classes is said: the first, or one drawn with p^(1/temperature). prob [m, k] -> [m]"""
        if not self.config.temperature or keys is None:
            return np.zeros(len(prob), np.int64)
        with np.errstate(divide="ignore", under="ignore"):
            logits = np.log(prob.astype(np.float64)) / self.config.temperature
        share = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
        place = (share <= uniform(keys, step)[:, None] * share[:, -1:]).sum(axis=1)
        return np.asarray(np.minimum(place, prob.shape[1] - 1))

    def _spelt(self, state: Sequence[State], keys: NDArray[np.uint64] | None) -> Answers:
        """Symbol after symbol, each fed with the one before it, until all have said the last class (the end)."""
        m, horizon, end = len(state[0][0]), self.config.horizon, len(self.config.classes) - 1
        y = np.full((m, horizon), np.nan, np.float32)
        log_p, ended = np.zeros(m), np.zeros(m, np.bool_)
        said = torch.full((m,), -1, dtype=torch.int64, device=state[0][0].device)
        for step in range(horizon):
            h, state = self.network.decode(said, state)
            logits, _ = self.network.head(h)
            p, top = torch.softmax(logits, dim=-1).topk(min(self.config.top_k, logits.shape[-1]), dim=-1)
            prob, classes = p.cpu().numpy(), top.cpu().numpy()
            place = self._draw(prob, keys, step)[:, None]
            symbol = np.take_along_axis(classes, place, axis=1)[:, 0]
            with np.errstate(divide="ignore"):
                log_p[~ended] += np.log(np.take_along_axis(prob, place, axis=1)[:, 0])[~ended]
            ended |= symbol == end
            y[~ended, step] = symbol[~ended]
            said = torch.from_numpy(symbol.astype(np.int64)).to(said.device)
            if ended.all():
                break
        return Answers(y, prob=np.exp(log_p).astype(np.float32)[:, None], cut=~ended)


def uniform(keys: NDArray[np.uint64], step: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each key and step: splitmix64 (Steele, Lea and Flood 2014). The same on every machine."""
    with np.errstate(over="ignore"):
        z = keys + np.uint64(0x9E3779B97F4A7C15) * np.uint64(step + 1)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
