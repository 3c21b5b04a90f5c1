"""What the predictor's loop needs of the world. One adapter a file in `services.brokers`.

Errors are named by their remedy: `Retriable` -> call `settle`; `Fenced` -> leave; `Refused` -> a person must act.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from services.records import Commit, Records, TopicIds


class Retriable(Exception):
    """The commit failed or its outcome is not known. Remedy: `Sink.settle`, which finds out what is true."""


class Fenced(Exception):
    """Another owner has taken this shard over. Remedy: leave at once; nothing of this owner can be committed."""


class Refused(Exception):
    """Going on would break a promise (topics, offsets and state disagree). Remedy: the message names it."""


class Forgotten(Exception):
    """Kafka has forgotten where the group stands. Remedy: a new incarnation, which asks the changelog."""


class Source(Protocol):
    """Committed readings of the shard's partitions."""

    def beginning(self) -> Mapping[int, int]:
        """First offset that can still be read of each of the shard's partitions (retention moves it forward)."""

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Makes `offsets[partition]` the next record of each named partition; what was fetched before is forgotten."""

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        """Waits up to `timeout_s` for the first record, then returns what is there: at most one `Records` a partition
        and about `max_records` in all (a fetched batch is never split by more than it must). Empty: nothing came.
        """

    def lag(self) -> Mapping[int, int]:
        """Records between the position and the last known end, by partition. No I/O."""

    def close(self) -> None: ...


class Changelog(Protocol):
    """State rows as they were committed."""

    def span(self, partition: int) -> tuple[int, int]:
        """First offset and stable end of a partition, for progress: `read` goes from the one to the other."""

    def held_open(self, partition: int) -> str:
        """Who keeps the stable end before the end: a transaction that has not ended, which may hide committed rows
        behind it. A sentence; empty: nobody.
        """

    def read(self, partition: int) -> Iterator[Records]:
        """All committed records from the beginning to the stable end at the time of the call, oldest first.
        The value None is a tombstone. Aborted records never appear.
        """

    def close(self) -> None: ...


class Sink(Protocol):
    """The one place that writes. Exactly-once: an epoch is one transaction."""

    @property
    def topic_ids(self) -> TopicIds:
        """Ids of the four topics when `fence` looked; every commit writes them beside the offsets."""

    @property
    def signed(self) -> bool:
        """Whether the group's offsets were an owner's of this pipeline when `fence` looked: beside each of them there
        is a sentinel then.
        """

    def check_topics(self, before: TopicIds) -> None:
        """Raises Refused, with the names, when `before` are not the ids of these topics."""

    def fence(self) -> None:
        """Shuts out every earlier owner of this shard and settles what they left open. Must be called first. Raises
        Refused when the group's offsets are of a topic that has been made anew since.
        """

    def committed(self) -> Mapping[int, int]:
        """Next offset of each of the shard's partitions that has one, transactions in flight waited for."""

    def ends(self) -> Mapping[int, int]:
        """Stable end of the readings of each of the shard's partitions: nothing behind it can have been committed."""

    def commit(self, commit: Commit) -> None:
        """Returns when all of `commit` is visible to read-committed consumers and read back. Raises Retriable, Fenced.
        Offsets may stay where they are, but not where there is nothing to write either.
        """

    def settle(self, commit: Commit) -> bool:
        """After Retriable: drops the connection, fences anew and reads what is true. True: the commit was kept;
        False: nothing of it is visible. Also of a commit whose offsets stayed where they were. Raises Fenced when
        neither is the case (another owner has committed), Forgotten when the group's offsets are gone.
        """

    def close(self) -> None: ...
