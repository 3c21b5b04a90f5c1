"""Running figures of live predictions, each made before its truth was known. Imports numpy only.

The definitions are those of `services.backtest.scores`: on the same readings both come to the same numbers.
Dawid, "Present position and potential developments: the prequential approach", JRSS A 147 (1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.quality.forecast_buffer import Matched

HALF_LIFE = 10_000
"""Scored readings after which one counts half in the present figures."""

SUMS = ("n", "squared", "absolute", "persistence", "banded", "inside", "pinball", "unsaid")
N, SQUARED, ABSOLUTE, PERSISTENCE, BANDED, INSIDE, PINBALL, UNSAID = range(len(SUMS))

Values = NDArray[np.floating]


class RunningMetrics:
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
        right = np.array(truth.T, np.float64, order="C")  # [targets, n]: sums run along memory
        error, naive = _less(y, right), _less(last, right)
        sums = np.zeros((len(SUMS), len(self.std)))
        sums[SQUARED], sums[PERSISTENCE] = _squares(error), _squares(naive)
        sums[N], said = len(truth), None
        if not np.isfinite(sums[SQUARED : PERSISTENCE + 1]).all():  # else each of the values is finite
            known = np.isfinite(naive)
            said = known & np.isfinite(error)
            sums[N] = np.count_nonzero(said, axis=1)
            sums[UNSAID] = np.count_nonzero(known, axis=1) - sums[N]
            error[~said], naive[~said] = 0, 0
            sums[SQUARED], sums[PERSISTENCE] = _squares(error), _squares(naive)
        sums[ABSOLUTE] = np.abs(error, out=error).sum(axis=1)
        if lo is not None and hi is not None:
            self._add_band(sums, right, lo, hi, said)
        sums[SQUARED] /= np.square(self.std)
        sums[PERSISTENCE] /= np.square(self.std)
        sums[ABSOLUTE] /= self.std
        sums[PINBALL] /= 2 * self.std
        at = self.steps.index(step)
        rows = sums[N].max()
        self.ever[:, at] += sums
        self.present[:, at] = self.present[:, at] * 0.5 ** (rows / self.half_life) + sums

    def add_matched(self, truth: Values, matched: Sequence[Matched]) -> None:
        """What `ForecastBuffer.match` found for the readings truth [n, targets]."""
        for one in matched:
            its = truth if len(one.rows) == len(truth) else truth[one.rows]
            self.add(its, one.y, one.lo, one.hi, one.last, one.step)

    def __add__(self, other: RunningMetrics) -> RunningMetrics:
        """Both together. Raises ValueError where they do not measure the same."""
        same = self.steps == other.steps and self.level == other.level and np.array_equal(self.std, other.std)
        if not same:
            raise ValueError("figures of different models cannot be added up: std, steps or level differ")
        both = RunningMetrics(self.std, self.steps, self.level, self.half_life + other.half_life)
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
        right = np.array(truth.T, np.float64, order="C")  # [targets, n]
        error, known = _less(y, right), np.isfinite(_less(last, right))
        error /= self.std[:, None]
        error[~known] = 0
        with np.errstate(invalid="ignore", over="ignore"):
            squares = np.einsum("ij,ij->j", error, error)
        squares[~np.isfinite(squares)] = np.inf
        count = np.count_nonzero(known, axis=0)
        return np.where(count > 0, squares / np.maximum(count, 1), np.nan)

    def _add_band(
        self,
        sums: NDArray[np.float64],
        right: NDArray[np.float64],
        lo: Values,
        hi: Values,
        said: NDArray[np.bool_] | None,
    ) -> None:
        """Of truths `right` [targets, n]: those inside, and the sum of both edges' losses, u (q - [u < 0]) with
        u = truth - edge. `said` [targets, n]: which count; None: all.
        """
        above, below = _less(lo, right), _less(hi, right)  # edge - truth
        with np.errstate(invalid="ignore"):
            widths = above.sum(axis=1), below.sum(axis=1)
        if said is not None or not (np.isfinite(widths[0]).all() and np.isfinite(widths[1]).all()):
            banded = np.isfinite(above) & np.isfinite(below)
            banded &= True if said is None else said
            above[~banded], below[~banded] = np.nan, np.nan
            inside = np.count_nonzero((above <= 0) & (below >= 0), axis=1)
            above[~banded], below[~banded] = 0, 0
            widths = above.sum(axis=1), below.sum(axis=1)
            sums[BANDED] = np.count_nonzero(banded, axis=1)
        else:
            inside = np.count_nonzero((above <= 0) & (below >= 0), axis=1)
            sums[BANDED] = right.shape[1]
        sums[INSIDE] = inside
        tail = (1 - self.level) / 2
        for edge, width, quantile in ((above, widths[0], tail), (below, widths[1], 1 - tail)):
            sums[PINBALL] += np.maximum(edge, 0, out=edge).sum(axis=1) - quantile * width


def _less(values: Values, right: NDArray[np.float64]) -> NDArray[np.float64]:
    """values [n, targets] less right [targets, n], as [targets, n]."""
    with np.errstate(invalid="ignore"):
        return np.subtract(values.T, right, out=np.empty_like(right))


def _squares(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of squares of each row."""
    with np.errstate(invalid="ignore", over="ignore"):
        found: NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows)
    return found
