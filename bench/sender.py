"""Sends readings at a steady rate and keeps when each was sent. A process of its own, as sensors are.

Says `sending` before the first reading and `sent` after the last; the times are written as `.npy`, ns of the machine's
monotonic clock, by number of the reading; SIGTERM ends it early, and leaves the times of what was sent.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np

from bench.stage import CHUNK, PARTITIONS, readings
from services.brokers.kafka_connect import open_producer

TICK_S = 0.005


def main() -> None:
    """Arguments: bootstrap, topic, streams, readings, readings a second, file for the times, number of the first."""
    bootstrap, topic, file = sys.argv[1], sys.argv[2], Path(sys.argv[6])
    streams, total, per_s = (int(one) for one in sys.argv[3:6])
    before = int(sys.argv[7])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    keys: list[bytes] = []
    values: list[bytes] = []
    for first in range(0, total, CHUNK):
        some_keys, some_values = readings(before + np.arange(first, min(total, first + CHUNK)), streams)
        keys += some_keys
        values += some_values
    sent_ns = np.zeros(total, np.int64)
    producer = open_producer({"bootstrap_servers": bootstrap})
    producer.partitions_for(topic)
    print(json.dumps({"event": "sending"}), flush=True)
    began_s = time.monotonic()
    number = 0
    try:
        while number < total:
            due = min(total, int((time.monotonic() - began_s) * per_s) + 1)
            for row in range(number, due):
                sent_ns[row] = time.monotonic_ns()
                producer.send(topic, key=keys[row], value=values[row], partition=row % streams % PARTITIONS)
            number = due
            time.sleep(TICK_S)
        producer.flush()
    finally:
        np.save(file, sent_ns)
    print(json.dumps({"event": "sent", "seconds": time.monotonic() - began_s}), flush=True)
    producer.close()


if __name__ == "__main__":
    main()
