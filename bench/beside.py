"""What a retraining on a million readings does to those who wait for predictions: python -m bench.beside

`streamrnn serve` with one shard, a registry and `retrain.cron`, on the development broker: 1,000,000 readings of the
past, then 2,000 a second, which go on while one Ray worker trains the default network on the latest 1,000,000. Latency
is from the sensor's `send` to a read-committed consumer's receipt, before the retraining begins and while it runs, and
in windows of 10 s. All of it shares the machine, the sender and the broker too. About eight minutes; the last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.children import Child
from bench.stage import BASE_AT_MS, FEATURES, PARTITIONS, Stage

STREAMS, PER_S = 1_000, 2_000
BEFORE_S = 60.0  # at least, after the past is caught up with
LONGEST_S = 900.0
WINDOW_S = 10.0
TOPIC, PIPELINE = "bench.beside", "beside"


def main() -> None:
    """Measures, and prints as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    from services.brokers.devbroker import DevBroker

    with tempfile.TemporaryDirectory(prefix="streamrnn-bench-") as work:
        broker = DevBroker(Path(work) / "broker", owned=True)
        broker.start()
        try:
            stage = Stage(Path(work), broker.bootstrap)
            print(json.dumps(measure(stage, given.readings, given.workers)))
        finally:
            broker.stop()


def measure(stage: Stage, readings: int, workers: int) -> dict[str, Any]:
    """Percentiles in ms, and how long the retraining took."""
    stage.create_topic(TOPIC)
    _save_default_model(stage)
    stage.settings(PIPELINE, TOPIC)
    say(f"writing {readings:,} readings of the past")
    stage.write_readings(TOPIC, STREAMS, readings // STREAMS, lambda share, text: None)
    ready = threading.Event()
    config = _config(stage, readings, workers)
    command = f"exec {Path(sys.executable).parent / 'streamrnn'} serve -c {config} 2>&1"
    got: list[tuple[int, list[bytes | None]]] = []
    with Child("the server", ["bash", "-c", command], stage.work / "server.log") as server:
        listener = threading.Thread(target=_listen, args=(stage, readings, got, ready), daemon=True)
        listener.start()
        ready.wait(120)
        say("the past is caught up with; sending begins")
        past, total = readings // STREAMS * STREAMS, int(PER_S * LONGEST_S)
        file = stage.work / "sent.npy"
        given = [stage.options["bootstrap_servers"], TOPIC, str(STREAMS), str(total), str(PER_S), str(file), str(past)]
        with Child("the sender", [sys.executable, "-m", "bench.sender", *given], stage.work / "sender.log") as sender:
            sender.expect("sending", 120)
            server.expect("retraining", 400)
            began_ns = time.monotonic_ns()
            say("the retraining begins")
            ended = server.expect("retrained", LONGEST_S)
            ended_ns = time.monotonic_ns()
            say(f"it ended: {ended['end']}, {ended['message']}")
    return _told(got, np.load(file), past, began_ns, ended_ns, ended)


def say(text: str) -> None:
    """A line about how far it has come."""
    print(f"{datetime.now():%H:%M:%S}  {text}  (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


def _save_default_model(stage: Stage) -> None:
    import torch

    from rnn import weights
    from rnn.network import Network
    from rnn.recipe import default_config

    torch.manual_seed(0)
    weights.save(stage.model, Network(default_config(FEATURES, 1.0, (), 1_000_000)), created_ms=0)


def _config(stage: Stage, readings: int, workers: int) -> Path:
    due = datetime.now(UTC) + timedelta(seconds=BEFORE_S + 120)
    file = stage.work / "serve.yaml"
    settings = {
        "pipeline": PIPELINE,
        "kafka": stage.options,
        "topics": {"readings": TOPIC},
        "model": str(stage.model),
        "registry": str(stage.work / "registry"),
        "fleet": {"shards": 1},
        "telemetry": {"port": 0},
        "retrain": {
            "cron": f"{due.minute} {due.hour} * * *", "last": str(readings), "workers": workers, "warm": False,
            "runs": str(stage.work / "runs"),
        },
    }  # fmt: skip
    file.write_text(yaml.safe_dump(settings))
    return file


def _listen(stage: Stage, past: int, got: list[tuple[int, list[bytes | None]]], ready: threading.Event) -> None:
    """Predictions as they come, for as long as the process lives."""
    from services.brokers.kafka_source import KafkaSource

    source = KafkaSource(stage.options, f"{PIPELINE}.predictions", range(PARTITIONS))
    source.seek(dict.fromkeys(range(PARTITIONS), 0))
    received = 0
    while True:
        for records in source.poll(10_000, 0.2):
            received += len(records)
            if received > past:
                got.append((time.monotonic_ns(), records.values))
        if received >= past:
            ready.set()


def _told(
    got: list[tuple[int, list[bytes | None]]],
    sent_ns: np.ndarray[Any, np.dtype[np.int64]],
    past: int,
    began_ns: int,
    ended_ns: int,
    ended: dict[str, Any],
) -> dict[str, Any]:
    sents, waits = [], []
    for at_ns, values in got:
        numbers = np.array([json.loads(value)["at"] - BASE_AT_MS - past for value in values if value is not None])
        when_ns = sent_ns[numbers[numbers >= 0]]
        sents.append(when_ns)
        waits.append((at_ns - when_ns) / 1e6)
    sent, took = np.concatenate(sents), np.concatenate(waits)
    before = (sent > began_ns - BEFORE_S * 1e9) & (sent < began_ns)
    during = (sent >= began_ns) & (sent < ended_ns - 1e9)
    window = ((sent - began_ns) / (WINDOW_S * 1e9)).astype(np.int64)
    windows = [
        round(float(np.percentile(took[during & (window == one)], 99)), 1)
        for one in range(int((ended_ns - began_ns) / 1e9 / WINDOW_S))
    ]
    p99 = {name: float(np.percentile(took[mine], 99)) for name, mine in (("before", before), ("during", during))}
    return {
        "retraining_s": ended["seconds"],
        "retraining_end": ended["end"],
        "readings": ended.get("readings", 0),
        "p99_ms_before": round(p99["before"], 1),
        "p99_ms_during": round(p99["during"], 1),
        "p99_ratio": round(p99["during"] / p99["before"], 2),
        "p50_ms_before": round(float(np.median(took[before])), 1),
        "p50_ms_during": round(float(np.median(took[during])), 1),
        "p99_ms_windows": windows,
        "cpus": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
