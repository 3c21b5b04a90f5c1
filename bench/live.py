"""`streamrnn serve` under live traffic, and how long each reading waits for its prediction.

Latency is from the sensor's `send` to a read-committed consumer's receipt; all of it shares the machine, the sender
and the broker too. Each reading's number is in its `at`, so that its prediction is recognised.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from bench.children import Child
from bench.stage import BASE_AT_MS, FEATURES, PARTITIONS, Stage

TOPIC, PIPELINE = "bench.live", "live"
LONGEST_S = 900.0


def say(text: str) -> None:
    """A line about how far it has come, with the machine's load."""
    print(f"{datetime.now():%H:%M:%S}  {text}  (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


@contextmanager
def staged() -> Iterator[Stage]:
    """A broker of its own, and a folder."""
    from services.brokers.devbroker import DevBroker

    with tempfile.TemporaryDirectory(prefix="streamrnn-bench-") as work:
        broker = DevBroker(Path(work) / "broker", owned=True)
        broker.start()
        try:
            yield Stage(Path(work), broker.bootstrap)
        finally:
            broker.stop()


def save_default_model(folder: Path, seed: int = 0) -> Path:
    """The default network for seven features, with random weights."""
    import torch

    from rnn.io import weights
    from rnn.nn.network import Network
    from rnn.train.recipe import default_config

    torch.manual_seed(seed)
    weights.save(folder, Network(default_config(FEATURES, 1.0, (), 1_000_000)), created_ms=seed)
    return folder


class Live:
    """One shard of `streamrnn serve`, a past that it has caught up with, and a sender. `waits` tells what it took."""

    def __init__(self, stage: Stage, streams: int, per_s: int, past: int, **settings: Any) -> None:
        self.stage, self.streams, self.per_s, self.past = stage, streams, per_s, past // streams * streams
        self._settings = settings
        self._sent = stage.work / "sent.npy"
        self._got: list[tuple[int, list[bytes | None]]] = []  # (when, values)
        self._ready, self._over = threading.Event(), threading.Event()

    @property
    def registry(self) -> str:
        """The folder that the server follows."""
        return str(self.stage.work / "registry")

    @contextmanager
    def serving(self) -> Iterator[Child]:
        """The server's log lines as events, while readings come at a steady rate."""
        stage = self.stage
        stage.create_topic(TOPIC)
        save_default_model(stage.model)
        stage.settings(PIPELINE, TOPIC)
        say(f"writing {self.past:,} readings of the past, of {self.streams:,} streams")
        stage.write_readings(TOPIC, self.streams, self.past // self.streams, lambda share, text: None)
        command = f"exec {Path(sys.executable).parent / 'streamrnn'} serve -c {self._config()} 2>&1"
        with Child("the server", ["bash", "-c", command], stage.work / "server.log") as server:
            threading.Thread(target=self._listen, daemon=True).start()
            if not self._ready.wait(180):
                raise TimeoutError("the past was not caught up with within 180 s")
            say("the past is caught up with; sending begins")
            total = int(self.per_s * LONGEST_S)
            given = [stage.options["bootstrap_servers"], TOPIC, str(self.streams), str(total), str(self.per_s),
                     str(self._sent), str(self.past)]  # fmt: skip
            with Child(
                "the sender", [sys.executable, "-m", "bench.sender", *given], stage.work / "sender.log"
            ) as sender:
                sender.expect("sending", 180)
                try:
                    yield server
                finally:
                    self._over.set()

    def waits(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """When each answered reading was sent, ns of the monotonic clock, and what it waited, ms. After `serving`."""
        sent_ns, whens, waits = np.load(self._sent), [], []
        for at_ns, values in self._got:
            numbers = np.array([json.loads(value)["at"] - BASE_AT_MS - self.past for value in values if value])
            when_ns = sent_ns[numbers[numbers >= 0]]
            whens.append(when_ns)
            waits.append((at_ns - when_ns) / 1e6)
        return np.concatenate(whens), np.concatenate(waits)

    def _config(self) -> Path:
        file = self.stage.work / "serve.yaml"
        settings = {
            "pipeline": PIPELINE, "kafka": self.stage.options, "topics": {"readings": TOPIC},
            "model": str(self.stage.model), "registry": self.registry, "fleet": {"shards": 1}, "telemetry": {"port": 0},
            **self._settings,
        }  # fmt: skip
        file.write_text(yaml.safe_dump(settings))
        return file

    def _listen(self) -> None:
        """Predictions as they come, until the server ends."""
        from services.brokers.kafka_source import KafkaSource

        source = KafkaSource(self.stage.options, f"{PIPELINE}.predictions", range(PARTITIONS))
        source.seek(dict.fromkeys(range(PARTITIONS), 0))
        received = 0
        while not self._over.is_set():
            for records in source.poll(10_000, 0.2):
                received += len(records)
                if received > self.past:
                    self._got.append((time.monotonic_ns(), records.values))
            if received >= self.past:
                self._ready.set()


def p99(waits: NDArray[np.float64]) -> float:
    """ms; NaN of none."""
    return round(float(np.percentile(waits, 99)), 1) if len(waits) else float("nan")


def until(holds: Callable[[], Any], what: str, timeout_s: float) -> Any:
    """What `holds` gives once it is true."""
    end_s = time.monotonic() + timeout_s
    while not (found := holds()):
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)
    return found
