"""What watching costs: `python -m bench.scrape`. The last line is one JSON object.

    scrape_kb, scrape_ms    a page of 200 shards over HTTP, with two models of 24 steps, GPUs, 4 partitions a shard
    telemetry_share         of a shard's time, what counting and snapshots take, without a broker: less with one

Imports services and numpy; torch inside functions.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from services.predictor.stats import ShardStats
from services.quality.pipeline import PipelineStats
from services.quality.prequential import RunningMetrics
from services.records import Reason

SHARDS, STEPS, PARTITIONS = 200, 24, 4


def stats_of(shard: int) -> ShardStats:
    """As a shard counts after a few days."""
    rng = np.random.default_rng(shard)
    stats = ShardStats(model="3f9a0c12be77", challenger="0ff1ce000000", ready=True, restore_done=1.0)
    stats.readings = stats.predictions = int(rng.integers(10**9))
    stats.restored, stats.restore_s, stats.lag_s = 123_456, 12.345678, float(rng.random())
    stats.slots, stats.slots_used, stats.live_streams = 100_000, 98_765, 98_765
    stats.lag = {shard + SHARDS * place: int(rng.integers(10_000)) for place in range(PARTITIONS)}
    stats.last_progress_s = stats.last_epoch_s = time.time()
    stats.rejected = dict.fromkeys(Reason, 12_345)
    stats.gpu_total_bytes, stats.gpu_free_bytes, stats.gpu_own_bytes = 85_520_809_984, 12_345_678_901, 1_234_567_890
    for seen in (stats.latency_s, stats.batch_rows, stats.swap_s, *stats.phase_s.values()):
        seen.observe(rng.random(1000))
    truth = rng.random((100, 3))
    for name in ("figures", "challenger_figures"):
        figures = RunningMetrics(np.ones(3), steps=tuple(range(1, STEPS + 1)))
        for step in figures.steps:
            figures.add(truth, truth + 0.1, truth - 1, truth + 1, truth - 0.2, step)
        setattr(stats, name, figures)
    return stats


def page(rounds: int = 30) -> dict[str, Any]:
    """Size of the page, and how long a scrape takes from asking to the last byte: the best tenth and the median."""
    from services.telemetry.collector import StatsCollector, new_registry
    from services.telemetry.endpoint import Endpoint, Health

    registry = new_registry()
    collector = StatsCollector(registry)
    pipeline = PipelineStats(contest={"gain": 0.1}, drift={f"feature {n}": 0.5 for n in range(20)})
    collector.update(
        {shard: stats_of(shard) for shard in range(SHARDS)}, {shard: {} for shard in range(SHARDS)}, pipeline
    )
    took, size = [], 0
    with Endpoint(registry, Health, "127.0.0.1", 0) as endpoint:
        for _ in range(rounds):
            began = time.perf_counter()
            with urllib.request.urlopen(f"{endpoint.url}/metrics") as answer:  # noqa: S310
                size = len(answer.read())
            took.append(1000 * (time.perf_counter() - began))
    ms = {"scrape_ms": statistics.median(took), "scrape_ms_p10": float(np.percentile(took, 10))}
    return {"scrape_kb": round(size / 1000, 1), **{name: round(value, 1) for name, value in ms.items()}}


class Timed:
    """Calls `what` and adds up how long that took."""

    def __init__(self, what: Any) -> None:
        self.what, self.took_s = what, 0.0

    def __call__(self, *given: Any) -> Any:
        began = time.perf_counter()
        found = self.what(*given)
        self.took_s += time.perf_counter() - began
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.what, name)


def share(turns: int = 200, rows: int = 2000, streams: int = 2000) -> dict[str, Any]:
    """Of a shard's turns without a broker, which are as short as can be, what counting takes, and snapshots. At full
    load batches are of thousands of readings.
    """
    from bench.loop import Sender, Served, models

    with tempfile.TemporaryDirectory(prefix="streamrnn-bench-") as folder:
        served = Served(models(Path(folder), 1)[0], 8192, recent=16)
        shard, sender = served.shard, Sender(streams)
        for _ in range(30):
            served.turn(sender.poll(rows))
        counting = [Timed(shard._count), Timed(shard._phase), Timed(shard._lag.see)]
        shard._count, shard._phase, shard._lag.see = counting  # type: ignore[method-assign,assignment]
        took: list[float] = []
        shares: list[float] = []
        for _ in range(turns):
            before_s = sum(one.took_s for one in counting)
            took.append(served.turn(sender.poll(rows)))
            shares.append((sum(one.took_s for one in counting) - before_s) / took[-1])
        began = time.perf_counter()
        for _ in range(50):
            shard.stats.snapshot()
        snapshot_s = (time.perf_counter() - began) / 50
    return {
        "telemetry_share": round(statistics.median(shares) + 2 * snapshot_s, 4),  # two snapshots a second
        "snapshot_ms": round(1000 * snapshot_s, 2),
        "turn_ms": round(1000 * statistics.median(took), 2),
    }


def main() -> None:
    """Prints one JSON object."""
    import torch

    torch.set_num_threads(1)
    print(json.dumps({**page(), **share()}))


if __name__ == "__main__":
    main()
