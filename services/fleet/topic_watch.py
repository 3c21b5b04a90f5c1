"""Looks at the pipeline's topics while it serves, in a thread of its own: partitions that were added are read by nobody
until the fleet starts anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from services.fleet.assembly import topic_names
from services.predictor.ports import Refused, Unsettled
from services.records import Role
from services.settings import Settings

LOOK_S = 60.0
"""The longest time between two looks; `kafka.metadata_max_age_ms` makes it shorter, as in any Kafka client."""


@dataclass(frozen=True, slots=True)
class Grown:
    """The readings have more partitions than are served."""

    served: int
    partitions: int
    lacking: tuple[str, ...] = ()  # output topics that have fewer


class TopicWatch:
    """Counts partitions from `start` to `stop`. Says each thing once; a Kafka that is away is others' business."""

    def __init__(self, settings: Settings, served: int, notify: Callable[..., None]) -> None:
        self._settings, self._served, self._notify = settings, served, notify
        self._names = topic_names(settings)
        self._every_s = min(LOOK_S, float(settings.kafka.get("metadata_max_age_ms") or LOOK_S * 1000) / 1000)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamrnn-topics", daemon=True)
        self.grown: Grown | None = None
        """What was found at the last look; None: nothing was added."""

    def start(self) -> None:
        """Begins to look; the first look comes after one interval."""
        self._thread.start()

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
        """Why the pipeline is not ready, a sentence each."""
        if (grown := self.grown) is None:
            return []
        readings = self._names[Role.READINGS]
        said = f"{readings} has {grown.partitions} partitions, of which {grown.served} are read"
        if grown.lacking:
            return [f"{said}: {', '.join(grown.lacking)} must have as many; run `streamrnn topics create`"]
        return [f"{said}: the fleet starts anew to read all of them"]

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.look()
            except Unsettled:
                continue  # the shards say so
            except Refused as error:
                self._notify("topics_not_seen", error=str(error))

    def look(self) -> None:
        """One look. Raises Unsettled when the broker does not answer, Refused when topics are missing."""
        from services.brokers.kafka_topics import partition_counts

        counts = partition_counts(self._settings.kafka, self._names)
        partitions = counts[Role.READINGS]
        if partitions <= self._served:
            return
        lacking = tuple(self._names[role] for role, count in counts.items() if count < partitions)
        found = Grown(self._served, partitions, lacking)
        if found != self.grown:
            self.grown = found
            self._notify("partitions_added", topic=self._names[Role.READINGS], served=self._served,
                         partitions=partitions, lacking=list(lacking))  # fmt: skip
