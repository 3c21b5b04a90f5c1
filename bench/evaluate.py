"""How good a network is: it serves a held-back range, reading after reading, and its predictions meet the truth.

Runs `rnn.serve.engine`, so what is scored is what is served. Imports numpy; torch only through the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnn.nn.network import Network
from rnn.serve.engine import Engine
from rnn.train.lanes import moments

CHUNK_READINGS = 2048  # in one run of the engine


@dataclass(frozen=True, slots=True)
class Scores:
    """Errors of one-step predictions on z-scored targets, over every value that could be scored."""

    mse: float
    mae: float
    persistence_mse: float  # of predicting the last reading, on the same values
    persistence_mae: float
    skill: float  # 1 - mse / persistence_mse; 0 = no better than the last reading, 1 = perfect
    coverage: float | None  # share of the truths inside [lo, hi]; None for a head without a band
    surprise: float | None  # mean score in nats per value over the readings that got one
    readings: int  # whose prediction was scored
    values: int


def evaluate(
    network: Network,
    x: NDArray[np.float32],
    at_ms: NDArray[np.int64],
    start: int,
    *,
    mean: NDArray[np.float64] | None = None,
    std: NDArray[np.float64] | None = None,
    lanes: int = 64,
    burn_in: int = 512,
    device: str = "cpu",
) -> Scores:
    """Scores `network` on x[start:] of one series x [n, features] (raw units, NaN = missing) with times at_ms [n].

    The range is served as up to `lanes` streams, each a slice of it that first reads the `burn_in` readings before its
    slice, unscored; so each reading from `start` on is a truth exactly once. lanes=1 is one stream from end to end.
    z-scores use `mean` and `std` [features], by default those of x[:start]. A value counts, for the network and for
    persistence alike, if both it and the one before it are known. Raises ValueError if there is none.
    """
    config = network.config
    n, targets = len(x), np.array(config.target_index)
    if not 0 < start < n:
        raise ValueError(f"start: wants 1..{n - 1} (something to warm up on, something to score), got {start}")
    if mean is None or std is None:
        mean, std = moments(x[:start])
    lanes = max(1, min(lanes, (n - start) // max(1, burn_in)))
    bounds = start + (n - start) * np.arange(lanes + 1) // lanes  # lane k's truths are x[bounds[k]:bounds[k + 1]]
    reads_from = np.maximum(bounds[:-1] - 1 - burn_in, 0)
    reads_to = bounds[1:] - 1  # the reading before the last truth
    engine = Engine(network, lanes, device)
    y = np.empty((n - start, len(targets)), dtype=np.float32)  # [truths, targets]
    inside = np.zeros(y.shape, dtype=bool)
    nats, scored, banded = 0.0, 0, False
    stride = max(1, CHUNK_READINGS // lanes)
    for step in range(0, int((reads_to - reads_from).max()), stride):
        at = reads_from[:, None] + np.arange(step, step + stride)  # [lanes, stride], places in x
        slot, column = np.nonzero(at < reads_to[:, None])  # a lane's readings stay in order
        place = at[slot, column]
        result = engine.run(
            slot.astype(np.int64),
            np.ascontiguousarray(x[place], dtype=np.float32),
            np.ascontiguousarray(at_ms[place]),
            np.full(len(place), -1, dtype=np.int64),
        )
        counts = place + 1 >= bounds[slot]
        truth_at = place[counts] + 1
        y[truth_at - start] = result.y[counts]
        if result.lo is not None and result.hi is not None:
            banded = True
            truth = x[truth_at][:, targets]
            inside[truth_at - start] = (result.lo[counts] <= truth) & (truth <= result.hi[counts])
        surprises = result.score[counts & np.isfinite(result.score)]
        nats, scored = nats + float(surprises.sum(dtype=np.float64)), scored + len(surprises)
    truth, last = x[start:, targets], x[start - 1 : -1, targets]
    known = ~np.isnan(truth) & ~np.isnan(last)
    if not known.any():
        raise ValueError("nothing to score: no value is known together with the one before it")
    scale = np.broadcast_to(std[targets], known.shape)[known]
    error = (y[known].astype(np.float64) - truth[known]) / scale
    change = (last[known].astype(np.float64) - truth[known]) / scale
    mse, persistence_mse = float(np.square(error).mean()), float(np.square(change).mean())
    return Scores(
        mse=mse,
        mae=float(np.abs(error).mean()),
        persistence_mse=persistence_mse,
        persistence_mae=float(np.abs(change).mean()),
        skill=1.0 - mse / persistence_mse if persistence_mse > 0 else float(mse == 0),
        coverage=float(inside[known].mean()) if banded else None,
        surprise=nats / scored if scored else None,
        readings=int(known.any(axis=1).sum()),
        values=int(known.sum()),
    )
