"""A broker in memory with Kafka's transaction semantics: fencing, isolation, markers, transactional group offsets.

Shipped as a test driver, so it is meant to be as strict as the real one. It never waits: what Kafka would make a client
wait for either happens at once or is refused. Not thread-safe. May import numpy, the standard library, records, ports.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.brokers.memory_log import Isolation, LogEntry, Marker, PartitionLog, ProducerIdAndEpoch, to_records
from services.predictor.ports import Fenced, Retriable
from services.records import Encoded, Header, Records, Role, TopicIds

COMPACTED = (Role.CHANGELOG,)
"""Roles whose records must have a key."""

DELETE_RETENTION_MS = 86_400_000
"""How long compaction keeps tombstones and markers; Kafka's default of `delete.retention.ms`."""


class Phase(enum.StrEnum):
    """Where the transaction of a transactional id stands.

    A decision cannot be taken back: once prepared, markers follow even if nobody is there to hear about it.
    """

    EMPTY = "empty"
    OPEN = "open"
    PREPARED_COMMIT = "prepared_commit"
    PREPARED_ABORT = "prepared_abort"


class Committed(NamedTuple):
    """A group's entry for one partition."""

    offset: int  # next to read
    note: str  # whatever the committer wrote beside it; Kafka calls it metadata


@dataclass(slots=True)
class Transaction:
    """What the coordinator knows of one transactional id."""

    producer: ProducerIdAndEpoch
    phase: Phase = Phase.EMPTY
    logs: list[PartitionLog] = field(default_factory=list)  # where it has written
    offsets: dict[tuple[str, int], Committed] = field(default_factory=dict)  # (group, partition) -> pending


