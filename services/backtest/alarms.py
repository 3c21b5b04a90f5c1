"""Alarms of a forecasting model on readings that came after, at a budget of false ones; no label is looked at.

What is usual is learned from the training part alone. A model knows the readings that it learned from too well, all the
more where they are few: there the scores to calibrate on are those of models that have not seen the readings (cross-
conformal prediction, Vovk 2015). Imports numpy, rnn and the predictor's sketch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rnn.nn.network import Network
from rnn.serve.build import engine_of
from services.datasets.series import Series
from services.predictor.anomaly import Surprise, Surprised, calibrated
from services.predictor.score_calibration import MOST

FOLDS, FOLDED = 8, 20_000
"""So many models are trained again, each without one part, as long as they learn from so many readings in all."""
WARM_UP = 1000
BLOCKS = 20
"""Where only some of the training readings are scored, it is so many parts of each stream."""
SHORTEST = 20
"""Readings of a piece that is worth learning from."""


class NoScore(Exception):
    """The model does not say how surprising a reading was. Remedy: the message names the head that does."""


def scores_before(
    series: Sequence[Series],
    ends: Sequence[int],
    network: Network,
    again: Callable[[Sequence[Series]], Network],
    done: Callable[[int, int], None] = lambda fold, of: None,
) -> list[NDArray[np.float32]]:
    """The scores of each stream's training readings, its first `ends[i]`, of models that did not learn from them where
    readings are few; where they are many, of parts from all over.

    `again` trains the same kind of network on other series. Raises NoScore.
    """
    if network.config.head != "gaussian":
        raise NoScore(
            f"alarms want scores, which head {network.config.head!r} does not give: set model.head to gaussian"
        )
    folds = min(FOLDS, FOLDED // sum(ends))
    if folds > 1:
        try:
            return _folded(series, ends, folds, again, done)
        except ValueError:
            pass  # a part is too short to learn without it
    share = min(1.0, MOST / sum(ends))
    found = []
    for one, end in zip(series, ends, strict=True):
        edges = np.linspace(0, end, BLOCKS + 1).astype(np.int64).tolist()  # of all seasons, not of the latest alone
        blocks = [(last - math.floor(share * (last - first)), last) for first, last in itertools.pairwise(edges)]
        found.append(np.concatenate([_scores(network, one, first, last) for first, last in blocks]))
    return found


def _folded(
    series: Sequence[Series],
    ends: Sequence[int],
    folds: int,
    again: Callable[[Sequence[Series]], Network],
    done: Callable[[int, int], None],
) -> list[NDArray[np.float32]]:
    edges = [np.linspace(0, end, folds + 1).astype(np.int64) for end in ends]
    found: list[list[NDArray[np.float32]]] = [[] for _ in series]
    for fold in range(folds):
        rest = []
        for one, its, end in zip(series, edges, ends, strict=True):
            for first, last in ((0, int(its[fold])), (int(its[fold + 1]), end)):
                if last - first >= SHORTEST:
                    rest.append(replace(one, x=one.x[first:last], at_ms=one.at_ms[first:last]))
        network = again(rest)
        for one, its, scores in zip(series, edges, found, strict=True):
            scores.append(_scores(network, one, int(its[fold]), int(its[fold + 1])))
        done(fold + 1, folds)
    return [np.concatenate(scores) for scores in found]


def _scores(network: Network, series: Series, begin: int, end: int) -> NDArray[np.float32]:
    """Of the readings from `begin` to before `end`, after a warm-up on the ones before."""
    first = max(0, begin - WARM_UP)
    n, scores = end - first, np.full(end - first, np.nan, np.float32)
    x, at_ms = np.asarray(series.x[first:end], np.float32), np.asarray(series.at_ms[first:end], np.int64)
    made = engine_of(network, 1).run(np.zeros(n, np.int64), x, at_ms, np.full(n, -1))
    scores[slice(None) if made.of is None else made.of] = made.score
    return scores[begin - first :]


def judged(
    before: Sequence[NDArray[np.float32]], since: Sequence[NDArray[np.float32]], starts: Sequence[int]
) -> list[Surprised]:
    """What each stream's sketch says of its readings from `starts[i]` of `since[i]` on; it learns from the training
    scores `before[i]` first, then goes through `since[i]`, each reading judged before it is learned from.

    Raises TooFewScores.
    """
    calibration = calibrated(before)
    said = []
    for past, later, start in zip(before, since, starts, strict=True):
        sketch = Surprise(calibration, 1)
        scores = np.concatenate((past, later))
        made = sketch.fold(np.zeros(len(scores), np.int64), scores)
        cut = slice(len(past) + start, None)
        said.append(Surprised(made.p[cut], made.lasting[cut], made.evidence[cut]))
    return said
