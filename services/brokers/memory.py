"""The in-memory broker behind `services.predictor.ports`: what a shard gets instead of Kafka in a test.

`memory_broker` is the broker, `memory_log` one partition of it, `memory_faults` where it can be made to fail. May
import numpy, the standard library, records and ports only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from services.brokers.memory_broker import Committed, MemoryBroker
from services.brokers.memory_faults import COMMIT_STEPS, Crash, FaultPoint, Faults, InjectedFault
from services.brokers.memory_log import Isolation, LogEntry, Marker, ProducerIdAndEpoch, to_records
from services.predictor import topic_ids
from services.predictor.ports import Fenced, Forgotten, Refused, Retriable
from services.records import Commit, Records, Role, TopicIds

__all__ = [
    "COMMIT_STEPS",
    "Crash",
    "FaultPoint",
    "Faults",
    "InjectedFault",
    "Isolation",
    "LogEntry",
    "Marker",
    "MemoryBroker",
    "MemoryChangelog",
    "MemorySink",
    "MemorySource",
]


class MemorySource:
    """`ports.Source` over the broker's readings.

    `poll_size(room)` says how many records the next partition gives when `room` more are wanted (None: all of them), so
    that a test can make polls of any shape. Partitions take turns to be first.
    """

    def __init__(
        self, broker: MemoryBroker, partitions: Sequence[int], poll_size: Callable[[int], int] | None = None
    ) -> None:
        self._broker = broker
        self._partitions = list(partitions)
        self._poll_size = poll_size or (lambda room: room)
        self._position = {partition: broker.log(Role.READINGS, partition).start for partition in partitions}
        self.overtaken: dict[int, int] = {}
        """Partition whose next readings retention has deleted -> where reading went on; who takes it in clears it."""

    def beginning(self) -> Mapping[int, int]:
        """See ports.Source."""
        return {partition: self._broker.log(Role.READINGS, partition).start for partition in self._partitions}

    def seek(self, offsets: Mapping[int, int]) -> None:
        """See ports.Source."""
        self._position.update(offsets)

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        """See ports.Source. Never waits. Where retention has overtaken the position it goes on from the beginning."""
        polled: list[Records] = []
        room = max_records
        for partition in self._partitions:
            log = self._broker.log(Role.READINGS, partition)
            position = self._position[partition]
            if position < log.start:
                position = self.overtaken[partition] = log.start
            if position > log.end:
                raise Refused(f"partition {partition} ends at {log.end}, before offset {position}: was it made anew?")
            wanted = min(room, self._poll_size(room))
            if wanted <= 0:
                continue
            entries, self._position[partition] = log.read(position, wanted, Isolation.READ_COMMITTED)
            if entries:
                polled.append(to_records(partition, entries))
                room -= len(entries)
        self._partitions.append(self._partitions.pop(0))
        return polled

    def lag(self) -> Mapping[int, int]:
        """See ports.Source."""
        logs = {partition: self._broker.log(Role.READINGS, partition) for partition in self._partitions}
        return {partition: max(0, log.stable - self._position[partition]) for partition, log in logs.items()}

    def close(self) -> None:
        """See ports.Source."""


class MemoryChangelog:
    """`ports.Changelog` over the broker's state rows; `chunk` records a value."""

    def __init__(self, broker: MemoryBroker, chunk: int = 1000) -> None:
        self._broker = broker
        self._chunk = chunk

    def span(self, partition: int) -> tuple[int, int]:
        """See ports.Changelog."""
        log = self._broker.log(Role.CHANGELOG, partition)
        return log.start, log.stable

    def held_open(self, partition: int) -> str:
        """See ports.Changelog."""
        log = self._broker.log(Role.CHANGELOG, partition)
        holder = min(log.open, key=log.open.__getitem__, default=-1)
        if holder < 0:
            return ""
        return f"partition {partition}: a transaction of producer id {holder} has been open since offset {log.stable}"

    def read(self, partition: int) -> Iterator[Records]:
        """See ports.Changelog."""
        # The entries are taken now: a generator would start only when it is first asked.
        log = self._broker.log(Role.CHANGELOG, partition)
        entries, _ = log.read(log.start, len(log.entries), Isolation.READ_COMMITTED)
        starts = range(0, len(entries), self._chunk)
        return iter([to_records(partition, entries[start : start + self._chunk]) for start in starts])

    def close(self) -> None:
        """See ports.Changelog."""


_commits = itertools.count()


