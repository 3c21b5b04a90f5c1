"""Shards' counters added up, so that the sum never goes back when an actor is replaced. Imports stats and quality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from services.predictor.stats import Histogram, ShardStats
from services.quality.prequential import RunningMetrics
from services.telemetry.metric_catalog import METRICS

SUMMED = tuple(dict.fromkeys(metric.field for metric in METRICS if metric.of == "shards"))


class Totals:
    """Sums over every life of every shard that was seen. What a life counted after it was last seen is not in them."""

    def __init__(self) -> None:
        self._last: dict[int, ShardStats] = {}  # the newest numbers of each shard's newest life
        self._ended: dict[str, Any] = {}  # field -> sum over the lives before them

    def saw(self, stats: Mapping[int, ShardStats]) -> None:
        """The shards' newest numbers; a shard that is missing keeps what it had."""
        for shard, now in stats.items():
            before = self._last.get(shard)
            if before is not None and before.started_s != now.started_s:
                for field in SUMMED:
                    its = getattr(before, field)
                    self._ended[field] = added([self._ended[field], its]) if field in self._ended else its
            self._last[shard] = now

    def of(self, field: str) -> Any:
        """The sum of one field: a number, a histogram, or a mapping of them. None: no shard was ever seen."""
        values = [getattr(stats, field) for stats in self._last.values()]
        return added(values if field not in self._ended else [self._ended[field], *values])


def added(values: Sequence[Any]) -> Any:
    """The sum of values of one field; none of them is changed. None: there are none."""
    if not values:
        return None
    if isinstance(first := values[0], Histogram):
        both = Histogram(first.bounds)
        both.counts = np.sum([one.counts for one in values], axis=0)
        both.total = sum(one.total for one in values)
        return both
    if isinstance(first, Mapping):
        names = dict.fromkeys(name for one in values for name in one)
        return {name: added([one[name] for one in values if name in one]) for name in names}
    return sum(values)


def figures_of(found: Iterable[tuple[str, RunningMetrics | None]]) -> dict[str, RunningMetrics]:
    """Model -> the figures of its forecasts on all shards together. Of shards whose figures cannot be added up, because
    each has measured its own spread of the data, the one that has seen the most speaks.
    """
    whole: dict[str, RunningMetrics] = {}
    for model, one in found:
        if one is None:
            continue
        try:
            whole[model] = whole[model] + one if model in whole else one
        except ValueError:
            whole[model] = max(whole[model], one, key=lambda figures: float(figures.ever[0].sum()))
    return whole
