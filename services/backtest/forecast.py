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

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from rnn.serve.adapt import Adaptation
from rnn.serve.build import check_adaptable
from rnn.train.fit import EpochMetrics, fit, least_readings
from rnn.train.lanes import moments
from rnn.train.recipe import default_config
from services.backtest import windows
from services.backtest.alarms import judged, scores_before
from services.backtest.ridge import LAGS, RidgeVar, filled
from services.backtest.scores import StreamForecasts, scored
from services.backtest.windows import Watched
from services.codecs import predictions
from services.codecs.readings_write import encode
from services.datasets.series import Series
from services.driver import StreamDriver
from services.records import Role
from services.tables.recipes import recipe_of

WARM_UP = 1000
"""Readings before the held-back ones that go through first, unscored: a stream's memory is not empty in service."""
POLL = 10_000
SKETCHED = 20_000
"""Readings before the held-back ones at most that a stream's sketch of surprises learns from online, too."""


class NothingToTest(Exception):
    """The series cannot be split as asked. The message says what would do."""


@dataclass(frozen=True, slots=True)
class BacktestPlan:
    """What is trained, and on which shares of each stream, from its beginning and from its end."""

    train: float = 0.7
    test: float = 0.2
    targets: tuple[str, ...] = ()  # empty = all channels
    model: dict[str, Any] | None = None  # fields of ModelConfig beside features and targets; None = the default config
    recipe: dict[str, Any] | None = None  # fields of Recipe
    seed: int | None = None  # over the recipe's own
    budget: float = 1.0  # readings in alarm of 1,000 normal ones, where anomalies are labelled
    adapt: Adaptation | None = None  # to each stream while it runs


@dataclass(frozen=True, slots=True)
class OnlineForecasts:
    """What was said online of one stream; raw units."""

    y: NDArray[np.float32]  # [held back, targets], of each held-back reading before it came
    lo: NDArray[np.float32] | None  # the same
    hi: NDArray[np.float32] | None
    score: NDArray[np.float32]  # [n - begin], of each reading that was sent
    begin: int  # the first reading that was sent


