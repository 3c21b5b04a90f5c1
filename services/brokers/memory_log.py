"""One partition of the in-memory broker: records, control markers, the last stable offset, compaction, retention.

Knows no group, no transactional id and no topic. May import numpy, the standard library and records only.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from services.records import Header, Records


class Isolation(enum.StrEnum):
    """What a reader is shown of transactions."""

    READ_COMMITTED = "read_committed"  # up to the last stable offset, nothing that was aborted
    READ_UNCOMMITTED = "read_uncommitted"  # every record at once, also one that is aborted later


class Marker(enum.StrEnum):
    """A control record: how a producer's transaction in this partition ended. Takes an offset, is never delivered."""

    COMMIT = "commit"
    ABORT = "abort"


class ProducerIdAndEpoch(NamedTuple):
    """One incarnation of a transactional id; a higher epoch shuts out every lower one."""

    id: int
    epoch: int


class LogEntry(NamedTuple):
    """What stands at one offset."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    producer: ProducerIdAndEpoch | None  # None = written outside transactions
    marker: Marker | None  # None = a record


class PartitionLog:
    """Entries in offset order; gaps are what compaction removed."""

    def __init__(self) -> None:
        self.start = 0  # first offset that may be read
        self.end = 0  # offset of the next entry
        self.entries: list[LogEntry] = []
        self.open: dict[int, int] = {}  # producer id -> first offset of its transaction under way
        self.aborted: set[int] = set()  # offsets of records whose transaction was aborted

    @property
    def stable(self) -> int:
        """The last stable offset: every transaction that began below it has ended."""
        return min(self.open.values(), default=self.end)

    def append(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[Header]] | None,
        timestamp_ms: int,
        producer: ProducerIdAndEpoch | None = None,
    ) -> None:
        """Adds records; with a producer they belong to its transaction, which begins here if it was not open yet."""
        if producer is not None and keys:
            self.open.setdefault(producer.id, self.end)
        for row, (key, value) in enumerate(zip(keys, values, strict=True)):
            its_headers = tuple(headers[row]) if headers is not None else ()
            self.entries.append(LogEntry(self.end + row, timestamp_ms, key, value, its_headers, producer, None))
        self.end += len(keys)

    def mark(self, producer: ProducerIdAndEpoch, marker: Marker, timestamp_ms: int) -> None:
        """Ends the producer's transaction in this partition."""
        first = self.open.pop(producer.id)
        if marker is Marker.ABORT:
            for entry in self.entries[self._index(first) :]:
                if entry.producer is not None and entry.producer.id == producer.id:
                    self.aborted.add(entry.offset)
        self.entries.append(LogEntry(self.end, timestamp_ms, None, None, (), producer, marker))
        self.end += 1

    def read(self, start: int, max_records: int, isolation: Isolation) -> tuple[list[LogEntry], int]:
        """Up to `max_records` visible records from `start` on, and the offset to go on from, which passes markers,
        gaps and aborted records.
        """
        committed_only = isolation is Isolation.READ_COMMITTED
        bound = self.stable if committed_only else self.end
        found: list[LogEntry] = []
        for index in range(self._index(start), len(self.entries)):
            entry = self.entries[index]
            if entry.offset >= bound:
                break
            if entry.marker is not None or (committed_only and entry.offset in self.aborted):
                continue
            if len(found) == max_records:
                return found, found[-1].offset + 1 if found else max(start, self.start)
            found.append(entry)
        return found, max(start, bound)

    def compact(self, tombstones_before_ms: int) -> None:
        """Below the last stable offset keeps the last value of each key and drops aborted records; drops tombstones and
        markers that are older. Offsets do not change, and neither does the end.
        """
        stable = self.stable
        last = {
            entry.key: entry.offset
            for entry in self.entries
            if entry.offset < stable and entry.marker is None and entry.offset not in self.aborted
        }

        def stays(entry: LogEntry) -> bool:
            if entry.offset >= stable:
                return True
            if entry.marker is not None:
                return entry.timestamp_ms >= tombstones_before_ms
            if last.get(entry.key) != entry.offset:
                return False
            return entry.value is not None or entry.timestamp_ms >= tombstones_before_ms

        self._keep(entry for entry in self.entries if stays(entry))

    def truncate(self, before: int) -> None:
        """Retention: the first offset that may be read moves forward to `before`."""
        if before > self.stable:
            raise ValueError(f"cannot delete up to {before}: the last stable offset is {self.stable}")
        self.start = max(self.start, before)
        self._keep(entry for entry in self.entries if entry.offset >= self.start)

    def check_integrity(self) -> None:
        """Raises AssertionError unless offsets, transactions and markers fit together."""
        offsets = [entry.offset for entry in self.entries]
        assert offsets == sorted(set(offsets)), "offsets increase"
        assert all(self.start <= offset < self.end for offset in offsets)
        assert 0 <= self.start <= self.stable <= self.end
        assert self.aborted <= set(offsets)
        epochs: dict[int, int] = {}
        for entry in self.entries:
            if entry.producer is None:
                assert entry.marker is None, "only a transaction ends with a marker"
                continue
            assert epochs.get(entry.producer.id, 0) <= entry.producer.epoch, "a shut-out producer wrote"
            epochs[entry.producer.id] = entry.producer.epoch
            if entry.offset >= self.open.get(entry.producer.id, self.end):
                assert entry.marker is None, "an open transaction has no end"
                assert entry.offset not in self.aborted

    def _index(self, offset: int) -> int:
        return bisect_left(self.entries, offset, key=lambda entry: entry.offset)

    def _keep(self, entries: Iterable[LogEntry]) -> None:
        self.entries = list(entries)
        self.aborted &= {entry.offset for entry in self.entries}


def to_records(partition: int, entries: Sequence[LogEntry]) -> Records:
    """The entries as one columnar value."""
    headers: Mapping[int, Sequence[Header]] = {row: entry.headers for row, entry in enumerate(entries) if entry.headers}
    return Records(
        partition=partition,
        offsets=np.array([entry.offset for entry in entries], np.int64),
        timestamps_ms=np.array([entry.timestamp_ms for entry in entries], np.int64),
        keys=[entry.key for entry in entries],
        values=[entry.value for entry in entries],
        headers=headers,
    )
