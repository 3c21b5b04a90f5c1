"""Resident memory of one serving process with 100,000 live LSTM(64) streams, before and after a restart.

The number is the highest resident size seen from the moment that all streams are live, in either life of the process;
the kernel's own high-water mark, which includes start-up and restoring, is reported beside it.
"""

from __future__ import annotations

import time
from typing import Any

from bench.children import Child
from bench.stage import Progress, Stage

STREAMS = 100_000
ROUNDS = 3
SETTLE_S = 3.0


def measure(stage: Stage, progress: Progress, streams: int = STREAMS) -> dict[str, Any]:
    """MiB in the first life, seconds to restore, MiB in the second life."""
    topic = "bench.many"
    stage.create_topic(topic)
    settings = stage.settings("many", topic, slots=streams)
    total = stage.write_readings(topic, streams, ROUNDS, progress)
    with stage.serve(settings) as child:
        steady, highest = _watch(stage, settings.group, topic, streams, total, child, progress)
        child.stop()
        first = child.expect("stopped", 1.0)
    if (first["live_streams"], first["readings"]) != (streams, total):
        raise ValueError(f"{first['live_streams']} live streams after {first['readings']} readings")
    began_s = time.monotonic()
    with stage.serve(settings) as child:
        ready = child.expect("ready", 120)
        ready_s = time.monotonic() - began_s
        restored, _ = child.memory_mib()
        total += stage.write_readings(topic, streams, 1, progress, first_round=ROUNDS)
        again, highest_again = _watch(stage, settings.group, topic, 0, total, child, progress)
        child.stop()
        second = child.expect("stopped", 1.0)
    if second["flagged"].get("new"):
        raise ValueError(f"{second['flagged']['new']} streams began anew after the restart")
    return {
        "rss_mib_100k_streams": round(max(steady, restored, again)),
        "detail": {
            "streams": streams,
            "rss_mib": round(steady),
            "high_water_mib": round(highest),
            "restored_streams": ready["streams"],
            "restore_s": round(second["restore_s"], 2),
            "start_to_ready_s": round(ready_s, 2),
            "rss_mib_restored": round(restored),
            "rss_mib_after_restart": round(again),
            "high_water_mib_after_restart": round(highest_again),
        },
    }


def _watch(
    stage: Stage, group: str, topic: str, live_from: int, total: int, child: Child, progress: Progress
) -> tuple[float, float]:
    """Highest resident MiB seen from `live_from` committed readings until some time after `total`; high-water mark."""
    steady = 0.0
    for committed in stage.await_answers(group, topic, total, child, 180, progress):
        if committed >= live_from:
            steady = max(steady, child.memory_mib()[0])
    time.sleep(SETTLE_S)  # so that what an idle process holds is seen too
    now, highest = child.memory_mib()
    return max(steady, now), highest
