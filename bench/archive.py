"""Records a second into the archive and back out of it: `python -m bench.archive [records]`.

Starts a broker of its own. Small JSON readings of 7 features, 4 partitions; the wall clock of one round, without the
start of a process. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from services.archive import places, reading
from services.archive.archiver import Archiver
from services.archive.verify import verify
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import open_producer
from services.brokers.kafka_connect import open_admin
from services.brokers.kafka_history import KafkaHistory

TOPIC, PARTITIONS, BATCH = "bench", 4, 5_000


def reading_of(row: int) -> bytes:
    """A JSON reading, about 120 bytes."""
    x = [round((row * 7919 + feature * 104_729) % 100_003 / 1e3, 3) for feature in range(7)]
    return json.dumps({"at": 1_794_744_000_000 + row, "x": x}).encode()


def fill(options: dict[str, Any], n: int) -> int:
    """Writes `n` readings of 100 streams; gives their bytes."""
    with open_admin(options) as admin:
        admin.create_topics({TOPIC: {"num_partitions": PARTITIONS, "replication_factor": 1}})
        admin.wait_for_topics([TOPIC])
    size = 0
    with open_producer(options) as producer:
        for start in range(0, n, BATCH):
            values = [reading_of(row) for row in range(start, min(n, start + BATCH))]
            keys = [b"sensor-%d" % (row % 100) for row in range(start, start + len(values))]
            producer.append(TOPIC, start // BATCH % PARTITIONS, keys, values, time.time_ns() // 1_000_000)
            size += sum(map(len, values)) + sum(map(len, keys))
            producer.flush()
    return size


def main(n: int) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory(prefix="streamrnn-bench-") as work:
        broker = DevBroker(Path(work) / "broker", owned=True)
        broker.start()
        try:
            options = {"bootstrap_servers": broker.bootstrap}
            size = fill(options, n)
            place = places.place(Path(work) / "archive", TOPIC)
            place.claim()
            archiver = Archiver(KafkaHistory(options, TOPIC), place, lambda event, **fields: None)
            began_s = time.perf_counter()
            archiver.round()
            into_s = time.perf_counter() - began_s
            place.close()
        finally:
            broker.stop()
        began_s = time.perf_counter()
        back = 0
        for partition, (first, end) in reading.spans(Path(work) / "archive", TOPIC).items():
            back += sum(map(len, reading.records(Path(work) / "archive", TOPIC, partition, first, end)))
        back_s = time.perf_counter() - began_s
        sound = not verify(Path(work) / "archive", TOPIC).wrong
    found = {
        "records": archiver.told.records,
        "bytes": size,
        "archived_bytes": archiver.told.bytes,
        "files": archiver.told.pieces,
        "archived_per_s": round(archiver.told.records / into_s),
        "read_back": back,
        "read_back_per_s": round(back / back_s),
        "sound": sound,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
