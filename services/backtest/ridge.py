"""The rival that a network has to beat: ridge regression on the latest readings of all channels. Imports numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LAGS = 8
PENALTY = 1.0


def filled(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Missing values replaced by the channel's last one, by 0 (its mean) where there is none yet. z [n, channels]"""
    n, channels = z.shape
    place = np.where(np.isnan(z), -1, np.arange(n)[:, None])
    latest = np.maximum.accumulate(place, axis=0)
    values = z[np.maximum(latest, 0), np.arange(channels)]
    return np.where(latest < 0, 0.0, values)


class RidgeVar:
    """x_t = W [x_{t-1}, .., x_{t-8}, 1]: a vector autoregression by ridge (Hoerl and Kennard 1970), on z-scores."""

    def __init__(self, series: Sequence[NDArray[np.float64]]) -> None:
        """Learns from several series [n, channels], filled. Raises ValueError if none is longer than the lags."""
        channels = series[0].shape[1]
        gram = np.diag(np.full(LAGS * channels + 1, PENALTY))
        moment = np.zeros((LAGS * channels + 1, channels))
        if all(len(z) <= LAGS for z in series):
            raise ValueError(f"ridge regression on {LAGS} readings needs a longer series")
        for z in series:
            for begin in range(LAGS, len(z), 65_536):  # the lagged copies of a long series would not fit in memory
                x = self._lagged(z, begin, min(len(z), begin + 65_536))
                gram += x.T @ x
                moment += x.T @ z[begin : begin + 65_536]
        self._weight = np.linalg.solve(gram, moment)

    def predict(self, z: NDArray[np.float64], start: int) -> NDArray[np.float64]:
        """What each reading from `start` >= 8 on was expected to be, [n - start, channels]; z [n, channels] filled."""
        parts = [
            self._lagged(z, begin, min(len(z), begin + 65_536)) @ self._weight for begin in range(start, len(z), 65_536)
        ]
        return np.concatenate(parts)

    @staticmethod
    def _lagged(z: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
        columns = [z[begin - lag : end - lag] for lag in range(1, LAGS + 1)]
        return np.concatenate((*columns, np.ones((end - begin, 1))), axis=1)