def backtest(
    series: Sequence[Series],
    plan: BacktestPlan,
    folder: Path,
    trained: Callable[[EpochMetrics], None] = lambda epoch: None,
    ran: Callable[[int, int], None] = lambda done, of: None,
    labels: Sequence[NDArray[np.bool_]] | None = None,
    calibrating: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[dict[str, object], list[StreamForecasts]]:
    """Trains, saves the model in `folder`, runs it; returns the figures as one JSON object, and what they were made of.

    With `labels` [n] of each stream, true where a reading is anomalous, there are those of `services.backtest.windows`,
    too, for alarms at the plan's budget. Nothing but these figures depends on them. Where the plan adapts, the figures
    are of the adapted model; `unadapted_mse` and `unadapted_mae` of the same model on the same readings without.

    Raises NothingToTest, NoScore, and what fit and calibration raise.
    """
    splits = [_split(one, plan) for one in series]
    _refuse_nothing_to_learn(series, [end for end, _ in splits], plan)
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
    every: list[OnlineForecasts] = []
    plain: list[NDArray[np.float64]] = []
    for one, whole, (end, start) in zip(series, z, splits, strict=True):
        sketched = start if labels is None else max(end, start - SKETCHED)
        begin = min(max(0, start - WARM_UP), sketched)
        said = _online(one, start, begin, folder, plan.adapt)
        every.append(said)
        done += len(one) - start
        ran(done, total)

        def scaled(values: NDArray[np.float32]) -> NDArray[np.float64]:
            return (values.astype(np.float64) - mean[columns]) / std[columns]

        runs.append(
            StreamForecasts(
                truth=scaled(one.x[start:][:, columns]),
                last=scaled(one.x[start - 1 : -1][:, columns]),
                y=scaled(said.y),
                lo=None if said.lo is None else scaled(said.lo),
                hi=None if said.hi is None else scaled(said.hi),
                ridge=ridge.predict(whole, start)[:, columns],
            )
        )
        if plan.adapt is not None:
            plain.append(scaled(_online(one, start, begin, folder).y))
    figures = scored(runs, network.config.targets)
    extra: dict[str, object] = {
        "readings": total,
        "train_readings": train_rows,
        "train_seconds": round(train_s, 1),
        "model": card.model,
    }
    if plan.adapt is not None:
        without = scored([replace(run, y=y) for run, y in zip(runs, plain, strict=True)], network.config.targets)
        extra |= {"unadapted_mse": without["mse"], "unadapted_mae": without["mae"]}
    if labels is not None:

        def again(rest: Sequence[Series]) -> Network:
            return _fitted(rest, [len(one) for one in rest], plan, lambda epoch: None)[0]

        before = scores_before(series, [end for end, _ in splits], network, again, calibrating)
        since = [one.score[max(0, end - one.begin) :] for one, (end, _) in zip(every, splits, strict=True)]
        held = [start - max(end, one.begin) for one, (end, start) in zip(every, splits, strict=True)]
        surprised = judged(before, since, held)
        runs = [replace(run, surprised=one) for run, one in zip(runs, surprised, strict=True)]
        watched = zip(labels, [start for _, start in splits], surprised, strict=True)
        extra |= windows.figures([Watched(label, start, one.alarm(plan.budget)) for label, start, one in watched])
    return figures | extra, runs


def _split(series: Series, plan: BacktestPlan) -> tuple[int, int]:
    """(end of the training part, beginning of the held-back part)."""
    n = len(series)
    end, start = int(n * plan.train), n - int(n * plan.test)
    if end > start or end <= LAGS or start >= n:
        raise NothingToTest(
            f"{series.name}: {n} readings cannot be split into the first {plan.train:.0%} to train on and the last "
            f"{plan.test:.0%} to run: give shares that sum to at most 1, or more readings"
        )
    return end, start


def _refuse_nothing_to_learn(series: Sequence[Series], ends: Sequence[int], plan: BacktestPlan) -> None:
    """Raises NothingToTest for a feature without a value, or targets without a change, in the part to train on."""
    x = np.concatenate([one.x[:end] for one, end in zip(series, ends, strict=True)])
    features, unknown, where = series[0].features, np.isnan(x), f"in the first {plan.train:.0%}, which is trained on"
    if (empty := np.flatnonzero(unknown.all(axis=0))).size:
        raise NothingToTest(f"column {features[empty[0]]!r} holds no value {where}: leave it out, or train on more")
    constant = np.where(unknown, np.inf, x).min(axis=0) == np.where(unknown, -np.inf, x).max(axis=0)
    targets = [name for name in plan.targets or features if name in features]
    if targets and all(constant[features.index(name)] for name in targets):
        names = ", ".join(map(repr, targets))
        raise NothingToTest(f"{names} never changes {where}: name another target with --target, or train on more")


def _fitted(
    series: Sequence[Series], ends: Sequence[int], plan: BacktestPlan, trained: Callable[[EpochMetrics], None]
) -> tuple[Network, int]:
    rows = sum(ends)
    features, interval_s = series[0].features, min(one.interval_s for one in series)
    if plan.model is None:
        config = default_config(features, interval_s, plan.targets, rows)
    else:
        tree = {"interval_s": interval_s, "features": features, **plan.model}
        config = ModelConfig.from_tree(tree | ({"targets": plan.targets} if plan.targets else {}))
    if config.features != features:
        raise ValueError(f"model.features: a backtest reads every channel: {', '.join(features)}")
    if plan.adapt is not None:
        check_adaptable(config)
    recipe = recipe_of(plan.recipe or {}, config, rows, plan.seed)
    longest = int(max(ends) * recipe.validation)
    if longest < least_readings(recipe):  # many short series, such as recordings
        recipe = replace(recipe, burn_in=max(0, longest // 4 - 2))
    x = [np.asarray(one.x[:end]) for one, end in zip(series, ends, strict=True)]
    at_ms = [np.asarray(one.at_ms[:end]) for one, end in zip(series, ends, strict=True)]
    return fit(config, x, at_ms, recipe, trained).network, rows


def _online(series: Series, start: int, begin: int, folder: Path, adapt: Adaptation | None = None) -> OnlineForecasts:
    """Sends the readings from `begin` on; what had been said of each one from `start` on, and all scores."""
    driver = StreamDriver(folder, slots=8, max_readings=POLL, adapt=adapt)
    key = series.name.encode()
    for at in range(begin, len(series), POLL):
        some = slice(at, min(at + POLL, len(series)))
        for value in encode(np.asarray(series.x[some]), np.asarray(series.at_ms[some])):
            driver.send_record(key, value, partition=0)
        driver.run()
    made = predictions.decode(driver.broker.records(Role.PREDICTIONS, 0))
    said = slice(start - 1 - begin, -1)  # the prediction made at a reading is about the next one
    lo, hi = (None if edge is None else edge[said] for edge in (made.lo, made.hi))
    return OnlineForecasts(made.y[said], lo, hi, made.score, begin)
