"""Chaos on the real thing: Kafka, Ray and SIGKILL, then a check of every single prediction.

Run as a script it is the soak: `python tests/support/chaos.py --kills 1000`; the last line is one JSON object.
The truth is what stands in the readings topic; every prediction is compared bit for bit with an offline unroll.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from verdict import Report, read_offsets, verify
from waiting import wait_for

FEATURES = ("flow", "level", "temperature")
BAD = (b"not json", b'{"at": 1, "x": [1]}', b'{"at": 1, "x": [1, 2, "3"]}', b"", b'{"at": 1, "x": [1, 1e999, 0]}')


class Chaos:
    """One pipeline under load. Use as a context manager; everything it starts it stops."""

    def __init__(self, seed: int, *, streams: int = 24, partitions: int = 4, shards: int = 2, rate: float = 300.0,
                 tick_s: float = 0.05, delivery: str = "exactly_once", stall_timeout_s: float = 20.0,
                 pipeline: str = "chaos", broker: Any = None) -> None:  # fmt: skip
        print(f"chaos seed {seed}", flush=True)
        self.random = random.Random(seed)
        self.streams, self.partitions, self.shards, self.rate, self.tick_s = streams, partitions, shards, rate, tick_s
        self.delivery, self.stall_timeout_s = delivery, stall_timeout_s
        self.pipeline, self.broker = pipeline, broker  # None: a broker of its own, which may be killed
        self.report = Report()
        self.events: list[dict[str, Any]] = []
        self._stack = ExitStack()
        self._level: dict[int, np.ndarray] = {}  # stream -> where its random walk is
        self._quiet = threading.Event()
        self._errors: list[Exception] = []

    # ---- the world --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Chaos:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        from services.brokers import kafka_topics
        from services.brokers.devbroker import DevBroker
        from services.fleet.assembly import topic_names
        from services.fleet.server import Server
        from services.settings import load

        self.began_s = time.monotonic()
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamrnn-chaos-")))
        self.model = self.make_model(work / "model", self.random.randrange(1 << 30))
        if self.broker is None:
            self.broker = DevBroker(work / "broker", owned=True)
            self.broker.start()
            stack.callback(self.broker.stop)
        config = work / "streamrnn.yaml"
        config.write_text(
            f"pipeline: {self.pipeline}\nmodel: {self.model}\ndelivery: {self.delivery}\ndevice: cpu\n"
            f"kafka: {{bootstrap_servers: '{self.broker.bootstrap}'}}\n"
            f"topics: {{partitions: {self.partitions}, replication: 1}}\n"
            f"epoch: {{timeout_s: 8}}\nstate: {{slots: 512, flush_after_s: 86400}}\ntelemetry: {{port: 0}}\n"
            f"fleet: {{shards: {self.shards}, stall_timeout_s: {self.stall_timeout_s}}}\n"
        )
        self.settings = load(config, [])
        kafka_topics.create(self.settings.kafka, kafka_topics.spec(self.settings, topic_names(self.settings)))
        self.server = Server(self.settings, self._notify)
        stack.callback(self.server.close)
        self.server.start()
        self._run_thread = threading.Thread(target=self._guard(self.server.run), name="server", daemon=True)
        self._run_thread.start()
        stack.callback(self._run_thread.join)
        stack.callback(self.server.stop)
        self._load_thread = threading.Thread(target=self._guard(self._produce), name="load", daemon=True)
        self._load_thread.start()
        stack.callback(self._load_thread.join)
        stack.callback(self._quiet.set)
        self.until(lambda: len(self.ready()) == self.shards, "all shards ready")

    def make_model(self, folder: Path, seed: int) -> Path:
        """What is served."""
        return random_model(folder, seed)

    def make_reading(self, rng: np.random.Generator, stream: int) -> dict[str, Any]:
        """A reading without its time."""
        level = self._level.setdefault(stream, np.zeros(len(FEATURES)))
        level *= 0.9
        level += rng.normal(size=len(FEATURES))
        x: list[float | None] = [round(float(v), 4) for v in level]
        if rng.random() < 0.05:
            x[int(rng.integers(len(x)))] = None
        return {"x": x}

    def _notify(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})
        if event not in ("shard_started", "ready"):
            print(f"  {time.monotonic() - self.began_s:7.1f} s {event} {fields}"[:1500], flush=True)

    def _guard(self, run: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                run()
            except Exception as error:  # raised again by `until` in the main thread
                self._errors.append(error)

        return guarded

    def _produce(self) -> None:
        from services.brokers.kafka_client import ColumnProducer

        rng = np.random.default_rng(self.random.randrange(1 << 30))
        producer = ColumnProducer(self.settings.kafka)
        at_ms = 1_700_000_000_000
        began_s, sent = time.monotonic(), 0
        while not self._quiet.wait(self.tick_s):
            due = int((time.monotonic() - began_s) * self.rate)
            by_partition: dict[int, tuple[list[bytes], list[bytes]]] = {}
            for _ in range(min(due - sent, 2000)):
                stream = int(rng.integers(self.streams))
                at_ms += int(rng.integers(1, 50))
                value = json.dumps({"at": at_ms, **self.make_reading(rng, stream)}).encode()
                if rng.random() < 0.01:
                    value = BAD[int(rng.integers(len(BAD)))]
                keys, values = by_partition.setdefault(stream % self.partitions, ([], []))
                keys.append(b"sensor-%d" % stream)
                values.append(value)
            sent = due
            for partition, (keys, values) in by_partition.items():
                producer.append(self.settings.topics.readings, partition, keys, values, time.time_ns() // 1_000_000)
            producer.flush()
        producer.close()

    # ---- looking ----------------------------------------------------------------------------------------------------

    def ready(self) -> dict[int, Any]:
        """Shard -> status of the incarnations that are ready."""
        supervisor = self.server.supervisor
        statuses = supervisor.statuses() if supervisor is not None else []
        return {status.shard: status for status in statuses if status.stats.ready}

    def until(self, done: Callable[[], Any], what: str, progress: Callable[[], object] | None = None) -> Any:
        """Waits until `done()` is true, for as long as events come or `progress()` moves, and returns its value."""

        def look() -> Any:
            if self._errors:
                raise self._errors[0]
            return done()

        def moved() -> object:
            return len(self.events), progress() if progress is not None else None

        return wait_for(look, what, progress=moved, said=lambda: f"last events {self.events[-5:]}")

    def _far(self, shard: int) -> tuple[int, int] | None:
        """How far a shard is: its incarnation, and the epochs that one has kept."""
        status = self.ready().get(shard)
        return None if status is None else (status.incarnation, status.stats.epochs["kept"])

    def moving(self, shard: int, epochs: int = 1) -> Any:
        """Waits until the shard's present incarnation has kept `epochs` epochs; returns its status."""

        def look() -> Any:
            status = self.ready().get(shard)
            return status if status is not None and status.stats.epochs["kept"] >= epochs else None

        return self.until(look, f"shard {shard} keeps {epochs} epochs", lambda: self._far(shard))

    # ---- the blows --------------------------------------------------------------------------------------------------

    def kill_actor(self, shard: int) -> None:
        """SIGKILL at a random point of the shard's work, soon after it moves."""
        status = self.moving(shard, self.random.randint(1, 8))
        self._quiet.wait(self.random.random() * 0.1)
        os.kill(status.pid, signal.SIGKILL)
        self.report.kills += 1
        self.until(lambda: (s := self.ready().get(shard)) is None or s.incarnation > status.incarnation, "death seen")

    def kill_broker(self) -> None:
        """SIGKILL of the broker at a random point, then its restart on the same data."""
        self.moving(self.random.randrange(self.shards))
        self._quiet.wait(self.random.random() * 0.2)
        self.broker.kill()
        self.report.broker_kills += 1
        self.broker.restart()
        for shard in range(self.shards):
            self.progress(shard)

    def progress(self, shard: int) -> None:
        """Waits until the shard commits something it had not committed at the time of the call."""
        before = self.ready().get(shard)
        start = (before.incarnation, before.stats.epochs["kept"]) if before is not None else (-1, 0)

        def look() -> bool:
            status = self.ready().get(shard)
            if status is None or not status.stats.epochs["kept"]:
                return False
            return (status.incarnation, status.stats.epochs["kept"]) > start

        self.until(look, f"shard {shard} commits again")

    def zombie(self, shard: int) -> None:
        """SIGSTOP until a replacement has taken over, then SIGCONT: the old one must find itself fenced."""
        status = self.moving(shard, 2)
        os.kill(status.pid, signal.SIGSTOP)
        self.report.zombies += 1
        self.until(
            lambda: (s := self.ready().get(shard)) is not None and s.incarnation > status.incarnation, "takeover"
        )
        with suppress(ProcessLookupError):  # on a slow machine it may have been killed before it could wake up
            os.kill(status.pid, signal.SIGCONT)
        left = self.until(
            lambda: [e for e in self.events if e["event"] == "replaced_actor_left"
                     and (e["shard"], e["incarnation"]) == (shard, status.incarnation)],
            "the zombie leaves",
        )  # fmt: skip
        self.report.zombies_fenced += int(left[0]["end"] == "fenced")

    def suffer(self, kills: int, broker_kills: int, zombies: int) -> None:
        """So many blows of each kind, in random order."""
        blows = ["actor"] * kills + ["broker"] * broker_kills + ["zombie"] * zombies
        self.random.shuffle(blows)
        for done, blow in enumerate(blows, 1):
            shard = self.random.randrange(self.shards)
            if blow == "actor":
                self.kill_actor(shard)
            elif blow == "broker":
                self.kill_broker()
            else:
                self.zombie(shard)
            print(f"{time.monotonic() - self.began_s:8.1f} s  blow {done} of {len(blows)}: {blow}", flush=True)

    # ---- the verdict ------------------------------------------------------------------------------------------------

    def finish(self) -> Report:
        """Ends the load, waits until all of it is answered, stops the server and checks everything."""
        from services.brokers.kafka_client import read_topic

        self._quiet.set()
        self._load_thread.join()
        self._quiet.clear()
        readings = read_topic(self.settings.kafka, self.settings.topics.readings)
        supervisor = self.server.supervisor
        assert supervisor is not None

        out: dict[int, int] = {}

        def drained() -> bool:
            out.update(read_offsets(self.settings))
            return all(out.get(p, 0) >= int(r.offsets[-1]) + 1 for p, r in readings.items() if len(r))

        self.until(drained, "all readings are committed", lambda: dict(out))
        self.server.stop()
        self._run_thread.join()
        supervisor.stop()
        self.check(readings)
        self.report.seconds = round(time.monotonic() - self.began_s, 1)
        return self.report

    def check(self, readings: dict[int, Any]) -> None:
        """Fills in the report."""
        total = sum(len(records) for records in readings.values())
        verify(self.settings, readings, self.report)
        assert self.report.predictions + self.report.rejected + self.report.lost - self.report.doubled == total


