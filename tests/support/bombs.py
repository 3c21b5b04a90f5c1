"""Record batches of zeros, which unpack to a thousand times what they are, and what a process takes to read them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")

BOMB_MIB = {"gzip": 400, "lz4": 200, "zstd": 400, "snappy": 15}
"""Below max.message.bytes when compressed."""

SEND = """
import sys
from services.brokers.kafka_connect import open_producer
bootstrap, topic, kind, mib, records, times = sys.argv[1:]
size = int(mib) << 20
producer = open_producer({"bootstrap_servers": bootstrap}, compression_type=kind, max_request_size=2 * size,
                         batch_size=2 * size, linger_ms=60_000)
for _ in range(int(times)):
    for _ in range(int(records)):
        sent = producer.send(topic, key=b"pump-1", value=bytes(size // int(records)), partition=0)
    producer.flush(150)
    sent.get(150)
producer.close()
"""


def send_bombs(
    bootstrap: str, topic: str, kind: str = "gzip", *, mib: int | None = None, records: int = 1, times: int = 1
) -> None:
    """Writes batches of so many records to partition 0, from a process of its own, for it takes the memory."""
    numbers = map(str, (mib or BOMB_MIB[kind], records, times))
    subprocess.run([sys.executable, "-c", SEND, bootstrap, topic, kind, *numbers], check=True)


ODD = """
import sys
from services.brokers.kafka_connect import open_producer
bootstrap, topic, headers, lists = sys.argv[1:]
producer = open_producer({"bootstrap_servers": bootstrap}, compression_type="gzip", max_request_size=1 << 30)
good = b'{"at":1,"x":[1.0]}'
producer.send(topic, key=b"pump-1", value=good, headers=[("ab", b"")] * int(headers), partition=0)
producer.flush(150)
sent = producer.send(topic, key=b"pump-1", value=b'{"at":1,"x":[' + b"[]," * int(lists) + b"1]}", partition=0)
producer.flush(150)
sent.get(150)
producer.close()
"""


def send_odd(bootstrap: str, topic: str, *, headers: int, lists: int) -> None:
    """Writes a good reading with so many headers, and then JSON of so many empty lists, each a batch of its own."""
    subprocess.run([sys.executable, "-c", ODD, bootstrap, topic, str(headers), str(lists)], check=True)


def highest_mib(process: int) -> int:
    """The most memory that a process has ever held, or since `taking` began."""
    (found,) = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found) >> 10


def taking(call: Callable[[], Value]) -> tuple[Value, int]:
    """What `call` returns, and how many MiB more this process held meanwhile than before."""
    own = os.getpid()
    Path(f"/proc/{own}/clear_refs").write_text("5")  # the highest is the present one again
    before_mib = highest_mib(own)
    return call(), highest_mib(own) - before_mib
