"""Kafka to Kafka at 2,000 readings/s, exactly once: from the sensor's `send` to a read-committed consumer's receipt.

Three processes: the sender, our pipeline, and this one as the consumer. The first seconds do not count. The clock is
the machine's monotonic one, which all three share.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from bench.children import Child
from bench.stage import BASE_AT_MS, PARTITIONS, Progress, Stage

PER_S = 2_000
STREAMS = 1_000
WARM_UP_S = 10
MEASURED_S = 60
QUIET_S = 30.0
"""How long to wait for predictions after the last reading before calling them lost."""


def measure(stage: Stage, progress: Progress, per_s: int = PER_S, measured_s: int = MEASURED_S) -> dict[str, Any]:
    """Percentiles in ms over all readings sent after the warm-up. Raises ValueError when any has not one prediction."""
    from services.brokers.kafka_source import KafkaSource

    topic, total = "bench.paced", per_s * (WARM_UP_S + measured_s)
    stage.create_topic(topic)
    settings = stage.settings("paced", topic)
    file = stage.work / "sent.npy"
    given = [stage.options["bootstrap_servers"], topic, str(STREAMS), str(total), str(per_s), str(file), "0"]
    source = KafkaSource(stage.options, settings.topics.predictions, range(PARTITIONS))
    polls: list[tuple[int, list[bytes | None]]] = []  # (when, values)
    received = 0
    with stage.serve(settings) as pipeline:
        pipeline.expect("ready", 60)
        source.seek(dict.fromkeys(range(PARTITIONS), 0))
        source.poll(1, 0.0)
        with Child("the sender", [sys.executable, "-m", "bench.sender", *given], stage.work / "sender.log") as sender:
            sender.expect("sending", 60)
            until_s = time.monotonic() + WARM_UP_S + measured_s + QUIET_S
            while received < total and time.monotonic() < until_s:
                for records in source.poll(10_000, 0.2):
                    polls.append((time.monotonic_ns(), records.values))
                    received += len(records)
                progress(received / total, f"{received:,} predictions received")
                pipeline.check()
            sent_s = sender.expect("sent", QUIET_S)["seconds"]
        source.close()
        pipeline.stop()
        stopped = pipeline.expect("stopped", 1.0)
    got_ns = np.zeros(total, np.int64)
    times = np.zeros(total, np.int64)
    for at_ns, values in polls:
        numbers = [json.loads(value)["at"] - BASE_AT_MS for value in values if value is not None]
        got_ns[numbers] = at_ns
        np.add.at(times, numbers, 1)
    if not (times == 1).all():
        raise ValueError(f"of {total} readings {(times == 0).sum()} have no prediction and {(times > 1).sum()} several")
    took_ms = (got_ns - np.load(file))[per_s * WARM_UP_S :] / 1e6
    p50, p90, p99, p999 = (round(float(found), 1) for found in np.percentile(took_ms, (50, 90, 99, 99.9)))
    return {
        "p50_ms_exactly_once_2k": p50,
        "p99_ms_exactly_once_2k": p99,
        "detail": {
            "readings": len(took_ms),
            "streams": STREAMS,
            "sent_per_s": round(total / sent_s, 1),
            "p90_ms": p90,
            "p999_ms": p999,
            "max_ms": round(float(took_ms.max()), 1),
            "epochs": stopped["epochs"],
            "phase_s": stopped["phase_s"],
        },
    }