def random_model(folder: Path, seed: int) -> Path:
    """A small LSTM with random weights: what it predicts does not matter, every bit of it does."""
    import torch

    from rnn.config import ModelConfig
    from rnn.io import weights
    from rnn.nn.network import Network

    torch.manual_seed(seed)
    config = ModelConfig(features=FEATURES, targets=FEATURES, cell="lstm", hidden=24, layers=1, head="gaussian",
                         interval_s=1.0, scaler_memory=1000)  # fmt: skip
    weights.save(folder, Network(config), created_ms=0)
    return folder


def soak(kills: int, broker_kills: int, zombies: int, seed: int) -> Report:
    """The blows, then the verdict."""
    with Chaos(seed, stall_timeout_s=6.0 if zombies else 20.0) as chaos:
        chaos.suffer(kills, broker_kills, zombies)
        return chaos.finish()


def main() -> int:
    """Prints progress and, as the last line, the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs of actors (default 50)")
    parser.add_argument("--broker-kills", type=int, default=None, help="SIGKILLs of the broker (default kills / 5)")
    parser.add_argument(
        "--zombies", type=int, default=None, help="actors stopped past their takeover (default kills / 10)"
    )
    parser.add_argument("--seed", type=int, default=20_261_123)
    args = parser.parse_args()
    broker_kills = args.kills // 5 if args.broker_kills is None else args.broker_kills
    zombies = args.kills // 10 if args.zombies is None else args.zombies
    report = soak(args.kills, broker_kills, zombies, args.seed)
    print(json.dumps(asdict(report)), flush=True)
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
