"""Sensors that send without a pause, as real ones do."""

from __future__ import annotations

import json
import math
import threading
import time

from services.brokers.kafka_client import ColumnProducer

STREAMS = [f"pump-{number}" for number in range(6)]
WATCHED = ["pump-1", "pump-4", "not here yet"]
"""In the spotlight; the last one never sends."""


class Sensors:
    """Sends a reading of every stream a few times a second, until told to stop."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bootstrap, topic), daemon=True)

    def __enter__(self) -> Sensors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)

    def _run(self, bootstrap: str, topic: str) -> None:
        producer = ColumnProducer({"bootstrap_servers": bootstrap})
        while not self._stop.wait(0.1):
            now_ms = time.time_ns() // 1_000_000
            for partition in range(2):
                keys = [stream.encode() for stream in STREAMS[partition::2]]
                values = [json.dumps({"at": now_ms, "x": self._x(number)}).encode() for number in range(len(keys))]
                producer.append(topic, partition, keys, values, now_ms)
                self.sent += len(keys)
            producer.flush()
        producer.close()

    def _x(self, number: int) -> list[float]:
        turn = self.sent / 60 + number
        return [math.sin(turn), 20 + 5 * math.cos(turn / 3), 0.1 * number]
