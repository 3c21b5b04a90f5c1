"""What the archive's tests share: topics to archive, the command as a process, and how to look at what it left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.archive import reading
from services.brokers.kafka_client import ColumnProducer
from services.brokers.kafka_connect import open_admin
from services.records import Records

NOON_MS = 1_794_744_000_000
"""2026-11-15 at noon, UTC."""


def joined(
    parts: Sequence[Records],
) -> tuple[list[int], list[int], list[bytes | None], list[bytes | None], dict[int, Any]]:
    """Offsets, timestamps, keys, values, and headers by offset."""
    headers = {
        int(part.offsets[row]): [tuple(one) for one in found] for part in parts for row, found in part.headers.items()
    }
    return (
        [offset for part in parts for offset in part.offsets.tolist()],
        [at for part in parts for at in part.timestamps_ms.tolist()],
        [key for part in parts for key in part.keys],
        [value for part in parts for value in part.values],
        headers,
    )


def archived(where: str | Path, topic: str, partition: int) -> Any:
    """All that the archive gives of a partition."""
    first, end = reading.spans(where, topic)[partition]
    return joined(list(reading.records(where, topic, partition, first, end, over_holes=True)))


class Archive:
    """`streamrnn archive` for one broker and topic, writing below `to`."""

    def __init__(self, folder: Path, bootstrap: str, topic: str, fetch_bytes: int = 20_000) -> None:
        self.topic, self.to = topic, folder / "archive"
        self._config = folder / "archive.yaml"
        kafka = {"bootstrap_servers": bootstrap, "max_partition_fetch_bytes": fetch_bytes}
        self._config.write_text(json.dumps({"kafka": kafka}))  # JSON is YAML
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *more: str) -> subprocess.Popen[str]:
        """The command as a process whose log lines are its stderr."""
        command = [sys.executable, "-m", "services.cli.main", "archive", "-c", str(self._config)]
        command += ["--to", str(self.to), "--topic", self.topic, *more]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._running.append(process)
        return process

    def once(self, *more: str) -> tuple[int, str, list[dict[str, Any]]]:
        """Exit code, what it printed, and its events, of `--once`."""
        process = self.start("--once", *more)
        out, err = process.communicate()
        return process.returncode, out, [json.loads(line) for line in err.splitlines() if line.startswith("{")]

    def files(self) -> list[str]:
        """Names in the topic's folder."""
        root = self.to / f"topic={self.topic}"
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    def stop(self) -> None:
        """Ends what still runs."""
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


def verified(to: Path) -> tuple[int, list[str], list[str]]:
    """Exit code of `streamrnn archive verify`, its lines about partitions, and what it calls wrong."""
    command = [sys.executable, "-m", "services.cli.main", "archive", "verify", "--to", str(to)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert not done.stderr, done.stderr
    return (
        done.returncode,
        [line for line in lines if line.startswith(("partition", "hole"))],
        [line for line in lines if line.startswith("WRONG")],
    )


def heard(process: subprocess.Popen[str], event: str, times: int = 1) -> dict[str, Any]:
    """Reads the log until `event` came so many times."""
    lines = []
    for line in process.stderr or ():
        lines.append(line)
        if line.startswith("{") and (told := json.loads(line))["event"] == event:
            times -= 1
            if times == 0:
                return told
    raise AssertionError(f"ended without {event!r}: {''.join(lines)}")


def make_topic(options: dict[str, Any], name: str, partitions: int = 2) -> str:
    with open_admin(options) as admin:
        configs = {"message.timestamp.after.max.ms": str(1 << 60), "retention.ms": "-1"}
        admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}})
        admin.wait_for_topics([name])
    return name


def send(options: dict[str, Any], topic: str, values: Sequence[bytes | None], partition: int = 0,
         at_ms: int = NOON_MS) -> None:  # fmt: skip
    """Appends records, a hundred to a batch."""
    with ColumnProducer(options) as producer:
        for start in range(0, len(values), 100):
            part = list(values[start : start + 100])
            producer.append(topic, partition, [b"pump"] * len(part), part, at_ms)
        producer.flush()


class Shelf:
    """A topic in memory, with gaps between its offsets."""

    def __init__(self, name: str, parts: dict[int, Records], chunk: int = 7) -> None:
        self.name, self.parts, self.chunk = name, parts, chunk
        self.begins = dict.fromkeys(parts, 0)
        self.ends = {partition: int(part.offsets[-1]) + 1 if len(part) else 0 for partition, part in parts.items()}

    def spans(self) -> dict[int, tuple[int, int]]:
        return {partition: (self.begins[partition], self.ends[partition]) for partition in self.parts}

    def read(self, partition: int, first: int, end: int) -> Iterator[Records]:
        assert self.begins[partition] <= first
        part = self.parts[partition]
        start, stop = np.searchsorted(part.offsets, [first, end]).tolist()
        for a in range(start, stop, self.chunk):
            yield cut(part, a, min(stop, a + self.chunk))


def cut(part: Records, a: int, b: int) -> Records:
    headers = {row - a: found for row, found in part.headers.items() if a <= row < b}
    return Records(
        part.partition, part.offsets[a:b], part.timestamps_ms[a:b], part.keys[a:b], part.values[a:b], headers
    )
