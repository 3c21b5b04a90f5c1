"""Run on the node: sends household power as eight streams, and looks whether each reading has one prediction.

house.py send BOOTSTRAP PIPELINE            until its standard input ends; says how many it sent
house.py check BOOTSTRAP PIPELINE SECONDS   waits until all are answered, then compares both topics, offset by offset
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections import Counter
from typing import Any

import numpy as np

STREAMS, PARTITIONS = 8, 4
PER_S = 25  # readings of each stream


def send(bootstrap: str, pipeline: str) -> dict[str, Any]:
    """Paced by the clock, so that a broker that is away for a moment costs nothing but a burst."""
    from services.brokers.kafka_client import open_producer
    from services.datasets import household_power

    series = household_power(None)
    span = len(series.x) // STREAMS
    stop = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    sent, began_s = 0, time.monotonic()
    with open_producer({"bootstrap_servers": bootstrap}) as producer:
        while not stop.wait(0.04):
            due = int((time.monotonic() - began_s) * PER_S)
            for step in range(sent // STREAMS, due):
                now_ms = time.time_ns() // 1_000_000
                for partition in range(PARTITIONS):
                    mine = range(partition, STREAMS, PARTITIONS)
                    rows = [stream * span + step for stream in mine]
                    values = [
                        json.dumps({"at": at, "x": [None if math.isnan(one) else one for one in x]}).encode()
                        for at, x in zip(series.at_ms[rows].tolist(), series.x[rows].tolist(), strict=True)
                    ]
                    producer.append(
                        f"{pipeline}.readings", partition, [b"house-%d" % one for one in mine], values, now_ms
                    )
                sent += STREAMS
            producer.flush()
    return {"sent": sent}


def check(bootstrap: str, pipeline: str, timeout_s: float) -> dict[str, Any]:
    """What is missing, double or out of order."""
    from services.brokers.kafka_client import read_topic
    from services.codecs import predictions

    options, end_s = {"bootstrap_servers": bootstrap}, time.monotonic() + timeout_s
    while True:
        readings = read_topic(options, f"{pipeline}.readings")
        parts = [predictions.decode(one) for one in read_topic(options, f"{pipeline}.predictions").values() if len(one)]
        total, answered = sum(map(len, readings.values())), sum(map(len, parts))
        if answered >= total or time.monotonic() > end_s:
            break
        time.sleep(1.0)
    told: dict[str, Any] = {"readings": total, "predictions": answered, "lost": 0, "doubled": 0, "disordered": 0}
    models: Counter[str] = Counter(model for part in parts for model in part.models)
    for partition, of in readings.items():
        mine = [(part.offsets[where], np.array(part.streams, dtype=object)[where])
                for part in parts for where in [np.flatnonzero(part.partitions == partition)]]  # fmt: skip
        offsets = np.concatenate([one for one, _ in mine] or [np.zeros(0, np.int64)])
        streams = np.concatenate([one for _, one in mine] or [np.zeros(0, object)])
        distinct, times = np.unique(offsets, return_counts=True)
        told["lost"] += len(np.setxor1d(distinct, of.offsets))
        told["doubled"] += int((times - 1).sum())
        told["disordered"] += sum(int((np.diff(offsets[streams == one]) <= 0).sum()) for one in set(streams.tolist()))
    return told | {"models": models}


if __name__ == "__main__":
    how, *given = sys.argv[1:]
    told = send(given[0], given[1]) if how == "send" else check(given[0], given[1], float(given[2]))
    print(json.dumps(told), flush=True)
