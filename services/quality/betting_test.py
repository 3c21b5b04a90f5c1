"""Testing the mean of bounded observations by betting, valid whenever one looks. Imports numpy only.

Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BOLDNESS = 0.75
"""Share of the capital that one bet may lose at most."""

PRIOR_VARIANCE = 0.05
"""Variance that one imagined observation before the first shows."""


class Bets:
    """For each of some means m in (-1, 1) the capital of two gamblers, who begin with 1 and see g_i in [-1, 1].

        up_t   = prod (1 + a_i (g_i - m)),   0 <= a_i <= 0.75 / (1 + m)
        down_t = prod (1 - b_i (g_i - m)),   0 <= b_i <= 0.75 / (1 - m)

    The stakes follow from what came before alone: a = max(0, s), b = max(0, -s), s = (mean - m) / (var + (mean - m)^2),
    the paper's aGRAPA. If no g_i has a conditional mean above m, up is a supermartingale, and by Ville's inequality it
    ever reaches 1 / alpha with probability alpha at most; down likewise if none is below m.
    """

    def __init__(self, means: NDArray[np.float64]) -> None:
        self.means = means  # [k]
        self.log_up = np.zeros(len(means))  # [k]
        self.log_down = np.zeros(len(means))
        self.best_up = np.zeros(len(means))  # [k], the highest so far
        self.best_down = np.zeros(len(means))
        self.n = 0
        self.mean = 0.0  # of the observations and one of 0 that is imagined before them
        self.total = 0.0  # of the observations
        self._squares = PRIOR_VARIANCE

    def add(self, g: float) -> None:
        """One observation."""
        distance = self.mean - self.means
        stake = distance / (self._squares / (self.n + 1) + np.square(distance))
        up = np.clip(stake, 0, BOLDNESS / (1 + self.means))
        down = np.clip(-stake, 0, BOLDNESS / (1 - self.means))
        self.log_up += np.log1p(up * (g - self.means))
        self.log_down += np.log1p(-down * (g - self.means))
        np.maximum(self.best_up, self.log_up, out=self.best_up)
        np.maximum(self.best_down, self.log_down, out=self.best_down)
        self.n += 1
        before = self.mean
        self.mean += (g - before) / (self.n + 1)
        self.total += g
        self._squares += (g - before) * (g - self.mean)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Least and greatest of `means`, which must be in order, around those that no gambler has ever refuted.

        The mean of the observations' conditional means stays within all such intervals with probability 1 - alpha.
        """
        refuted = np.maximum(self.best_up, self.best_down) >= np.log(2 / alpha)
        held = np.flatnonzero(~refuted)
        if not len(held):
            return self.mean, self.mean
        first, last = max(int(held[0]) - 1, 0), min(int(held[-1]) + 1, len(self.means) - 1)
        return float(self.means[first]), float(self.means[last])
