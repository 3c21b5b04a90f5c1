"""Looks at the pipeline's topics while the fleet serves them, in a thread of the server's process: operators delete
topics, make them anew under the same names, and add partitions, which nobody reads until the fleet starts anew; and
others leave transactions open (`held`).

May import brokers when it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass

from services.fleet.assembly import topic_names
from services.fleet.held_readings import HeldReadings
from services.predictor import topic_ids
from services.predictor.ports import Refused, Retriable
from services.records import Role, TopicIds
from services.settings import Settings

LOOK_S = 30.0
"""The longest time between two looks; `kafka.metadata_max_age_ms` makes it shorter, as in any Kafka client."""


@dataclass(frozen=True, slots=True)
class Grown:
    """The readings have more partitions than are served."""

    served: int
    partitions: int
    lacking: tuple[str, ...] = ()  # output topics that have fewer


class TopicWatch:
    """`start` once the topics are there, `serve` with each fleet; `check` and `grown` say what to do; `stop`. Says each
    thing once. A broker that is away, or lets nobody in, is the shards' to say.
    """

    def __init__(self, settings: Settings, notify: Callable[..., None]) -> None:
        self._kafka, self._names, self._notify = settings.kafka, topic_names(settings), notify
        self._held = HeldReadings(settings.kafka, self._names[Role.READINGS], notify)
        self.behind: Set[int] = frozenset()
        """Partitions of which something is not read, as the shards say."""
        self._every_s = min(LOOK_S, float(settings.kafka.get("metadata_max_age_ms") or LOOK_S * 1000) / 1000)
        self._before: TopicIds = {}
        self._served = 0  # partitions of the readings; 0: no fleet has begun
        self._missing: list[str] = []
        self._refused: Refused | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamrnn-topics", daemon=True)
        self.grown: Grown | None = None
        """What was found at the last look; None: nothing was added."""

    def start(self) -> None:
        """Takes the topics for those that are there at its first look, which is now, or when the broker answers."""
        self.look()
        self._thread.start()

    def serve(self, partitions: int) -> None:
        """A fleet begins that reads so many partitions."""
        self._served, self.grown = partitions, None

    def check(self) -> None:
        """Raises Refused once a topic was made anew: what is read and written now is of another one."""
        if self._refused is not None:
            raise self._refused

    def stop(self) -> None:
        """Ends the thread; waits for a look under way for a moment only."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    @property
    def unread(self) -> int:
        """Partitions of the readings that nobody reads."""
        return 0 if self.grown is None else self.grown.partitions - self.grown.served

    def unready(self) -> list[str]:
        """What is wrong, a sentence each."""
        if self._refused is not None:
            return [str(self._refused)]
        why = [f"topic {name} is gone" for name in self._missing]
        if (grown := self.grown) is not None:
            said = f"{self._names[Role.READINGS]} has {grown.partitions} partitions, of which {grown.served} are read"
            if grown.lacking:
                why.append(f"{said}: {', '.join(grown.lacking)} must have as many; run `streamrnn topics create`")
            else:
                why.append(f"{said}: the fleet starts anew to read all of them")
        return why

    def _run(self) -> None:
        while not self._stop.wait(self._every_s) and self._refused is None:
            self.look()
            self._held.look(self.behind)

    def look(self) -> None:
        """One look; any thread may call it."""
        from services.brokers import kafka_topics

        with suppress(Retriable, Refused):
            there = kafka_topics.there(self._kafka, self._names)
            self._compare({role: topic.id for role, topic in there.items() if topic.id})
            self._count({role: topic.partitions for role, topic in there.items()})

    def _compare(self, now: TopicIds) -> None:
        self._before = self._before or now
        missing = [self._names[role] for role in self._before if role not in now]
        if missing and missing != self._missing:
            self._notify("topic_gone", topics=missing)
        self._missing = missing
        if anew := topic_ids.made_anew(self._before, now):
            self._refused = Refused(topic_ids.sentence(anew, self._names))

    def _count(self, counts: Mapping[Role, int]) -> None:
        partitions = counts.get(Role.READINGS, 0)
        if self._refused is not None or not 0 < self._served < partitions:
            return
        lacking = tuple(self._names[role] for role in Role if counts.get(role, 0) < partitions)
        found = Grown(self._served, partitions, lacking)
        if found != self.grown:
            self.grown = found
            self._notify("partitions_added", topic=self._names[Role.READINGS], served=self._served,
                         partitions=partitions, lacking=list(lacking))  # fmt: skip
