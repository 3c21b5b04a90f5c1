"""How good predictions are, given the truth beside them: classes, spans, answers, values. Imports numpy only.

Truth that is unknown (NaN) does not count; a score of nothing is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating]
"""Class numbers, or values, as floats; NaN = none."""

Span = tuple[int, int, int, int]
"""Sequence, first place, the place after the last, class."""


def accuracy(said: Numbers, truth: Numbers) -> float:
    """Share of right classes. said, truth [n]; a prediction that says nothing is wrong."""
    known = ~np.isnan(truth)
    return float((said[known] == truth[known]).mean()) if known.any() else math.nan


def f1_of_classes(said: Numbers, truth: Numbers, classes: int) -> NDArray[np.float64]:
    """2 hits / (2 hits + false alarms + misses) of each class [classes]; NaN for one never said and never true."""
    known = ~np.isnan(truth)
    said, truth = said[known], truth[known]
    scores = np.full(classes, np.nan)
    for one in range(classes):
        hits, claims, cases = ((said == one) & (truth == one)).sum(), (said == one).sum(), (truth == one).sum()
        if claims + cases:
            scores[one] = 2 * hits / (claims + cases)
    return scores


def macro_f1(said: Numbers, truth: Numbers, classes: int) -> float:
    """Mean of the classes' F1, each as much as the other."""
    scores = f1_of_classes(said, truth, classes)
    return float(np.nanmean(scores)) if (~np.isnan(scores)).any() else math.nan


def spans(tags: Numbers, end: NDArray[np.uint8], outside: int) -> set[Span]:
    """Runs of one tag, other than `outside`, within a sequence. tags [n], end [n] (not 0 = the sequence ends there).

    Two neighbouring entities of one kind are one span, for tags do not tell where one begins.
    """
    found: set[Span] = set()
    sequence, first = 0, 0
    for place in range(len(tags)):
        tag = tags[place]
        over = bool(end[place]) or place + 1 == len(tags) or tags[place + 1] != tag
        if over:
            if not math.isnan(tag) and int(tag) != outside:
                found.add((sequence, first, place + 1, int(tag)))
            first = place + 1
        sequence += bool(end[place])
    return found


def span_f1(said: Numbers, truth: Numbers, end: NDArray[np.uint8], outside: int) -> float:
    """F1 of whole entities (CoNLL 2003): one is right if its first place, its last and its class are."""
    claims, cases = spans(said, end, outside), spans(truth, end, outside)
    return 2 * len(claims & cases) / (len(claims) + len(cases)) if claims or cases else math.nan


def cross_entropy(prob_of_truth: Numbers) -> float:
    """Mean of -log p of what was true, in nats; exp of it is the perplexity. prob_of_truth [n], NaN = unknown."""
    known = prob_of_truth[~np.isnan(prob_of_truth)].astype(np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(known).mean()) if len(known) else math.nan


def exact_match(said: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """Share of answers that are the truth, symbol by symbol."""
    return float(np.mean([list(a) == list(b) for a, b in zip(said, truth, strict=True)])) if truth else math.nan


def mse(said: Numbers, truth: Numbers) -> NDArray[np.float64]:
    """Mean squared error of each target [targets]; said, truth [n, targets]. Values that were not said do not count."""
    return _mean(np.square(said.astype(np.float64) - truth))


def mae(said: Numbers, truth: Numbers) -> NDArray[np.float64]:
    """Mean absolute error of each target [targets]."""
    return _mean(np.abs(said.astype(np.float64) - truth))


def coverage(lo: Numbers, hi: Numbers, truth: Numbers) -> NDArray[np.float64]:
    """Share of truths in [lo, hi] for each target [targets]; arrays [n, targets]."""
    inside = ((lo <= truth) & (truth <= hi)).astype(np.float64)
    inside[np.isnan(lo) | np.isnan(hi) | np.isnan(truth)] = np.nan
    return _mean(inside)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    count = (~np.isnan(values)).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)
