"""`ShardStats` as Prometheus metrics. The registry is an argument; the library's global one is never touched."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from platform import python_version
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from services.predictor.stats import Histogram, ShardStats
from services.predictor.watched_streams import Points
from services.quality.pipeline import PipelineStats
from services.telemetry.metric_catalog import METRICS, Metric, labels
from services.telemetry.totals import Totals, figures_of

Stats = Mapping[int, ShardStats]
Restarts = Mapping[int, Mapping[str, int]]


def new_registry() -> CollectorRegistry:
    """An empty registry, for those who may not import prometheus_client."""
    return CollectorRegistry()


class StatsCollector(Collector):
    """Shows what it was last given. `update` and scrapes may come from different threads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = threading.Lock()
        self._stats: dict[int, ShardStats] = {}
        self._restarts: dict[int, dict[str, int]] = {}
        self._pipeline = PipelineStats()
        self._spotlight: Sequence[Points] = ()
        self._totals = Totals()
        self._started_s = time.time()
        self._build = _versions()
        registry.register(self)

    def update(
        self,
        stats: Stats,
        restarts: Restarts | None = None,
        pipeline: PipelineStats | None = None,
        spotlight: Sequence[Points] = (),
    ) -> None:
        """Replaces all numbers. `stats`: snapshots of the shards that answer; `restarts`: shard -> cause -> count; its
        keys are the shards that ought to be there; `spotlight`: the newest points of streams.
        """
        with self._lock:
            self._stats = dict(stats)
            self._totals.saw(stats)
            self._restarts = {shard: dict(causes) for shard, causes in (restarts or {}).items()}
            self._pipeline, self._spotlight = pipeline or PipelineStats(), spotlight

    def describe(self) -> Iterable[Any]:
        """Nothing: names are checked by tests, not at registration."""
        return ()

    def collect(self) -> Iterator[Any]:
        """All metrics of names.METRICS, with a 0 for every known label value that has not occurred."""
        with self._lock:
            stats, restarts, pipeline, spotlight = self._stats, self._restarts, self._pipeline, self._spotlight
            totals = {metric.field: self._totals.of(metric.field) for metric in METRICS if metric.of == "shards"}
        figures = {
            "champion": figures_of((one.model, one.figures) for one in stats.values()),
            "challenger": figures_of((one.challenger, one.challenger_figures) for one in stats.values()),
        }
        shards = sorted(stats.keys() | restarts.keys())
        for metric in METRICS:
            family = _family(metric)
            if metric.name == "streamrnn_build_info":
                family.add_metric(self._build, 1)
            elif metric.name == "streamrnn_start_timestamp_seconds":
                family.add_metric([], self._started_s)
            elif metric.name == "streamrnn_shard_up":
                for shard in shards:
                    family.add_metric([str(shard)], int(shard in stats))
            elif metric.name == "streamrnn_shard_restarts_total":
                for shard in shards:
                    _add(family, metric, [str(shard)], restarts.get(shard, {}))
            elif metric.of == "pipeline":
                _add(family, metric, [], getattr(pipeline, metric.field))
            elif metric.of == "spotlight":
                for points in spotlight:
                    _add_newest(family, metric, points)
            elif metric.of == "shards":
                _add(family, metric, [], totals[metric.field])
            elif metric.of in figures:
                for model, its in figures[metric.of].items():
                    for step in its.steps:
                        value = its.figures(step, present=True)[metric.field]
                        _add(family, metric, [model, str(step)], value)
            else:
                for shard in sorted(stats):
                    _add(family, metric, [str(shard)], getattr(stats[shard], metric.field))
            yield family


def _family(metric: Metric) -> Any:
    if metric.kind == "histogram":
        return HistogramMetricFamily(metric.name, metric.help, labels=labels(metric))
    if metric.kind == "counter":
        return CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=labels(metric))
    return GaugeMetricFamily(metric.name, metric.help, labels=labels(metric))


def _add(family: Any, metric: Metric, whose: list[str], value: Any) -> None:
    """Samples of one metric; the shape of `value` decides. None: there are none."""
    if value is None:
        return
    if isinstance(value, str):
        if value:
            family.add_metric([*whose, value], 1)
    elif isinstance(value, Mapping):
        by_name = dict.fromkeys(metric.values, 0) | {str(name): its for name, its in value.items()}
        for name, its in by_name.items():
            _add_one(family, [*whose, name], its)
    else:
        _add_one(family, whose, value)


def _add_newest(family: Any, metric: Metric, points: Points) -> None:
    """The last point's value of each target, or its score; none where there is none."""
    newest = getattr(points, metric.field)[-1]
    labels_of = [[points.stream, target] for target in points.targets] if metric.label else [[points.stream]]
    for its, value in zip(labels_of, newest.flat, strict=True):
        if value == value:
            family.add_metric(its, float(value))


def _add_one(family: Any, at: list[str], value: Any) -> None:
    if isinstance(value, Histogram):
        bounds = [*map(floatToGoString, value.bounds), "+Inf"]
        family.add_metric(at, list(zip(bounds, value.counts.cumsum().tolist(), strict=True)), value.total)
    else:
        family.add_metric(at, float(value))


def _versions() -> list[str]:
    """Values of names.BUILD_LABELS."""
    found = [python_version()]
    for name in ("streamrnn", "torch", "ray", "kafka-python"):
        try:
            found.append(metadata.version(name))
        except metadata.PackageNotFoundError:
            found.append("unknown")
    return [found[1], found[0], *found[2:]]
