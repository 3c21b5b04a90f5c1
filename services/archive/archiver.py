"""Rounds from where the files end to where the topic is settled: what is missing becomes files, whole or not at all.

The position is what the names of the files say and nothing else, so there is no moment at which it could disagree with
them. Kafka comes in through `Topic`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa

from services.archive import rows
from services.archive.layout import DAY_MS, LAST_DAY, ArchiveFile, Damaged, chains, day_name, day_number
from services.archive.places import ArchiveStorage
from services.records import Records

PIECE_BYTES = 64_000_000
"""A file is closed when it holds so many bytes of columns, before compression."""


class Topic(Protocol):
    """Committed records of one topic, by offsets."""

    name: str

    def spans(self) -> Mapping[int, tuple[int, int]]:
        """First offset and stable end of every partition. Raises Retriable, Refused."""

    def read(self, partition: int, first: int, end: int) -> Iterator[Records]:
        """The records from `first` up to but not including `end`, which must lie within the span. Ends once all up to
        `end` has been seen, records or not; a batch that nobody unpacks is one refused record. Raises Retriable.
        """


@dataclass
class Told:
    """What an archiver has done so far."""

    records: int = 0
    pieces: int = 0
    bytes: int = 0  # as written
    gone: int = 0  # offsets that the topic had lost before
    passed_over: int = 0  # batches that unpack to more than may be held in memory


class Archiver:
    """Writes one topic to one place, which must be claimed. `notify(event, **fields)` hears of every file and hole.

    `now_ms` keeps a record's clock from opening days that are yet to come.
    """

    def __init__(
        self,
        topic: Topic,
        place: ArchiveStorage,
        notify: Callable[..., None],
        *,
        piece_bytes: int = PIECE_BYTES,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.told = Told()
        self._topic, self._place, self._notify = topic, place, notify
        self._piece_bytes, self._now_ms = piece_bytes, now_ms
        self._looked = False
        self._empty: dict[int, int] = {}  # partition -> up to where there is nothing after the last file
        self._lag: dict[int, int] = {}

    @property
    def lag(self) -> int:
        """Offsets between the files and the stable ends as they were when the last round began."""
        return sum(self._lag.values())

    def round(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Archives up to the present stable end of every partition; ends early, with whole files, once `stopped()`.

        Raises Retriable (the broker is away: call again), NotWritten, Taken, Damaged. Files that were written stay.
        """
        chained = chains(self._place.paths(), self._place.where)
        if not self._looked:
            self._look(chained)
        spans = dict(sorted(self._topic.spans().items()))
        for partition in chained.keys() - spans.keys():
            raise Damaged(f"{self._place.where} has files of partition {partition}, and topic {self._topic.name} has "
                          f"{len(spans)} partitions: it was made anew. Archive it to another place")  # fmt: skip
        lasts = {partition: chained[partition][-1] if partition in chained else None for partition in spans}
        self._lag = {partition: max(0, end - (last.next if (last := lasts[partition]) else begin))
                     for partition, (begin, end) in spans.items()}  # fmt: skip
        for partition, (begin, end) in spans.items():
            if stopped():
                return
            last = lasts[partition]
            if last is not None and last.next > end:
                raise Damaged(
                    f"topic {self._topic.name}, partition {partition} ends at offset {end}, and {self._place.where} is "
                    f"at {last.next}: the topic was made anew or has lost records. Archive it to another place"
                )
            self._partition(partition, begin, end, last, stopped)

    def _look(self, chained: Mapping[int, list[ArchiveFile]]) -> None:
        """A damaged end is better found before anything is put behind it."""
        for chain in chained.values():
            piece = chain[-1]
            with self._place.open(piece.path) as source:
                rows.opened(source, self._topic.name, piece, self._place.where)
        if chained:
            self._notify("archive goes on", at={partition: chain[-1].next for partition, chain in chained.items()})
        self._looked = True

    def _partition(
        self, partition: int, begin: int, end: int, last: ArchiveFile | None, stopped: Callable[[], bool]
    ) -> None:
        seen = self._empty.get(partition)  # nothing lies between the last file and this offset
        at = last.next if last is not None else begin if seen is None else min(begin, seen)
        known = at if seen is None else max(at, seen)
        day = None if last is None else day_number(last.day)
        if last is None and seen is None and begin:
            self._notify("archive begins", partition=partition, offset=begin, missing="all before it is deleted")
        if known < begin:
            self._hole(
                ArchiveFile(partition, at, begin - 1, day_name(self._today() if day is None else day), gone=True)
            )
            at = known = begin
        gathered = _Gathered(at, day or 0)
        for records in self._topic.read(partition, known, end):
            batch = rows.batch(records)
            for start, stop, day in self._days(records, gathered.day):
                first = records.begins.get(start, int(records.offsets[start]))
                if gathered.batches and (day != gathered.day or start in records.refused):
                    gathered = self._written(partition, gathered, first - 1, end)
                if start in records.refused:
                    piece = ArchiveFile(
                        partition, gathered.first, int(records.offsets[start]), day_name(day), gone=True
                    )
                    gathered = self._pass_over(piece, day, records.refused[start][1])
                    continue
                gathered.add(batch.slice(start, stop - start), day, int(records.offsets[stop - 1]))
                if gathered.bytes >= self._piece_bytes:
                    gathered = self._written(partition, gathered, gathered.last, end)
            if stopped():
                end = gathered.last + 1
                break
        if gathered.batches:
            self._written(partition, gathered, end - 1, end)
        self._empty[partition] = max(end, known)

    def _days(self, records: Records, day: int) -> Iterator[tuple[int, int, int]]:
        """Rows `start` to `stop` and their day; a refused row is by itself. Within a partition days never go back, and
        never beyond tomorrow, so that a late record or a wrong clock makes no file of its own.
        """
        days = np.clip(records.timestamps_ms // DAY_MS, 0, min(self._today() + 1, LAST_DAY))
        days = np.maximum.accumulate(np.maximum(days, day))
        alone = {row + side for row in records.refused for side in (0, 1)}
        cuts = sorted({0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), *alone, len(records)})
        for start, stop in pairwise(cuts):
            yield start, stop, int(days[start])

    def _written(self, partition: int, gathered: _Gathered, last: int, end: int) -> _Gathered:
        """Publishes what was gathered as the offsets up to `last`, and gives what comes after it."""
        piece = ArchiveFile(partition, gathered.first, last, day_name(gathered.day))
        content = rows.content(self._topic.name, piece, gathered.batches)
        self._place.publish(piece.path, content)
        records = sum(batch.num_rows for batch in gathered.batches)
        self.told.records += records
        self.told.pieces += 1
        self.told.bytes += content.size
        self._lag[partition] = max(0, end - piece.next)
        self._notify("archived", file=piece.path, records=records, bytes=content.size, lag=self.lag)
        return _Gathered(piece.next, gathered.day)

    def _hole(self, piece: ArchiveFile) -> None:
        note = (
            f"offsets {piece.first} to {piece.last} of topic {self._topic.name}, partition {piece.partition} were "
            "deleted before they were archived"
        )
        self._place.publish(piece.path, rows.content(self._topic.name, piece, [], note))
        self.told.pieces += 1
        self.told.gone += piece.next - piece.first
        self._notify("records are gone", what=note, file=piece.path,
                     fix="let the archiver run more often, or raise the topic's retention.ms")  # fmt: skip

    def _pass_over(self, piece: ArchiveFile, day: int, why: str) -> _Gathered:
        note = f"topic {self._topic.name}, partition {piece.partition}: {why}"
        self._place.publish(piece.path, rows.content(self._topic.name, piece, [], note))
        self.told.pieces += 1
        self.told.passed_over += 1
        self._notify("batch passed over", what=note, file=piece.path)
        return _Gathered(piece.next, day)

    def _today(self) -> int:
        return self._now_ms() // DAY_MS


class _Gathered:
    """Rows of one partition and day that no file holds yet; `first` is the offset after the last file."""

    def __init__(self, first: int, day: int) -> None:
        self.first, self.day = first, day
        self.last = first - 1
        self.bytes = 0
        self.batches: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch, day: int, last: int) -> None:
        self.batches.append(batch)
        self.bytes += batch.nbytes
        self.day, self.last = day, last
