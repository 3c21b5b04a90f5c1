"""A pipeline whose two partitions get the same readings: what is answered in one must be what is answered in the other,
bit for bit, so a state that is lost in one of them shows.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import write_config
from waiting import wait_for

from services.brokers.kafka_client import ColumnProducer, group_offsets, read_topic
from services.brokers.kafka_connect import open_admin
from services.brokers.kafka_topics import create, spec
from services.codecs import predictions
from services.fleet.assembly import build_shard, topic_names
from services.fleet.model_loader import ModelLoader
from services.fleet.status import ModelAssignment
from services.settings import load

BOTH = (0, 1)


class Twins:
    """Writes to both partitions of a pipeline, and reads what came of it."""

    def __init__(self, folder: Path, bootstrap: str, model: Path, pipeline: str, **more: Any) -> None:
        self.pipeline = pipeline
        self.config = write_config(folder, bootstrap, model, pipeline, **more)
        self.settings = load(self.config, [])
        self.kafka, self.group = self.settings.kafka, self.settings.group
        self.sent = 0
        self.make_topics()

    def make_topics(self) -> None:
        create(self.kafka, spec(self.settings, topic_names(self.settings)))

    def make_anew(self, role: str) -> None:
        """Deletes a topic and makes it again."""
        with open_admin(self.kafka) as admin:
            admin.delete_topics([self.topic(role)])
            wait_for(lambda: admin.describe_topics([self.topic(role)])[0]["error_code"] == 3, f"no {role} any more")
        self.make_topics()

    def topic(self, role: str) -> str:
        return f"{self.pipeline}.{role}"

    def send(self, count: int) -> None:
        """So many more readings in each partition."""
        values: list[bytes | None] = [
            json.dumps({"at": 1_700_000_000_000 + 1000 * step, "x": [step * 0.1, (step * step) % 7, 1.0]}).encode()
            for step in range(self.sent, self.sent + count)
        ]
        keys: list[bytes | None] = [b"pump"] * count
        with ColumnProducer(self.kafka) as producer:
            for partition in BOTH:
                producer.append(self.topic("readings"), partition, keys, values, time.time_ns() // 1_000_000)
            producer.flush()
        self.sent += count

    def offsets(self) -> dict[int, int]:
        """The group's."""
        return group_offsets(self.kafka, self.group, self.topic("readings"))

    def signature(self) -> int:
        """Number of the owner's last commit; -1 where nobody has signed."""
        with open_admin(self.kafka) as admin:
            found = admin.list_group_offsets({self.group: None})[self.group]
        return max((int(str(one.metadata).split("/")[2]) for one in found.values() if one.metadata), default=-1)

    def answered(self) -> dict[int, list[tuple[int, bytes]]]:
        """Partition -> (offset of the reading, bits of its prediction), in order."""
        found = {}
        for partition, records in read_topic(self.kafka, self.topic("predictions")).items():
            made = predictions.decode(records) if len(records) else None
            rows = 0 if made is None else len(made.offsets)
            found[partition] = [(int(made.offsets[i]), made.y[i].tobytes()) for i in range(rows)] if made else []
        return found

    def check(self) -> None:
        """Each reading has one prediction, and both partitions have the same ones."""
        found = self.answered()
        assert [offset for offset, _ in found[0]] == list(range(self.sent)), "each reading once"
        assert found[0] == found[1], "the twin in the other partition has had the same readings"


class Owner:
    """The shard of a server with one, in this process and without Ray: what its actor runs."""

    def __init__(self, twins: Twins, pause: Callable[[float], object] = lambda seconds: time.sleep(0.01)) -> None:
        self.twins = twins
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.shard = build_shard(
            twins.settings, 0, len(BOTH), ModelAssignment(), ModelLoader(twins.settings, "cpu"),
            server=secrets.token_hex(6), pause=pause, notify=lambda event, **told: self.events.append((event, told)),
        )  # fmt: skip

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.shard.close()

    def said(self, event: str) -> list[dict[str, Any]]:
        """What was told of it, each time."""
        return [told for name, told in self.events if name == event]

    def answers(self, count: int) -> None:
        """Sends so many readings, and turns until they are answered."""
        self.twins.send(count)
        self.turns(lambda: set(self.twins.offsets().values()) == {self.twins.sent}, f"{self.twins.sent} are read")
        self.twins.check()

    def turns(self, done: Callable[[], object], what: str) -> None:
        """Turns until it is done."""
        turned = 0

        def look() -> object:
            nonlocal turned
            self.shard.turn()
            turned += 1
            return turned > 1 and done()

        wait_for(look, what, progress=lambda: sum(self.shard.stats.epochs.values()))
