"""What turns a hidden state into a prediction, with its loss, band and surprise. Imports torch only.

A head speaks residually and in scaled units: its mean is the change that the next reading's scaled target will show
against the last one, its scale the standard deviation of that. An untrained head thus predicts persistence.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional

SCALE_FLOOR = 1e-3
"""Least standard deviation a Gaussian head may claim, in scaled units: keeps a constant sensor's score finite."""

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Point(nn.Module):
    """mean = W h + b. No scale: no band, and no surprise."""

    OUTPUTS = 1

    def __init__(self, hidden: int, targets: int) -> None:
        super().__init__()
        self.targets = targets
        self.linear = nn.Linear(hidden, self.OUTPUTS * targets)
        if self.linear.weight.is_meta:  # see Cell.reset_parameters
            return
        nn.init.normal_(self.linear.weight, std=0.1 / math.sqrt(hidden))
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """h [..., hidden] -> (mean [..., targets], None)."""
        return self.linear(h), None

    def loss(self, mean: Tensor, scale: Tensor | None, truth: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean squared error, a scalar. truth as mean; weight (1 = counts, 0 = does not) broadcasts against it."""
        return _mean((mean - truth).square(), weight)


class Gaussian(Point):
    """mean = W_m h + b_m, scale = softplus(W_s h + b_s) + floor: a Gaussian for each target on its own."""

    OUTPUTS = 2

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """h [..., hidden] -> (mean [..., targets], scale [..., targets])."""
        mean, raw = self.linear(h).split(self.targets, dim=-1)
        return mean, functional.softplus(raw) + SCALE_FLOOR

    def loss(self, mean: Tensor, scale: Tensor | None, truth: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean surprise in nats per observed value, a scalar; arguments as `Point.loss`."""
        assert scale is not None
        return _mean(surprise(mean, scale, truth), weight)


def surprise(mean: Tensor, scale: Tensor, truth: Tensor) -> Tensor:
    """-log N(truth; mean, scale^2) in nats, element by element: 0.5 z^2 + log scale + 0.5 log 2 pi."""
    return 0.5 * ((truth - mean) / scale).square() + torch.log(scale) + HALF_LOG_TWO_PI


def band_width(level: float) -> float:
    """Half the width, in standard deviations, of the central interval that holds `level` of a Gaussian."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def band(mean: Tensor, scale: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """(lo, hi) of the central interval that holds `level` of the Gaussian."""
    half = scale * band_width(level)
    return mean - half, mean + half


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values.mean()
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)


HEADS: dict[str, type[Point]] = {"point": Point, "gaussian": Gaussian}
"""The head of each name that `ModelConfig.head` may have."""