class MemorySink:
    """`ports.Sink` over the broker.

    A zombie is simply an older sink that is used after another one with the same `transactional_id` has called
    `fence`. With `exactly_once=False` records are written as they come and nobody is fenced. A commit writes the
    offsets of all partitions and leaves a note beside them, by which `settle` tells it from another owner's.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        group: str,
        transactional_id: str,
        partitions: Sequence[int],
        exactly_once: bool = True,
        faults: Faults | None = None,
    ) -> None:
        self._broker = broker
        self._group = group
        self._transactional_id = transactional_id if exactly_once else None
        self._partitions = tuple(partitions)
        self._faults = faults or Faults()
        self._producer: ProducerIdAndEpoch | None = None
        self._connected = False  # `fence` was called, and no commit has failed since
        self._known: dict[int, Committed] = {}  # partition -> the group's entry when it was last read
        self._note = ""  # of the last commit that was tried
        self.topic_ids: TopicIds = {}
        self.signed = False

    def check_topics(self, before: TopicIds) -> None:
        """See ports.Sink."""
        topic_ids.check(before, self.topic_ids, {role: role.value for role in Role})

    def fence(self) -> None:
        """See ports.Sink. Raises Retriable when a fault says so, as the other calls."""
        self._take_over()
        self._known = self._read()
        self.signed = any(entry.note for entry in self._known.values())

    def committed(self) -> Mapping[int, int]:
        """See ports.Sink."""
        self._faults.at(FaultPoint.COMMITTED)
        self._known = self._read()
        return _offsets(self._known)

    def ends(self) -> Mapping[int, int]:
        """See ports.Sink."""
        return {partition: self._broker.log(Role.READINGS, partition).stable for partition in self._partitions}

    def commit(self, commit: Commit) -> None:
        """See ports.Sink."""
        if not self._connected:
            raise RuntimeError("call fence() before commit(), and settle() after Retriable")
        if not commit.writes and dict(commit.started) == dict(commit.offsets):
            raise ValueError("a commit without writes must move an offset")
        self._connected = False
        at, transaction = self._faults.at, (self._transactional_id, self._producer)
        at(FaultPoint.BEFORE_BEGIN)
        # Kafka's client begins without asking the broker; the first write opens the transaction.
        at(FaultPoint.AFTER_BEGIN)
        for encoded in commit.writes:
            self._broker.write(encoded, *transaction)
            at(FaultPoint.AFTER_APPEND)
        at(FaultPoint.BEFORE_OFFSETS)
        self._note = f"commit {next(_commits)}/{topic_ids.spelled(self.topic_ids)}"
        self._broker.write_offsets(self._group, {**_offsets(self._known), **commit.offsets}, *transaction, self._note)
        at(FaultPoint.BEFORE_END)
        if self._transactional_id is not None and self._producer is not None:
            self._broker.end(self._transactional_id, self._producer, commit=True)
        at(FaultPoint.AFTER_END)
        if self._transactional_id is not None:
            self._broker.complete(self._transactional_id)
        at(FaultPoint.READ_BACK)
        found = self._read()
        if not self._is_kept(found, commit):
            raise Retriable(f"the group's offsets are {_offsets(found)}, not {dict(commit.offsets)}")
        self._known, self._connected = found, True

    def settle(self, commit: Commit) -> bool:
        """See ports.Sink. Without transactions False means only that the offsets were not moved."""
        self._faults.at(FaultPoint.SETTLE)
        self._take_over()
        self._faults.at(FaultPoint.COMMITTED)
        found = self._read()
        kept = self._is_kept(found, commit)
        if not kept and self._known.keys() - found.keys():
            raise Forgotten(f"the offsets of group {self._group} are gone")
        if not kept and not self._is_dropped(found, commit):
            raise Fenced(f"another owner has committed: the offsets of group {self._group} are {_offsets(found)}, this "
                         f"epoch went from {dict(commit.started)} to {dict(commit.offsets)}")  # fmt: skip
        self._known = found
        return kept

    def _is_kept(self, found: Mapping[int, Committed], commit: Commit) -> bool:
        # Another owner can have committed the same offsets; and a later one's note replaces this one's everywhere.
        mine = {partition: Committed(offset, self._note) for partition, offset in commit.offsets.items()}
        if self._transactional_id is None and dict(commit.started) != dict(commit.offsets):
            return _offsets(found).items() >= _offsets(mine).items()
        return found.items() >= mine.items()

    def _is_dropped(self, found: Mapping[int, Committed], commit: Commit) -> bool:
        # Also in the partitions that the commit does not touch: what another owner has read there is unknown here.
        if self._transactional_id is not None and found != self._known:
            return False
        now = _offsets(found)
        return all(now.get(partition, offset) == offset for partition, offset in commit.started.items())

    def _take_over(self) -> None:
        self._faults.at(FaultPoint.FENCE)
        now = self._broker.topic_ids()
        before, self.topic_ids = self.topic_ids, now
        for ids in (before, *(topic_ids.read(note.rpartition("/")[2]) for note in self._broker.notes(self._group))):
            self.check_topics(ids)
        if self._transactional_id is not None:
            self._producer = self._broker.init_producer(self._transactional_id)
        self._connected = True

    def close(self) -> None:
        """See ports.Sink. A transaction under way is left to the next owner's `fence`, as after a crash."""

    def _read(self) -> dict[int, Committed]:
        return self._broker.committed(self._group, self._partitions)


def _offsets(entries: Mapping[int, Committed]) -> dict[int, int]:
    return {partition: entry.offset for partition, entry in entries.items()}
