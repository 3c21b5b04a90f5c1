"""Changelog -> state store at the start of a shard, and whether it is all that was committed. Imports codecs, ports,
patience, topic ids, the state store, `services.faults` and `aside`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.codecs import state_rows
from services.codecs.sentinels import Search, Sentinel
from services.faults import by_halves, fault_of, let_go
from services.predictor.aside import Aside
from services.predictor.options import ShardOptions
from services.predictor.patience import Patience
from services.predictor.ports import Changelog, Refused, Retriable, Sink
from services.predictor.state_store import NO_ROW, StateStore
from services.predictor.strays import MOST, check_ahead, check_foreign
from services.predictor.topic_ids import START_OVER, made_anew
from services.records import RECENT, Fault, ModelState, Records, StateRows

Wanted = Mapping[str, tuple[str, int]]
"""Memory -> (layout, bytes) that it has here."""


FEW = 100
"""Records of a piece that are looked at to tell a foreign topic from damaged rows."""
Found = Mapping[int, Sentinel]
"""The newest sentinel of each partition that has one."""


def restore(
    changelog: Changelog,
    partition: int,
    store: StateStore,
    wanted: Wanted,
    search: Search,
    aside: Aside,
    foreign: dict[int, str],
) -> Iterator[tuple[int, float]]:
    """Takes the partition's state rows into the store and its sentinels into the search; after each piece yields its
    records, and the share that is read. Streams whose newest row cannot be read are set aside; those whose row is of
    another partition, or of another layout where `wanted` has none of latest readings to bring them over by, come into
    `foreign`. Raises Refused for rows that another release has written.
    """
    strict = {} if RECENT in wanted else wanted
    store.drop(np.flatnonzero((store.offsets != NO_ROW) & (store.partitions == partition)))  # of an attempt before
    first, end = changelog.span(partition)
    for records in changelog.read(partition):
        search.see(records)
        kept, tombstones = _read(records, strict, store, aside, foreign)
        if tombstones:
            known = np.array([number for number in store.find(partition, tombstones) if number >= 0], np.int64)
            aside.readable(known)
            _not_foreign(foreign, known)
            store.forget(known)
        if len(kept):
            numbers = store.numbers(partition, kept.streams)
            aside.readable(numbers)
            _not_foreign(foreign, numbers)
            memories = [memory for memory in kept.memories if _fits(memory, wanted)]
            store.keep(numbers, kept.offsets, kept.seen_ms, memories)
        yield len(records), (int(records.offsets[-1]) + 1 - first) / max(1, end - first)


def _not_foreign(foreign: dict[int, str], numbers: NDArray[np.int64]) -> None:
    """Streams [k] have newer rows, or ended."""
    for number in numbers.tolist() if foreign else ():
        foreign.pop(number, None)


def _read(
    records: Records, wanted: Wanted, store: StateStore, aside: Aside, foreign: dict[int, str]
) -> tuple[StateRows, list[bytes]]:
    """State rows and tombstones of the records that can be read; each other one by itself is set aside."""
    strays: dict[int, str] = {}  # offset -> what it is

    def decoded(some: NDArray[np.int64]) -> tuple[StateRows, list[bytes]]:
        its, said = records.take(some.tolist()), ""
        for _ in range(MOST + 1):  # kinds of strays: each is found in a look of its own
            try:
                return state_rows.decode(its, wanted)
            except state_rows.StateRowForeign as error:
                said = said or str(error)
                strays.update(dict.fromkeys(error.offsets.tolist(), str(error)))
                its = state_rows.newest(its)  # what is older than a stray row of its stream does not count
                its = its.take(np.flatnonzero(~np.isin(its.offsets, error.offsets)).tolist())
        raise Refused(said)

    everything = np.arange(len(records))
    faults: dict[int, Fault] = {}
    try:
        read = decoded(everything)
    except Refused:
        raise
    except Exception as error:
        records = state_rows.newest(records)
        everything = np.arange(len(records))
        if not store.live:
            _refuse_foreign(records, decoded, error)
        faults = by_halves(len(records), decoded, error, progress=aside.progress, through=(Refused,))
        read = decoded(np.setdiff1d(everything, list(faults)))
    for row, fault in faults.items():
        aside.unreadable(records.partition, records.keys[row], int(records.offsets[row]), fault)
    for row in np.flatnonzero(np.isin(records.offsets, list(strays))).tolist() if strays else ():
        (number,) = store.numbers(records.partition, [records.keys[row] or b""])
        aside.readable(np.array([number]))
        store.drop(np.array([number]))
        foreign[int(number)] = strays[int(records.offsets[row])]
    return read


def _refuse_foreign(records: Records, decoded: Callable[[NDArray[np.int64]], object], error: Exception) -> None:
    """Raises Refused where none of many records, looked at one by one here and there, is a state row: to find each of
    millions would take hours.
    """
    if len(records) < FEW:
        return
    for row in range(0, len(records), len(records) // FEW):
        try:
            decoded(np.array([row]))
        except Refused:
            raise
        except Exception as its:
            let_go(its)
        else:
            return
    raise Refused(_foreign(str(error)))


def _foreign(first: str) -> str:
    return (
        f"none of the changelog's records is a state row that can be read; the first: {first}. Point "
        "topics.changelog at the pipeline's own topic, serve the release that wrote it, or start over with "
        f"`{START_OVER}`"
    )


def check_readable(store: StateStore, aside: Aside) -> None:
    """Raises Refused where not one state row could be read: the changelog is not this pipeline's, or nothing reads."""
    if aside.first() and not store.live:
        raise Refused(_foreign(aside.first()))


