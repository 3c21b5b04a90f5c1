"""A stream's input state and the features a network sees; one code for serving and for training. Imports torch.

The float part of the state is a row of `width` values: per feature the running mean, variance and last value; the count
behind them; per target the standard deviation and the mean predicted for the next reading, in raw units, so that they
stay true when the scaler moves. Times and sequence numbers are in the clock, an int64 row (`rnn.nn.clock`).

`advance` is the readable whole. The engine calls its pieces, which work feature-major ([rows, streams], or a transposed
view) and in place, for there one operation is one run over memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rnn.config import ModelConfig
from rnn.nn import clock as clocks

CLIP = 10.0
"""Scaled values beyond this are cut, in features only: one wild reading must not saturate every gate."""

STD_FLOOR = 1e-3
"""Least standard deviation of a running scaler, as a share of the global one: a constant feature does not explode."""


class Columns(NamedTuple):
    """An input state's columns, feature-major, for n streams: views of one [width, n] tensor, in its order."""

    mean: Tensor  # [features, n]
    var: Tensor  # [features, n]
    last: Tensor  # [features, n]
    readings: Tensor  # [1, n], how many stand behind mean and var
    predicted_scale: Tensor  # [targets, n]
    predicted_mean: Tensor  # [targets, n]

    def at(self, span: slice) -> Columns:
        """The same of some of the streams."""
        return Columns(*(column[:, span] for column in self))


class Inputs:
    """The input side of one network: what a state row's columns mean, how a reading changes them and what cells see."""

    def __init__(self, config: ModelConfig, scaler_mean: Tensor, scaler_std: Tensor) -> None:
        """scaler_mean, scaler_std [features]: the global scaler, where every stream's own one starts."""
        features, targets = len(config.features), len(config.target_index)  # targets that are no features lie elsewhere
        self.features, self.targets = features, targets
        self.memory = config.scaler_memory
        self.interval_ms = config.interval_s * 1000.0
        self.width = 3 * features + 1 + 2 * targets
        self.lasting = 3 * features + 1  # first columns of a state, which outlive a sequence: scaler and last values
        self.outputs = outputs_of(config)  # of `advance`
        self._widths = [features, features, features, 1, targets, targets]  # of Columns
        self.var_floor = (scaler_std * STD_FLOOR).square().unsqueeze(1)  # [features, 1]
        self.target_index = torch.tensor(config.target_index, device=scaler_mean.device)
        # Tensors, for an operation with a Python number takes twice as long to begin.
        self._one, self._half = scaler_mean.new_ones(1), scaler_mean.new_full((1,), 0.5)
        # Nothing is predicted yet: a scale of NaN makes the first score NaN. A head without a scale leaves zeros.
        unsaid = scaler_mean.new_zeros(2 * targets)
        unsaid[:targets] = math.nan if config.head == "gaussian" else 0.0
        count = scaler_mean.new_full((1,), max(1, self.memory // 10))
        self._row = torch.cat((scaler_mean, scaler_std.square(), scaler_mean, count, unsaid))

    def columns(self, state: Tensor) -> Columns:
        """Views of input states laid out feature-major, [width, n]."""
        return Columns(*torch.split(state, self._widths))

    def initial(self, n: int) -> tuple[Tensor, Tensor]:
        """State of n streams that have had no reading: (x_state [n, width] float32, clock [n, 3] int64)."""
        clock = torch.tensor(clocks.INITIAL, dtype=torch.int64, device=self._row.device)
        return self._row.repeat(n, 1), clock.repeat(n, 1)

    def advance(
        self, x_state: Tensor, clock: Tensor, x: Tensor, at_ms: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Takes one reading of each of n streams in and says what the cells see of it.

        x_state [n, width], clock [n, 3] are changed in place; x [n, features] in raw units, NaN = missing; at_ms [n].
        Returns (features [n, outputs], scaled_last [n, features], std [n, features], mean [n, features]): the last
        three are what a head's residual needs: raw = (scaled_last + head mean) * std + mean. A late reading counts as
        no time after the last one, a stream's first reading as one interval after it.
        """
        missing = x.isnan()
        state = self.columns(x_state.t())
        self.fold(state, state, x.t().clone(), missing.t())
        std = torch.maximum(state.var, self.var_floor).sqrt_()
        scaled_last = (state.last - state.mean) / std
        last_ms = clock[:, 0]
        dt_ms = (at_ms - last_ms).clamp_(min=0).to(x.dtype).masked_fill_(last_ms == clocks.NEVER_MS, self.interval_ms)
        elapsed = self.elapsed(dt_ms).unsqueeze(1)
        last_ms.copy_(torch.maximum(last_ms, at_ms))
        features = torch.cat((scaled_last.clamp(-CLIP, CLIP).t(), missing.to(x.dtype), elapsed), dim=1)
        return features, scaled_last.t(), std.t(), state.mean.t().clone()

    def fold(self, old: Columns, new: Columns, x: Tensor, missing: Tensor | None) -> None:
        """Running scaler and last value after one reading; `new` may be `old`.

        x [features, n]; where `missing` [features, n] is set (None: nowhere), x becomes the last value, in place, and
        the scaler stays. Else, with the count capped at the scaler's memory so that the past fades (Welford 1962,
        exponential from there on):

            count' = min(count + 1, memory)         mean' = mean + (x - mean) / count'
            var'   = var + ((x - mean) (x - mean') - var) / count'

        Hazard: n may be any multiple of 8, so each operation must round but once (no fused multiply-add).
        """
        if missing is not None:
            x.copy_(torch.where(missing, old.last, x))
        if self.memory:
            rate = torch.add(old.readings, self._one, out=new.readings).clamp_(max=self.memory).reciprocal()  # [1, n]
            off = x - old.mean
            change = off * rate
            if missing is not None:
                change.masked_fill_(missing, 0)
            mean = torch.add(old.mean, change, out=new.mean)
            torch.sub(x, mean, out=change)
            off.mul_(change).sub_(old.var).mul_(rate)
            if missing is not None:
                off.masked_fill_(missing, 0)
            torch.add(old.var, off, out=new.var)
        elif new is not old:
            for was, now in zip(old[:4], new[:4], strict=True):
                now.copy_(was)
        new.last.copy_(x)

    def elapsed(self, dt_ms: Tensor, out: Tensor | None = None) -> Tensor:
        """log1p(dt / interval) - log 2, so that the usual interval gives 0. dt_ms [n] float32 >= 0 -> [n]."""
        return torch.add(self._half, dt_ms, alpha=0.5 / self.interval_ms, out=out).log_()


def outputs_of(config: ModelConfig) -> int:
    """How many features the cells see of a reading: scaled values, missing marks, elapsed time."""
    return 2 * len(config.features) + 1
