"""What turns a hidden state into a prediction, with its loss, band and surprise. Imports torch only.

A head for real values says a mean and a scale. Where the next reading is forecast it speaks residually and in scaled
units: its mean is the change that the next reading's scaled target will show against the last one, its scale the width
of the error of that. An untrained head thus predicts persistence.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnn.nn.linear import Linear

SCALE_FLOOR = 1e-3
"""Least scale a head may claim, in scaled units: keeps a constant sensor's score finite."""

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Point(nn.Module):
    """mean = W h + b. No scale: no band, and no surprise."""

    OUTPUTS = 1
    BANDED = False
    LIKELY = False  # whether it says how probable a truth is, so that there is a surprise

    def __init__(self, hidden: int, targets: int, level: float = 0.8) -> None:
        super().__init__()
        self.targets = targets
        self.level = level
        self.linear = Linear(hidden, self.OUTPUTS * targets)
        if self.BANDED:  # factors on the band's half widths that held-back data asked for, see `rnn.train.calibrate`
            self.register_buffer("calibration", torch.ones(targets))
        if self.linear.weight.is_meta:  # see Cell.reset_parameters
            return
        nn.init.normal_(self.linear.weight, std=0.1 / math.sqrt(hidden))
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """h [..., hidden] -> (mean [..., targets], None)."""
        return self.linear(h), None

    def loss(self, mean: Tensor, scale: Tensor | None, truth: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean squared error, a scalar. truth as mean; weight (1 = counts, 0 = does not) broadcasts against it."""
        return weighted((mean - truth).square(), weight)

    def surprise(self, mean: Tensor, scale: Tensor | None, truth: Tensor) -> Tensor:
        """-log p(truth) in nats, element by element [..., targets]; NaN for a head that says no probabilities."""
        return torch.full_like(mean, math.nan)

    def band(self, mean: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """(lo, hi), each as mean, of the central interval meant to hold `level`; None for a head without one."""
        return None


class Gaussian(Point):
    """mean = W_m h + b_m, scale = softplus(W_s h + b_s) + floor: a Gaussian for each target on its own."""

    OUTPUTS = 2
    BANDED = True
    LIKELY = True
    calibration: Tensor

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """h [..., hidden] -> (mean [..., targets], scale [..., targets])."""
        mean, raw = self.linear(h).split(self.targets, dim=-1)
        return mean, functional.softplus(raw) + SCALE_FLOOR

    def loss(self, mean: Tensor, scale: Tensor | None, truth: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean surprise in nats per observed value, a scalar; arguments as `Point.loss`."""
        return weighted(self.surprise(mean, scale, truth), weight)

    def surprise(self, mean: Tensor, scale: Tensor | None, truth: Tensor) -> Tensor:
        assert scale is not None
        return surprise(mean, scale, truth)

    def half_width(self) -> Tensor:
        """Half the band's width in scales, calibrated. [targets]"""
        return self.calibration * band_width(self.level)

    def band(self, mean: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor] | None:
        assert scale is not None
        half = scale * self.half_width()
        return mean - half, mean + half


class Student(Gaussian):
    """Student's t for each target: mean and scale as the Gaussian's, degrees of freedom a weight of the target.

    nu = 2 + softplus(raw): the variance exists. Heavy tails make one wild reading cost little in training and let an
    ordinary one score as ordinary.
    """

    def __init__(self, hidden: int, targets: int, level: float = 0.8) -> None:
        super().__init__(hidden, targets, level)
        self.raw_freedom = nn.Parameter(torch.full((targets,), 2.0))

    @property
    def freedom(self) -> Tensor:
        """nu of each target [targets]."""
        return 2.0 + functional.softplus(self.raw_freedom)

    def surprise(self, mean: Tensor, scale: Tensor | None, truth: Tensor) -> Tensor:
        assert scale is not None
        nu = self.freedom
        z = (truth - mean) / scale
        norm = torch.lgamma(nu / 2) - torch.lgamma((nu + 1) / 2) + 0.5 * torch.log(nu * math.pi)
        return norm + torch.log(scale) + (nu + 1) / 2 * torch.log1p(z.square() / nu)

    def half_width(self) -> Tensor:
        nu = self.freedom.detach().double()
        quantiles = [student_quantile(0.5 + self.level / 2, float(one)) for one in nu.cpu()]
        return self.calibration * self.calibration.new_tensor(quantiles)


class Quantile(Point):
    """Median and the two edges of the band, by pinball loss (Koenker and Bassett 1978).

    lo = mean - softplus(a), hi = mean + softplus(b): edges cannot cross. Says no probabilities, hence no surprise. Its
    scale holds the two half widths, below and above, side by side.
    """

    OUTPUTS = 3
    BANDED = True
    calibration: Tensor

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """h [..., hidden] -> (median [..., targets], half widths [..., 2 * targets])."""
        raw = self.linear(h)
        mean, raw = raw[..., : self.targets], raw[..., self.targets :]
        return mean, functional.softplus(raw) + SCALE_FLOOR

    def loss(self, mean: Tensor, scale: Tensor | None, truth: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean pinball loss over the three quantiles, a scalar; arguments as `Point.loss`."""
        assert scale is not None
        below, above = scale[..., : self.targets], scale[..., self.targets :]
        tail = (1 - self.level) / 2
        losses = pinball(truth - mean, 0.5)
        losses = losses + pinball(truth - (mean - below), tail) + pinball(truth - (mean + above), 1 - tail)
        return weighted(losses / 3, weight)

    def band(self, mean: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor] | None:
        assert scale is not None
        below, above = scale[..., : self.targets], scale[..., self.targets :]
        return mean - below * self.calibration, mean + above * self.calibration


class Categorical(Point):
    """Logits of each class; `targets` is their number. The probabilities are their softmax."""

    LIKELY = True

    def loss(self, mean: Tensor, scale: Tensor | None, truth: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean cross-entropy in nats. mean [..., classes], truth [...] class numbers, weight [...]."""
        return weighted(self.surprise(mean, scale, truth), weight)

    def surprise(self, mean: Tensor, scale: Tensor | None, truth: Tensor) -> Tensor:
        """-log p(class) in nats; truth [...] class numbers (negative ones count as class 0: weigh them 0)."""
        log_p = torch.log_softmax(mean, dim=-1)
        return -log_p.gather(-1, truth.long().clamp(min=0).unsqueeze(-1)).squeeze(-1)


def surprise(mean: Tensor, scale: Tensor, truth: Tensor) -> Tensor:
    """-log N(truth; mean, scale^2) in nats, element by element: 0.5 z^2 + log scale + 0.5 log 2 pi."""
    return 0.5 * ((truth - mean) / scale).square() + torch.log(scale) + HALF_LOG_TWO_PI


def pinball(error: Tensor, level: float) -> Tensor:
    """Loss of a quantile whose truth lies `error` above it; least in expectation at the quantile `level`."""
    return torch.maximum(level * error, (level - 1) * error)


def band_width(level: float) -> float:
    """Half the width, in standard deviations, of the central interval that holds `level` of a Gaussian."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def student_quantile(level: float, nu: float) -> float:
    """The quantile `level` > 0.5 of Student's t with `nu` degrees of freedom; by bisection of its distribution.

    With t = tan(a) sqrt(nu), P(0 < T < t) is the integral of cos^(nu - 1) over (0, a), divided by twice that to pi/2.
    """
    nodes = torch.linspace(0.0, math.pi / 2, 20_001, dtype=torch.float64)
    density = torch.cos(nodes).clamp(min=0) ** (nu - 1)
    mass = torch.cumulative_trapezoid(density, nodes)
    share = mass / mass[-1] / 2 + 0.5
    after = int(torch.searchsorted(share, level))
    low = float(share[after - 1]) if after else 0.5
    inside = (level - low) / (float(share[after]) - low)
    return math.tan(float(nodes[after]) + inside * float(nodes[1])) * math.sqrt(nu)


def weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of values, weighed; 0 where nothing counts."""
    if weight is None:
        return values.mean()
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)


HEADS: dict[str, type[Point]] = {
    "point": Point,
    "gaussian": Gaussian,
    "student": Student,
    "quantile": Quantile,
    "categorical": Categorical,
}
"""The head of each name that `ModelConfig.head` may have."""
