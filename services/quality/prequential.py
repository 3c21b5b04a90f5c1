"""Running figures of live predictions, each made before its truth was known. Imports numpy only.

The definitions are those of `services.backtest.scores`: on the same readings both come to the same numbers.
Dawid, "Present position and potential developments: the prequential approach", JRSS A 147 (1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.quality.pending import Matched

HALF_LIFE = 10_000
"""Scored readings after which one counts half in the present figures."""

SUMS = ("n", "squared", "absolute", "persistence", "banded", "inside", "pinball", "unsaid")
N, SQUARED, ABSOLUTE, PERSISTENCE, BANDED, INSIDE, PINBALL, UNSAID = range(len(SUMS))

Values = NDArray[np.floating]


class Figures:
    """Sums of errors for each target and each step of the horizon, of ever and of the present; add up over shards.

    Errors are divided by the target's standard deviation in the training data, and so are those of z-scores: means
    cancel. A value counts where it and the one at which the prediction was made are known (NaN = unknown), for the
    model as for persistence. One that the model said nothing of (NaN, inf) is counted as unsaid, and nowhere else.
    """

    def __init__(
        self,
        std: NDArray[np.floating],
        steps: Sequence[int] = (1,),
        level: float = 0.8,
        half_life: int = HALF_LIFE,
    ) -> None:
        self.std = np.asarray(std, np.float64)  # [targets]
        self.steps, self.level, self.half_life = tuple(steps), level, half_life
        if not (np.isfinite(self.std).all() and (self.std > 0).all()):
            raise ValueError(f"std is {self.std.tolist()}: give a number above 0 for each target")
        if not 0 < level < 1 or half_life < 1 or not self.steps or len(set(self.steps)) < len(self.steps):
            raise ValueError("give a level in 0..1, a half_life of at least one reading, and each step once")
        self.ever = np.zeros((len(SUMS), len(self.steps), len(self.std)))  # [sums, steps, targets]
        self.present = np.zeros_like(self.ever)

    def add(self, truth: Values, y: Values, lo: Values | None, hi: Values | None, last: Values, step: int = 1) -> None:
        """A batch of truths, what was said of them, and the readings at which it was said; all [n, targets], raw units.

        Raises ValueError for a step that is not one of `steps`.
        """
        if step not in self.steps:
            raise ValueError(f"step {step} is not one of {self.steps}")
        if not len(truth):
            return
        known, error, naive = self._errors(truth, y, last)
        said = known & np.isfinite(error)
        error[~said], naive[~said] = 0, 0
        sums = np.zeros((len(SUMS), len(self.std)))
        sums[N] = np.count_nonzero(said, axis=0)
        sums[UNSAID] = np.count_nonzero(known, axis=0) - sums[N]
        sums[SQUARED] = np.einsum("ij,ij->j", error, error) / np.square(self.std)
        sums[ABSOLUTE] = np.abs(error).sum(axis=0) / self.std
        sums[PERSISTENCE] = np.einsum("ij,ij->j", naive, naive) / np.square(self.std)
        if lo is not None and hi is not None:
            banded = said & np.isfinite(lo) & np.isfinite(hi)
            sums[BANDED] = np.count_nonzero(banded, axis=0)
            sums[INSIDE] = np.count_nonzero(banded & (lo <= truth) & (truth <= hi), axis=0)
            sums[PINBALL] = self._pinball(truth, lo, hi, banded)
        at = self.steps.index(step)
        rows = sums[N].max()
        self.ever[:, at] += sums
        self.present[:, at] = self.present[:, at] * 0.5 ** (rows / self.half_life) + sums

    def add_matched(self, truth: Values, matched: Sequence[Matched]) -> None:
        """What `Pending.match` found for the readings truth [n, targets]."""
        for one in matched:
            self.add(truth[one.rows], one.y, one.lo, one.hi, one.last, one.step)

    def __add__(self, other: Figures) -> Figures:
        """Both together. Raises ValueError where they do not measure the same."""
        same = self.steps == other.steps and self.level == other.level and np.array_equal(self.std, other.std)
        if not same:
            raise ValueError("figures of different models cannot be added up: std, steps or level differ")
        both = Figures(self.std, self.steps, self.level, self.half_life + other.half_life)
        both.ever, both.present = self.ever + other.ever, self.present + other.present
        return both

    def figures(self, step: int = 1, target: int | None = None, *, present: bool = False) -> dict[str, Any]:
        """`n, unsaid, mse, mae, persistence_mse, coverage, pinball`, of all targets or one; None: of nothing.

        `pinball` is the mean of the two edges' losses. All in units of the standard deviation, mse of its square. The
        present ones are weighted by age, their n as well.
        """
        sums = (self.present if present else self.ever)[:, self.steps.index(step)]
        sums = sums.sum(axis=1) if target is None else sums[:, target]
        n, banded = float(sums[N]), float(sums[BANDED])

        def mean(which: int, of: float) -> float | None:
            return float(sums[which]) / of if of else None

        return {
            "n": n,
            "unsaid": float(sums[UNSAID]),
            "mse": mean(SQUARED, n),
            "mae": mean(ABSOLUTE, n),
            "persistence_mse": mean(PERSISTENCE, n),
            "coverage": mean(INSIDE, banded),
            "pinball": mean(PINBALL, banded),
        }

    def losses(self, truth: Values, y: Values, last: Values) -> NDArray[np.float64]:
        """Mean squared error of each reading's targets that count [n], for a contest; NaN where none does.

        A reading of which something was not said costs inf.
        """
        known, error, _ = self._errors(truth, y, last)
        error[~np.isfinite(error)] = np.inf
        error /= self.std
        error[~known] = 0
        squares = np.einsum("ij,ij->i", error, error)
        count = np.count_nonzero(known, axis=1)
        return np.where(count > 0, squares / np.maximum(count, 1), np.nan)

    def _errors(
        self, truth: Values, y: Values, last: Values
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """(which count, errors of the model, errors of persistence), all [n, targets], in raw units."""
        known = np.isfinite(truth) & np.isfinite(last)
        right = truth.astype(np.float64)
        with np.errstate(invalid="ignore"):
            return known, y - right, last - right

    def _pinball(self, truth: Values, lo: Values, hi: Values, banded: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sum over readings of the mean of both edges' losses, u (q - [u < 0]) with u = truth - edge. [targets]"""
        tail = (1 - self.level) / 2
        total = np.zeros(len(self.std))
        for edge, quantile in ((lo, tail), (hi, 1 - tail)):
            with np.errstate(invalid="ignore"):
                above = truth.astype(np.float64) - edge
            above[~banded] = 0
            total += quantile * above.sum(axis=0) - np.minimum(above, 0).sum(axis=0)
        return total / (2 * self.std)
