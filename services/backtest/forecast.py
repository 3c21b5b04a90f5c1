"""A forecasting model, trained on the first part of each stream and run online over the last one.

The held-back readings go as JSON bytes through decoder, batcher, state table, engine and encoder of one shard over the
in-memory broker, a record each; what is scored is read from the predictions topic. Composes rooms as `services.driver`
does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn import weights
from rnn.config import ModelConfig
from rnn.fit import Epoch, fit, least_readings
from rnn.recipe import default_config
from rnn.windows import moments
from services.backtest.ridge import LAGS, RidgeVar, filled
from services.backtest.scores import Run, scored
from services.codecs import predictions
from services.codecs.readings_write import encode
from services.datasets.series import Series
from services.driver import StreamDriver
from services.records import Role
from services.tables.recipes import recipe_of

WARM_UP = 1000
"""Readings before the held-back ones that go through first, unscored: a stream's memory is not empty in service."""
POLL = 10_000


class NothingToTest(Exception):
    """The series cannot be split as asked. The message says what would do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained, and on which shares of each stream, from its beginning and from its end."""

    train: float = 0.7
    test: float = 0.2
    targets: tuple[str, ...] = ()  # empty = all channels
    model: dict[str, Any] | None = None  # fields of ModelConfig beside features and targets; None = the default config
    recipe: dict[str, Any] | None = None  # fields of Recipe
    seed: int | None = None  # over the recipe's own


def backtest(
    series: Sequence[Series],
    plan: Plan,
    folder: Path,
    trained: Callable[[Epoch], None] = lambda epoch: None,
    ran: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[dict[str, object], list[Run]]:
    """Trains, saves the model in `folder`, runs it; returns the figures as one JSON object, and what they were made of.

    Raises NothingToTest, and what fit raises.
    """
    splits = [_split(one, plan) for one in series]
    began_s = time.perf_counter()
    network, train_rows = _fitted(series, [end for end, _ in splits], plan, trained)
    train_s = time.perf_counter() - began_s
    first, last = int(series[0].at_ms[0]), int(series[0].at_ms[splits[0][0] - 1])
    data = weights.DataRange(first, last, train_rows, series[0].digest)
    card = weights.save(folder, network, created_ms=last, data=data)
    mean, std = moments(np.concatenate([one.x[:end] for one, (end, _) in zip(series, splits, strict=True)]))
    z = [filled((np.asarray(one.x, np.float64) - mean) / std) for one in series]
    ridge = RidgeVar([one[:end] for one, (end, _) in zip(z, splits, strict=True)])
    columns = [network.config.features.index(name) for name in network.config.targets]
    total, done, runs = sum(len(one) - start for one, (_, start) in zip(series, splits, strict=True)), 0, []
    for one, whole, (_, start) in zip(series, z, splits, strict=True):
        y, lo, hi = _online(one, start, folder)
        done += len(one) - start
        ran(done, total)

        def scaled(values: NDArray[np.float32]) -> NDArray[np.float64]:
            return (values.astype(np.float64) - mean[columns]) / std[columns]

        runs.append(
            Run(
                truth=scaled(one.x[start:][:, columns]),
                last=scaled(one.x[start - 1 : -1][:, columns]),
                y=scaled(y),
                lo=None if lo is None else scaled(lo),
                hi=None if hi is None else scaled(hi),
                ridge=ridge.predict(whole, start)[:, columns],
            )
        )
    figures = scored(runs, network.config.targets)
    extra = {"readings": total, "train_readings": train_rows, "train_seconds": round(train_s, 1), "model": card.model}
    return figures | extra, runs


def _split(series: Series, plan: Plan) -> tuple[int, int]:
    """(end of the training part, beginning of the held-back part)."""
    n = len(series)
    end, start = int(n * plan.train), n - int(n * plan.test)
    if end > start or end <= LAGS or start >= n:
        raise NothingToTest(
            f"{series.name}: {n} readings cannot be split into the first {plan.train:.0%} to train on and the last "
            f"{plan.test:.0%} to run: give shares that sum to at most 1, or more readings"
        )
    return end, start


def _fitted(
    series: Sequence[Series], ends: Sequence[int], plan: Plan, trained: Callable[[Epoch], None]
) -> tuple[Any, int]:
    rows = sum(ends)
    features, interval_s = series[0].features, min(one.interval_s for one in series)
    if plan.model is None:
        config = default_config(features, interval_s, plan.targets, rows)
    else:
        tree = {"interval_s": interval_s, "features": features, **plan.model}
        config = ModelConfig.from_tree(tree | ({"targets": plan.targets} if plan.targets else {}))
    if config.features != features:
        raise ValueError(f"model.features: a backtest reads every channel: {', '.join(features)}")
    recipe = recipe_of(plan.recipe or {}, config, rows, plan.seed)
    longest = int(max(ends) * recipe.validation)
    if longest < least_readings(recipe):  # many short series, such as recordings
        recipe = replace(recipe, burn_in=max(0, longest // 4 - 2))
    x = [np.asarray(one.x[:end]) for one, end in zip(series, ends, strict=True)]
    at_ms = [np.asarray(one.at_ms[:end]) for one, end in zip(series, ends, strict=True)]
    return fit(config, x, at_ms, recipe, trained).network, rows


def _online(
    series: Series, start: int, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """(y, lo, hi) that had been said of each reading from `start` on, raw units, [n - start, targets]."""
    driver = StreamDriver(folder, slots=8, max_readings=POLL)
    begin = max(0, start - WARM_UP)
    key = series.name.encode()
    for at in range(begin, len(series) - 1, POLL):
        some = slice(at, min(at + POLL, len(series) - 1))
        for value in encode(np.asarray(series.x[some]), np.asarray(series.at_ms[some])):
            driver.send_record(key, value, partition=0)
        driver.run()
    made = predictions.decode(driver.broker.records(Role.PREDICTIONS, 0))
    said = slice(start - 1 - begin, None)  # the prediction made at a reading is about the next one
    return made.y[said], None if made.lo is None else made.lo[said], None if made.hi is None else made.hi[said]
