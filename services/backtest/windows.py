"""What alarms are worth on labelled readings: pointwise, by window, and by Numenta's benchmark. Imports numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Window = tuple[int, int]
"""First and last reading of a range, both in it."""

HIT, FALSE_ALARM, MISS = 1.0, 0.11, 1.0
"""Weights of the benchmark's standard profile: A_TP, A_FP, A_FN."""
SHARE = 0.1
"""Of a series, which the benchmark gives to all of its windows together."""
TELL_AGAIN = 50
"""Readings after which an alarm that goes on is told again. In between it is the same one."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One stream that was watched for anomalies from the reading `start` on."""

    label: NDArray[np.bool_]  # [n], the whole stream's
    start: int
    alarm: NDArray[np.bool_]  # [n - start]


def figures(streams: Sequence[Watched]) -> dict[str, float | int | None]:
    """`precision, recall, f1, nab_score, detections` and `alarms_per_1000`, over all streams together.

    Pointwise: a reading in alarm is right where it is labelled. `alarms_per_1000` are the readings in alarm of 1,000
    that are not labelled; `detections` the labelled ranges with at least one reading in alarm. None where nothing was
    to be found: no reading is labelled; or all are, and no alarm can be false.
    """
    label = np.concatenate([one.label[one.start :] for one in streams])
    alarm = np.concatenate([one.alarm for one in streams])
    right, wrong, missed = (int(mask.sum()) for mask in (alarm & label, alarm & ~label, label & ~alarm))
    anything, normal = right + missed > 0, int((~label).sum())
    detections = sum(
        int(one.alarm[max(0, first - one.start) : last + 1 - one.start].any())
        for one in streams
        for first, last in ranges(one.label)
        if last >= one.start
    )
    return {
        "precision": _round(right / max(1, right + wrong)) if anything else None,
        "recall": _round(right / (right + missed)) if anything else None,
        "f1": _round(2 * right / (2 * right + wrong + missed)) if anything else None,
        "nab_score": nab_score(streams),
        "detections": detections,
        "alarms_per_1000": _round(1000 * wrong / normal) if normal else None,
    }


def ranges(label: NDArray[np.bool_]) -> list[Window]:
    """The contiguous labelled ranges of a stream [n]."""
    edges = np.flatnonzero(np.diff(label.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(end) - 1) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def windows(label: NDArray[np.bool_]) -> list[Window]:
    """The windows of Lavin and Ahmad (2015), section II: a tenth of the stream's readings is shared among its labelled
    ranges, and one shorter than its share is widened to it about its middle. Those that meet become one.
    """
    found = ranges(label)
    length = int(SHARE * len(label) / len(found)) if found else 0
    wide: list[Window] = []
    for first, last in found:
        more = max(0, length - (last + 1 - first))
        first, last = max(0, first - more // 2), min(len(label) - 1, last + more - more // 2)
        if wide and first <= wide[-1][1] + 1:
            wide[-1] = (wide[-1][0], max(last, wide[-1][1]))
        else:
            wide.append((first, last))
    return wide


def told(alarm: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The readings at which a person is told of an alarm: when it begins, and again while it goes on; never twice
    within TELL_AGAIN readings.
    """
    times: list[int] = []
    for at in np.flatnonzero(alarm).tolist():
        if not times or at - times[-1] >= TELL_AGAIN:
            times.append(at)
    return np.array(times, np.int64)


def nab_score(streams: Sequence[Watched]) -> float | None:
    """The score of Lavin and Ahmad (2015), section II: 100 for a detector that tells of every window at its first
    reading and of nothing else, 0 for one that never tells; below 0 where false alarms cost more than was found.

    In a window the first one told counts, sigma(y) = 2 / (1 + exp(5 y)) - 1 at its place y, from -1 at the first
    reading of the window to nearly 0 at its last, by A_TP, scaled to 1 at the first one. One outside counts A_FP
    sigma(y), y its distance behind the last window, in windows; -A_FP where that is beyond 3, or there is none. A
    window of which nothing was told counts -A_FN. None where there is no window.
    """
    total, count = 0.0, 0
    for one in streams:
        at = told(one.alarm) + one.start
        outside = np.ones(len(at), np.bool_)
        known = windows(one.label)
        for first, last in known:
            if last < one.start:
                continue
            count += 1
            width, inside = last + 1 - first, at[(at >= first) & (at <= last)]
            outside &= (at < first) | (at > last)
            total += HIT * _sigma((inside[0] - last - 1) / width) / _sigma(-1.0) if len(inside) else -MISS
        for place in at[outside].tolist():
            before = [window for window in known if window[1] < place]
            far = (place - before[-1][1]) / max(1, before[-1][1] - before[-1][0]) if before else np.inf
            total += FALSE_ALARM * (_sigma(far) if far <= 3 else -1.0)
    if not count:
        return None
    return _round(100 * (total + MISS * count) / ((HIT + MISS) * count))


def _sigma(y: float) -> float:
    return float(2 / (1 + np.exp(5 * y)) - 1)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
