"""What a retraining on a million readings does to those who wait for predictions: python -m bench.beside

`streamrnn serve` with one shard, a registry and `retrain.cron`, on the development broker: 1,000,000 readings of the
past, then a steady rate, which goes on while Ray Train trains the default network on the latest 1,000,000, with the
settings that a server has by default. Percentiles before the retraining begins and while it runs, and in windows of
10 s. About six minutes; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from bench.live import LONGEST_S, Live, p99, say, staged

STREAMS, PER_S = 1_000, 1_000
BEFORE_S = 60.0  # at least, after the past is caught up with
WINDOW_S = 10.0


def main() -> None:
    """Measures, and prints as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cold", action="store_true", help="not from the champion's weights: four times the updates")
    parser.add_argument("--per-s", type=int, default=PER_S)
    given = parser.parse_args()
    due = datetime.now(UTC) + timedelta(seconds=BEFORE_S + 130)
    retrain = {
        "cron": f"{due.minute} {due.hour} * * *",
        "last": str(given.readings),
        "workers": given.workers,
        "warm": not given.cold,
    }
    with staged() as stage:
        live = Live(stage, STREAMS, given.per_s, given.readings, retrain={**retrain, "runs": str(stage.work / "runs")})
        with live.serving() as server:
            server.expect("retraining", 400)
            began_ns = time.monotonic_ns()
            say("the retraining begins")
            ended = server.expect("retrained", LONGEST_S)
            ended_ns = time.monotonic_ns()
            say(f"it ended: {ended['end']}, {ended['message']}")
        found = told(*live.waits(), began_ns, ended_ns)
    about = {
        "readings": ended.get("readings", 0),
        "readings_per_s": given.per_s,
        "workers": given.workers,
        "warm": not given.cold,
    }
    print(json.dumps({"retraining_s": ended["seconds"], "retraining_end": ended["end"], **found, **about}))


def told(sent_ns: Any, waits: Any, began_ns: int, ended_ns: int) -> dict[str, Any]:
    """Percentiles in ms."""
    before = waits[(sent_ns > began_ns - BEFORE_S * 1e9) & (sent_ns < began_ns)]
    during = (sent_ns >= began_ns) & (sent_ns < ended_ns - 1e9)
    window = ((sent_ns - began_ns) / (WINDOW_S * 1e9)).astype(np.int64)
    count = int((ended_ns - began_ns) / 1e9 / WINDOW_S)
    return {
        "p99_ms_before": p99(before),
        "p99_ms_during": p99(waits[during]),
        "p99_ratio": round(p99(waits[during]) / p99(before), 2),
        "p50_ms_before": round(float(np.median(before)), 1),
        "p50_ms_during": round(float(np.median(waits[during])), 1),
        "p99_ms_windows": [p99(waits[during & (window == one)]) for one in range(count)],
        "cpus": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
