"""Looks at the topics while the fleet serves them: operators delete topics, and make them anew under the same names.

A thread of the server's process, off the loop. May import brokers when it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from services.predictor import topic_ids
from services.predictor.ports import Refused, Unsettled
from services.records import Role, TopicIds
from services.settings import Settings

LOOK_S = 30.0
"""The longest time between two looks; `kafka.metadata_max_age_ms` makes it shorter, as in any Kafka client."""

Notify = Callable[..., None]


class SameTopics:
    """`start` once the topics are there; `check` at every tick; `stop`."""

    def __init__(self, settings: Settings, names: Mapping[Role, str], notify: Notify) -> None:
        self._kafka, self._names, self._notify = settings.kafka, dict(names), notify
        self._every_s = min(LOOK_S, float(settings.kafka.get("metadata_max_age_ms") or LOOK_S * 1000) / 1000)
        self._before: TopicIds = {}
        self._missing: list[str] = []
        self._refused: Refused | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamrnn-same-topics", daemon=True)

    def start(self) -> None:
        """Takes the topics for those that are there at its first look, which is now, or when the broker answers."""
        with suppress(Unsettled):
            self._before = self._ids()
        self._thread.start()

    def check(self) -> None:
        """Raises Refused once a topic was made anew: what is read and written now is of another one."""
        if self._refused is not None:
            raise self._refused

    def look(self) -> None:
        """One look. A broker that is away, or lets nobody in, is the shards' to say."""
        with suppress(Unsettled, Refused):
            self._compare(self._ids())

    def unready(self) -> list[str]:
        """What is wrong, a sentence each."""
        if self._refused is not None:
            return [str(self._refused)]
        return [f"topic {name} is gone" for name in self._missing]

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s) and self._refused is None:
            self.look()

    def _ids(self) -> TopicIds:
        from services.brokers import kafka_topics

        return kafka_topics.ids(self._kafka, self._names)

    def _compare(self, now: TopicIds) -> None:
        self._before = self._before or now
        missing = [self._names[role] for role in self._before if role not in now]
        if missing and missing != self._missing:
            self._notify("topic_gone", topics=missing)
        self._missing = missing
        if anew := topic_ids.made_anew(self._before, now):
            self._refused = Refused(topic_ids.sentence(anew, self._names))
