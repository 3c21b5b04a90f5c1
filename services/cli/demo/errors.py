"""Squared errors of forecasts, by the row of the reading that they are about: predict first, then see the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.cli.demo.replay import Replay


class Errors:
    """Of one model over a replay; rows that it said nothing of, or whose truth is missing, do not count."""

    def __init__(self, replay: Replay, scale: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """`scale` [rows, features] is what a truth is measured in; `y` [rows, features] was said one reading ahead."""
        rows = len(replay.x)
        self.sum, self.known = np.zeros(rows), np.zeros(rows, np.int64)  # [rows], over the features of that reading
        off, now, truth = y[:-1] - replay.x[1:], replay.x[:-1], replay.x[1:]
        there = np.isfinite(off) & np.isfinite(now) & np.isfinite(truth)
        there[np.arange(1, rows) % replay.steps == 0] = False  # the next row is another stream's
        off = np.where(there, off / scale[1:], 0.0)
        self.sum[1:] = np.square(off, dtype=np.float64).sum(axis=1)
        self.known[1:] = there.sum(axis=1)

    def mse(self, rows: NDArray[np.bool_]) -> float:
        """Of these rows [rows]; NaN where nothing is known of them."""
        known = int(self.known[rows].sum())
        return float(self.sum[rows].sum() / known) if known else float("nan")

    def curve(self, place: NDArray[np.int64], bins: int) -> NDArray[np.float64]:
        """[bins], the mean of each; NaN = none. `place` [rows] says which bin a row is in, -1 = in none."""
        some = place >= 0
        total = np.bincount(place[some], self.sum[some], bins)
        known = np.bincount(place[some], self.known[some], bins)
        mean: NDArray[np.float64] = np.where(known > 0, total / np.maximum(known, 1), np.nan)
        return mean
