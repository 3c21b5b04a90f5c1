"""A scrape stays small with many shards, and says the same as the library would. No time is asserted."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from bench.scrape import SHARDS, share, stats_of
from services.quality.pipeline import PipelineStats
from services.telemetry.collector import StatsCollector, new_registry
from services.telemetry.exposition import exposed

MOST_BYTES = 500_000


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    """200 shards, each with two models of 24 steps, a GPU and four partitions."""
    made = new_registry()
    drift = {"flow": 0.5, 'a "quoted" \\ name\nof two lines': 2.0, "temperature °C": float("inf")}
    pipeline = PipelineStats(contest={"gain": -0.1}, drift=drift)
    collector = StatsCollector(made)
    collector.update({shard: stats_of(shard) for shard in range(SHARDS)}, {n: {} for n in range(SHARDS)}, pipeline)
    return made


def test_a_page_of_200_shards_is_below_500_kb(registry: CollectorRegistry) -> None:
    assert len(exposed(registry)) < MOST_BYTES


def test_the_page_is_byte_for_byte_the_library_s(registry: CollectorRegistry) -> None:
    assert exposed(registry) == generate_latest(registry)


def test_more_streams_and_more_readings_make_no_more_lines() -> None:
    def lines(streams: int) -> int:
        stats = stats_of(0)
        stats.live_streams = stats.slots_used = stats.readings = streams
        made = new_registry()
        StatsCollector(made).update({0: stats}, {0: {}})
        return exposed(made).count(b"\n")

    assert lines(10) == lines(10_000_000)


def test_the_benchmark_counts_what_a_shard_does() -> None:
    found = share(turns=4, rows=50, streams=20)
    assert 0 < found["telemetry_share"] < 1 and found["turn_ms"] > 0
