"""Whom a model has to beat, on the same readings: the last value, a ridge regression, the same time of another day.

All arrays are z-scores, NaN = missing. Imports numpy, and the backtest's ridge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.backtest.ridge import LAGS, RidgeVar, filled

SEASONS_S = {"hour": 3_600, "day": 86_400, "week": 604_800}
"""What is tried; the training part decides."""


def ridge(z: Sequence[NDArray[np.float64]], learned: Sequence[int], known: Sequence[int]) -> list[NDArray[np.float64]]:
    """What a ridge VAR(8) expects of the readings from `known` on, [n - known, channels] of each series; NaN where too
    few came before.
    """
    whole = [filled(one) for one in z]
    nothing = [np.full_like(one[begin:], np.nan) for one, begin in zip(z, known, strict=True)]
    try:
        model = RidgeVar([one[:count] for one, count in zip(whole, learned, strict=True) if count])
    except (ValueError, IndexError):
        return nothing
    for one, begin, out in zip(whole, known, nothing, strict=True):
        first = max(begin, LAGS)
        if first < len(one):
            out[first - begin :] = model.predict(one, first)
    return nothing


def seasonal(
    z: Sequence[NDArray[np.float64]], learned: Sequence[int], known: Sequence[int], interval_s: float
) -> tuple[str | None, list[NDArray[np.float64]]]:
    """(season, what its naive forecast says): the value of one hour, day or week ago, by the number of readings in it;
    whichever was best on what is learned from. None where not even two of the shortest fit in there.
    """
    best: tuple[float, str, int] | None = None
    for name, seconds in SEASONS_S.items():
        period = round(seconds / interval_s)
        pairs = [(one[period:count], one[: count - period]) for one, count in zip(z, learned, strict=True)
                 if 2 <= period <= count // 2]  # fmt: skip
        if not pairs:
            continue
        errors = np.concatenate([np.square(truth - said).ravel() for truth, said in pairs])
        error = float(np.nanmean(errors)) if not np.isnan(errors).all() else np.inf
        if best is None or error < best[0]:
            best = (error, name, period)
    made = [np.full_like(one[begin:], np.nan) for one, begin in zip(z, known, strict=True)]
    if best is None:
        return None, made
    period = best[2]
    for one, begin, out in zip(z, known, made, strict=True):
        first = max(begin, period)
        if first < len(one):
            out[first - begin :] = one[first - period : len(one) - period]
    return best[1], made