class MemoryBroker:
    """Four topics of `partitions` partitions each; `clock` gives the time in ms for markers and plain appends."""

    def __init__(self, partitions: int, clock: Callable[[], int]) -> None:
        self.partitions = partitions
        self.clock = clock
        self._logs = {(role, partition): PartitionLog() for role in Role for partition in range(partitions)}
        self._made = dict.fromkeys(Role, 1)  # how often each topic was made
        self._transactions: dict[str, Transaction] = {}
        self._offsets: dict[tuple[str, int], Committed] = {}  # by group and partition

    # ---- logs -------------------------------------------------------------------------------------------------------

    def log(self, role: Role, partition: int) -> PartitionLog:
        """One partition. Raises ValueError for one that does not exist."""
        try:
            return self._logs[role, partition]
        except KeyError:
            raise ValueError(f"{role} has partitions 0..{self.partitions - 1}, not {partition}") from None

    def append(
        self,
        role: Role,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
    ) -> int:
        """Writes one record outside transactions, as a sensor does. Returns its offset."""
        log = self.log(role, partition)
        _check_keys(role, [key])
        log.append([key], [value], [headers], self.clock() if timestamp_ms is None else timestamp_ms)
        return log.end - 1

    def records(
        self, role: Role, partition: int, isolation: Isolation = Isolation.READ_COMMITTED, start: int = 0
    ) -> Records:
        """Everything that a consumer from `start` on would get now."""
        entries, _ = self.log(role, partition).read(start, len(self.log(role, partition).entries), isolation)
        return to_records(partition, entries)

    def entries(self, role: Role, partition: int) -> list[LogEntry]:
        """What the partition holds, markers and aborted records too."""
        return list(self.log(role, partition).entries)

    def compact(self, role: Role, delete_retention_ms: int = DELETE_RETENTION_MS) -> None:
        """What the log cleaner does, at once and to all partitions of `role`."""
        for partition in range(self.partitions):
            self.log(role, partition).compact(self.clock() - delete_retention_ms)

    def truncate(self, role: Role, partition: int, before: int) -> None:
        """What retention does: offsets below `before` can no longer be read."""
        self.log(role, partition).truncate(before)

    def topic_ids(self) -> TopicIds:
        """Ids of the topics as they are now."""
        return {role: f"{made:08x}" for role, made in self._made.items()}

    def remake(self, role: Role) -> None:
        """Deletes the topic and makes it anew. As in Kafka offsets of readings that are no more go with them."""
        self._made[role] += 1
        self._logs |= {(role, partition): PartitionLog() for partition in range(self.partitions)}
        if role is Role.READINGS:
            self._offsets.clear()

    def forget_offsets(self, group: str) -> None:
        """What happens to a group's offsets once nobody has committed for offsets.retention.minutes."""
        self._offsets = {key: found for key, found in self._offsets.items() if key[0] != group}

    # ---- transactions -----------------------------------------------------------------------------------------------

    def init_producer(self, transactional_id: str) -> ProducerIdAndEpoch:
        """Ends what is under way for this id, and shuts out whoever had it before: a prepared commit is completed, an
        open transaction aborted, the epoch raised.
        """
        transaction = self._transactions.get(transactional_id)
        if transaction is None:
            transaction = self._transactions[transactional_id] = Transaction(
                ProducerIdAndEpoch(len(self._transactions), 0)
            )
            return transaction.producer
        if transaction.phase is Phase.OPEN:
            transaction.phase = Phase.PREPARED_ABORT
        self._complete(transaction)
        transaction.producer = ProducerIdAndEpoch(transaction.producer.id, transaction.producer.epoch + 1)
        return transaction.producer

    def write(
        self, encoded: Encoded, transactional_id: str | None = None, producer: ProducerIdAndEpoch | None = None
    ) -> None:
        """Appends records, in the producer's transaction if one is named. Raises Fenced."""
        log = self.log(encoded.role, encoded.partition)
        _check_keys(encoded.role, encoded.keys)
        if transactional_id is not None:
            transaction = self._join(transactional_id, producer)
            if len(encoded) and log not in transaction.logs:
                transaction.logs.append(log)
        log.append(encoded.keys, encoded.values, encoded.headers, encoded.timestamp_ms, producer)

    def write_offsets(
        self,
        group: str,
        offsets: Mapping[int, int],
        transactional_id: str | None = None,
        producer: ProducerIdAndEpoch | None = None,
        note: str = "",
    ) -> None:
        """Sets the group's next offsets: at once, or pending until the producer's transaction is committed."""
        named = {(group, partition): Committed(offset, note) for partition, offset in offsets.items()}
        if transactional_id is None:
            self._offsets.update(named)
        else:
            self._join(transactional_id, producer).offsets.update(named)

    def end(self, transactional_id: str, producer: ProducerIdAndEpoch, commit: bool) -> None:
        """Decides the transaction. Its markers follow with `complete`. Raises Fenced."""
        transaction = self._current(transactional_id, producer)
        self._complete(transaction)  # Kafka: the client retries while the last one's markers are being written
        if transaction.phase is Phase.OPEN:
            transaction.phase = Phase.PREPARED_COMMIT if commit else Phase.PREPARED_ABORT

    def complete(self, transactional_id: str) -> None:
        """Lets the coordinator write the markers of a decided transaction; does nothing to one that is open."""
        self._complete(self._transactions[transactional_id])

    def committed(self, group: str, partitions: Sequence[int]) -> dict[int, Committed]:
        """The group's entries for those of `partitions` that have one. Decided transactions are completed first.

        Raises Retriable while an open one holds one of them: Kafka would make the client wait.
        """
        for transactional_id, transaction in self._transactions.items():
            self._complete(transaction)
            for partition in partitions:
                if (group, partition) in transaction.offsets:
                    raise Retriable(f"transaction {transactional_id} holds the offset of partition {partition} open")
        return {
            partition: self._offsets[group, partition]
            for partition in partitions
            if (group, partition) in self._offsets
        }

    def offsets(self, group: str) -> dict[int, int]:
        """Partition -> committed next offset of the group, as it is visible now; changes nothing."""
        return {partition: its.offset for (name, partition), its in self._offsets.items() if name == group}

    def notes(self, group: str) -> set[str]:
        """What stands beside the group's offsets, as it is visible now."""
        return {its.note for (name, _), its in self._offsets.items() if name == group}

    def check_integrity(self) -> None:
        """Raises AssertionError unless logs, transactions and group offsets agree with each other."""
        for log in self._logs.values():
            log.check_integrity()
        open_in_logs = [(producer_id, id(log)) for log in self._logs.values() for producer_id in log.open]
        open_here = [(its.producer.id, id(log)) for its in self._transactions.values() for log in its.logs]
        assert sorted(open_in_logs) == sorted(open_here), "logs and coordinator disagree about what is open"
        for transaction in self._transactions.values():
            if transaction.phase is Phase.EMPTY:
                assert not transaction.logs
                assert not transaction.offsets
        for (_, partition), (offset, _) in self._offsets.items():
            assert 0 <= offset <= self.log(Role.READINGS, partition).end, "an offset beyond the end was committed"

    def _current(self, transactional_id: str, producer: ProducerIdAndEpoch | None) -> Transaction:
        transaction = self._transactions.get(transactional_id)
        if transaction is None or transaction.producer != producer:
            raise Fenced(f"another owner has initialised {transactional_id}")
        return transaction

    def _join(self, transactional_id: str, producer: ProducerIdAndEpoch | None) -> Transaction:
        transaction = self._current(transactional_id, producer)
        self._complete(transaction)
        transaction.phase = Phase.OPEN
        return transaction

    def _complete(self, transaction: Transaction) -> None:
        if transaction.phase in (Phase.EMPTY, Phase.OPEN):
            return
        marker = Marker.COMMIT if transaction.phase is Phase.PREPARED_COMMIT else Marker.ABORT
        for log in transaction.logs:
            log.mark(transaction.producer, marker, self.clock())
        if marker is Marker.COMMIT:
            self._offsets.update(transaction.offsets)
        transaction.phase, transaction.logs, transaction.offsets = Phase.EMPTY, [], {}


def _check_keys(role: Role, keys: Sequence[bytes | None]) -> None:
    if role in COMPACTED and None in keys:
        raise ValueError(f"{role} is compacted: every record needs a key")
