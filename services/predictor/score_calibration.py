"""How surprising readings usually are: the tail of a model's scores, fitted once, on the past. Imports numpy only.

`Tail` turns a number into nats, -log of the probability that a normal one is at least as large; `Calibration` holds the
two tails that `services.predictor.anomaly` starts every stream from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 30
"""Scores below which there is nothing to calibrate on."""
MOST = 50_000
"""Scores beyond which more of them are not looked at."""
STEP_NATS = 0.1  # between two knots


class TooFewScores(ValueError):
    """A tail cannot be fitted to so few scores. The message says how many there must be."""


@dataclass(frozen=True, slots=True)
class Tail:
    """P(normal value >= v): empirical up to the last knot, a generalised Pareto tail beyond it (Pickands 1975)."""

    values: NDArray[np.float64]  # [knots], increasing
    nats: NDArray[np.float64]  # [knots], increasing from 0
    shape: float  # xi of the tail, > 0
    scale: float  # sigma of the tail, > 0
    _slope: NDArray[np.float64] = field(init=False, repr=False)  # [knots], nats by value up to there

    def __post_init__(self) -> None:
        slope = np.diff(self.nats, append=self.nats[-1]) / np.diff(self.values, append=np.inf)
        object.__setattr__(self, "_slope", slope)

    @classmethod
    def fitted(cls, values: NDArray[np.floating], prior_shape: float, prior_count: float) -> Tail:
        """Fits n values, NaN = none. The tail begins where about 3 sqrt(n) values are left, at most a tenth; its shape
        is Zhang and Stephens's (2009), drawn towards `prior_shape` as by so many excesses that had it.

        Raises TooFewScores.
        """
        known = np.sort(values[np.isfinite(values)].astype(np.float64))
        n = len(known)
        if n < LEAST:
            raise TooFewScores(f"{n} readings with a score are too few to calibrate alarms on: give {LEAST} at least")
        left = max(5, int(min(n / 10, max(40, 3 * math.sqrt(n)))))
        last = math.log(n / left)
        nats = np.append(np.arange(0, last, STEP_NATS), last)
        knots = known[np.clip((n * -np.expm1(-nats)).astype(np.int64), 0, n - 1)]
        knots, first = np.unique(knots, return_index=True)  # of equal ones the least surprising: "at least as large"
        excess = known[n - left :] - knots[-1]
        usual = (knots[-1] - known[n // 2]) / (last - math.log(2))  # growth over one nat before the tail
        shape, scale = _pareto(excess) if excess[-1] > 0 else (prior_shape, usual)
        shape = max(0.01, (left * shape + prior_count * prior_shape) / (left + prior_count))
        return cls(knots, nats[first], shape, max(scale, 0.05 * usual, 1e-6))

    def surprise(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """-log P(normal value >= v) of each of n values, in nats, >= 0; NaN stays NaN."""
        v = values.astype(np.float64)
        place = np.maximum(self.values.searchsorted(v, side="right") - 1, 0)
        # Beyond the last knot the slope is 0, and the distance must not be infinite there.
        inside = (
            self.nats[place] + np.maximum(np.minimum(v, self.values[-1]) - self.values[place], 0) * self._slope[place]
        )
        beyond = np.maximum(v - self.values[-1], 0) / self.scale
        nats: NDArray[np.float64] = inside + np.log1p(self.shape * beyond) / self.shape
        return nats

    def at(self, nats: float) -> float:
        """The value that is so surprising; beyond the last knot, where it is wanted."""
        further = max(0.0, nats - float(self.nats[-1]))
        return float(self.values[-1]) + self.scale * math.expm1(self.shape * further) / self.shape

    def to_tree(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"values": self.values.tolist(), "nats": self.nats.tolist(), "shape": self.shape, "scale": self.scale}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Tail:
        """The inverse of `to_tree`. Raises ValueError, KeyError or TypeError for what is no tail."""
        values, nats = np.array(tree["values"], np.float64), np.array(tree["nats"], np.float64)
        shape, scale = float(tree["shape"]), float(tree["scale"])
        rising = bool((np.diff(values) > 0).all() and (np.diff(nats) > 0).all())
        if values.ndim != 1 or values.shape != nats.shape or not len(values) or not rising or nats[0] < 0:
            raise ValueError("a tail wants as many values as nats, both increasing")
        if not (0 < shape < math.inf and 0 < scale < math.inf and np.isfinite(values).all()):
            raise ValueError("a tail wants a shape and a scale above 0, and finite values")
        return cls(values, nats, shape, scale)


def _pareto(excess: NDArray[np.float64]) -> tuple[float, float]:
    """(shape, scale) of a generalised Pareto distribution; excess [k] sorted. Zhang and Stephens (2009), equations 7 to
    9: the mean of b = -shape/scale under its profile likelihood, on a grid that follows from the data.
    """
    k = len(excess)
    y = np.maximum(excess, 1e-12 * excess[-1])
    grid = 30 + math.isqrt(k)
    quarter = max(float(y[max(0, (k + 2) // 4 - 1)]), 1e-3 * float(y[-1]))
    b = 1 / y[-1] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quarter)
    shape = np.log1p(-b[:, None] * y).mean(axis=1)  # the best one for each b
    fit = k * (np.log(np.maximum(-b / shape, 1e-300)) - shape - 1)
    weight = np.exp(fit - fit.max())
    mean = float((weight * b).sum() / weight.sum())
    best = float(np.log1p(-mean * y).mean())
    return best, -best / mean if mean else float(y.mean())


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a model's past says of its scores: where the sketch of a stream that nobody knows begins."""

    score: Tail  # of the scores of single readings
    lasting: Tail  # of the evidence that `services.predictor.anomaly` gathers over many

    def to_tree(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"score": self.score.to_tree(), "lasting": self.lasting.to_tree()}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_tree`. Raises ValueError, KeyError or TypeError for what is none."""
        return cls(Tail.from_tree(tree["score"]), Tail.from_tree(tree["lasting"]))


def latest(scores: Sequence[NDArray[np.floating]]) -> list[NDArray[np.floating]]:
    """Of several series of scores in time order the latest ones, MOST in all, of each as large a share."""
    total = sum(len(one) for one in scores)
    share = min(1.0, MOST / max(1, total))
    return [one[len(one) - math.ceil(share * len(one)) :] for one in scores]
