"""What a swap does to those who wait for predictions, with 100,000 live streams on Kafka: python -m bench.swap_live

`streamrnn serve` with one shard follows its registry; a challenger follows all streams, and then the two change places
again and again, by hand. The pause between two epochs is what the shard itself measured; latency around a change is
beside that of quiet times. About three minutes; the last line is one JSON object.
"""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import numpy as np

from bench.live import Live, p99, save_default_model, say, staged, until

STREAMS, PER_S = 100_000, 2_000
SWAPS = 20
AROUND_S, QUIET_S = 1.0, 3.0


def main() -> None:
    """Measures, and prints as it goes."""
    from services.registry import Registry

    with staged() as stage:
        rules = {"automatic": False, "shadow": 1, "watch_h": 1.0, "canary": 1}
        live = Live(stage, STREAMS, PER_S, 2 * STREAMS, rollout=rules, state={"slots": STREAMS, "recent": 16})
        with live.serving() as server:
            url = f"http://127.0.0.1:{server.expect('listening', 60)['port']}/metrics"
            registry = Registry(live.registry)
            first = registry.aliases().champion or ""
            second = registry.add(save_default_model(stage.work / "other", seed=1), reason="a benchmark").model
            registry.challenge(second, reason="a benchmark", by="bench")
            server.expect("models_activated", 120)
            say(f"the challenger follows; {STREAMS / PER_S:.0f} s for all streams to be heard of")
            time.sleep(STREAMS / PER_S + 5)
            swapped_ns = []
            for number in range(SWAPS):
                registry.promote((second, first)[number % 2], reason="a benchmark", by="bench")
                server.expect("models_activated", 60)
                swapped_ns.append(time.monotonic_ns())
                time.sleep(QUIET_S)
            page = until(lambda: _page(url), "the metrics", 30)
        sent_ns, waits = live.waits()
    swapped = np.array(swapped_ns)
    near = (np.abs(sent_ns[:, None] - swapped[None]) < AROUND_S * 1e9).any(axis=1)
    quiet = ~near & (sent_ns > swapped[0]) & (sent_ns < swapped[-1])
    found = {
        **pauses(page),
        "swaps": SWAPS,
        "streams": STREAMS,
        "readings_per_s": PER_S,
        "p99_ms_within_1_s_of_a_swap": p99(waits[near]),
        "p99_ms_quiet": p99(waits[quiet]),
        "max_ms_within_1_s_of_a_swap": round(float(waits[near].max()), 1),
    }
    print(json.dumps(found))


def pauses(page: str) -> dict[str, Any]:
    """From the histogram of the shard's own: the bound below which 99 of 100 pauses lie, and their mean."""
    lines = [one for one in page.splitlines() if one.startswith("streamrnn_swap_seconds")]
    buckets = [(float(one.split('le="')[1].split('"')[0]), float(one.rpartition(" ")[2]))
               for one in lines if "_bucket" in one]  # fmt: skip
    count, total = (float(next(one for one in lines if part in one).rpartition(" ")[2]) for part in ("_count", "_sum"))
    below = next(bound for bound, seen in buckets if seen >= 0.99 * count)
    return {
        "swap_pause_ms_p99_below": below * 1e3,
        "swap_pause_ms_mean": round(total / count * 1e3, 3),
        "counted": count,
    }


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
        return str(answer.read().decode())


if __name__ == "__main__":
    main()