class Stand(NamedTuple):
    """Where a shard begins, by partition."""

    committed: Mapping[int, int]  # the group's next offset; the partition's beginning where it has none
    position: Mapping[int, int]  # what is read first
    unsigned: bool  # some of it has no sentinel or no offset in the group yet, or no more
    lost: int  # readings that retention has deleted before they were read
    first: Mapping[int, int]  # offset with which each partition of the changelog begins


class Restoring:
    """A shard's start, between its fence and its first poll."""

    def __init__(
        self,
        changelog: Changelog,
        sink: Sink,
        store: StateStore,
        wanted: Wanted,
        aside: Aside,
        patiently: Patience,
        options: ShardOptions,
    ) -> None:
        self._changelog, self._sink, self._store = changelog, sink, store
        self._wanted, self._aside, self._patiently, self._options = wanted, aside, patiently, options
        self._searches: dict[int, Search] = {}  # by partition
        self._first: dict[int, int] = {}  # by partition, of the changelog
        self._foreign: dict[int, str] = {}  # stream number -> what its row is that is not of this pipeline

    @property
    def _found(self) -> dict[int, Sentinel]:
        return {partition: its.found for partition, its in self._searches.items() if its.found is not None}

    def of(self, partitions: Sequence[int]) -> Iterator[tuple[int, float]]:
        """Restores one partition after the other; yields as `restore`, the share being that of all. Raises Refused also
        for states of topics that were made anew, and for a transaction of somebody else that hides a part of a
        partition and does not end in time.
        """
        for done, partition in enumerate(partitions):
            held_open, wait_s = partial(self._changelog.held_open, partition), self._options.held_open_s
            if why := self._patiently.outlast("changelog_held_open", held_open, wait_s, partition=partition):
                raise Refused(why)
            self._first[partition], _ = self._patiently(self._changelog.span, partition)
            for records, share in self._pieces(partition):
                yield records, (done + share) / len(partitions)
        for partition, search in self._searches.items():
            if search.found is None and search.other is not None:
                self._sink.check_topics(search.other.topic_ids)
            if search.stray is not None:
                self._aside.unreadable(partition, None, search.stray.offset, fault_of(search.stray))
        check_foreign(self._store, self._aside, self._foreign)
        check_readable(self._store, self._aside)

    def _is_ours(self, sentinel: Sentinel) -> bool:
        return not made_anew(sentinel.topic_ids, self._sink.topic_ids)

    def _pieces(self, partition: int) -> Iterator[tuple[int, float]]:
        """Those of `restore`, which begins anew when the broker has gone away in the middle."""
        pieces: Iterator[tuple[int, float]] | None = None

        def piece() -> tuple[int, float] | None:
            nonlocal pieces
            if pieces is None:
                search = self._searches[partition] = Search(self._is_ours)
                here = self._changelog, partition, self._store, self._wanted
                pieces = restore(*here, search, self._aside, self._foreign)
            try:
                return next(pieces, None)
            except Retriable:
                pieces = None
                raise

        while (one := self._patiently(piece)) is not None:
            yield one

    def stand(self, committed: Mapping[int, int], beginning: Mapping[int, int], notify: Callable[..., None]) -> Stand:
        """Where the shard begins. Raises as `standing`."""
        found, ends = self._found, self._patiently(self._sink.ends)
        self._check_ahead(committed, ends)
        at = standing(committed, found, self._store, self._options.exactly_once)
        bare = sorted(committed.keys() - found.keys())
        # Where a stray record has made compaction drop the sentinel, the group's offset alone says where it stands.
        lost = [one for one in bare if self._searches[one].stray is None] if self._sink.signed else []
        if lost and self._options.exactly_once:
            raise Refused(
                f"partition {lost[0]}: the group's committed offset is {committed[lost[0]]}, but the changelog holds "
                "nothing of what was committed: its records were deleted. Put them back, or start over with "
                f"`{START_OVER}`."
            )
        for partition, its in found.items():
            if deleted(its, self._first[partition]):
                notify("states_deleted", partition=partition, before=self._first[partition], since=its.first)
        if expired := {partition: offset for partition, offset in at.items() if partition not in committed}:
            for partition, offset in expired.items():
                if offset > ends.get(partition, offset):
                    raise Refused(
                        f"partition {partition}: the changelog says that the readings before {offset} are folded in, "
                        f"and they end at {ends[partition]}; the group's own offset has expired. The readings were "
                        f"lost, or somebody else has written to the changelog: start over with `{START_OVER}`."
                    )
            notify("offsets_expired", partitions=list(expired), offsets=expired)
        at = {**beginning, **at}
        gone = {partition: first - at[partition] for partition, first in beginning.items() if at[partition] < first}
        for partition in gone:
            notify("readings_lost_to_retention", partition=partition, committed=at[partition],
                   beginning=beginning[partition])  # fmt: skip
        position = {partition: max(at[partition], first) for partition, first in beginning.items()}
        return Stand(at, position, bool(expired or bare), sum(gone.values()), self._first)

    def _check_ahead(self, committed: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Of rows alone: where the sentinel and the group's offset disagree it is `standing` that refuses."""
        if not self._options.exactly_once:  # states may be ahead of offsets, but not of all readings
            limits = dict(ends)
        else:
            limits = {partition: its.next_offset for partition, its in self._found.items()}
            limits = dict(limits.items() & committed.items())
        for partition, end in limits.items():
            check_ahead(self._store, self._aside, partition, end)


def deleted(sentinel: Sentinel, first: int) -> bool:
    """Whether records of a changelog's partition, which begins with offset `first` now, were deleted since the sentinel
    was written: compaction leaves that offset where it is, but retention and kafka-delete-records.sh do not.
    """
    return sentinel.first < first


def standing(committed: Mapping[int, int], found: Found, store: StateStore, exactly_once: bool) -> dict[int, int]:
    """The next offset of every partition of which something has been read. Where the group's own has expired it is the
    sentinel's. Raises Refused, exactly once, when the changelog does not go just as far as what was committed. At least
    once it may be ahead, which is how replayed readings are recognised, or behind, where an owner that had been
    replaced wrote last.
    """
    at = {partition: sentinel.next_offset for partition, sentinel in found.items()} | dict(committed)
    if exactly_once:
        for partition, sentinel in found.items():
            _check_sentinel(partition, at[partition], sentinel)
        for partition in np.unique(store.partitions[store.offsets != NO_ROW]).tolist():
            _check_rows(partition, at.get(partition), store)
    return at


def _check_sentinel(partition: int, at: int, sentinel: Sentinel) -> None:
    if at > sentinel.next_offset:
        raise Refused(
            f"partition {partition}: the group's committed offset is {at}, but the changelog's states end before "
            f"reading {sentinel.next_offset}: those of the readings between are missing. The changelog has lost "
            "records, or somebody moved the group's offsets forward. Put either back, or start over with "
            f"`{START_OVER}`."
        )
    if at < sentinel.next_offset:
        raise Refused(_ahead(partition, sentinel.next_offset - 1, at))


def _check_rows(partition: int, at: int | None, store: StateStore) -> None:
    """Raises Refused when a stream's state is ahead of where the group stands, which transactions rule out."""
    here = (store.offsets != NO_ROW) & (store.partitions == partition)
    ahead = int(store.offsets[here].max(initial=NO_ROW))
    if ahead >= (at or 0):
        raise Refused(_ahead(partition, ahead, at))


def _ahead(partition: int, ahead: int, committed: int | None) -> str:
    return (
        f"partition {partition}: the changelog holds states up to offset {ahead}, but the group's committed "
        f"offset is {committed}. Somebody moved or deleted the group's offsets, or topics.changelog belongs to "
        f"another group. Put the offsets back, or start over with `{START_OVER}`."
    )


def _fits(memory: ModelState, wanted: Wanted) -> bool:
    """Not what cannot be read: latest readings of another number, memories of a model that adapts otherwise."""
    if memory.name not in wanted:
        return memory.name != RECENT
    layout, row_bytes = wanted[memory.name]
    return memory.rows.shape[1] == row_bytes and layout.startswith(memory.layout)
