"""What is set aside because of an error that nobody foresaw: records and streams, each by itself, as dead letters.

A record that cannot be decoded (`services.codecs.readings` finds it), a stream whose step raises (found here, by
halves), and a stream whose state row cannot be read (`restore` finds it). Nothing of such a stream is folded in, so its
state stays what it was; all others are stepped as if its readings had not come. What waits in a silent stream whose
flush raises goes on waiting: its readings were accepted. What is of no single record or stream is raised. Imports
numpy, records, `services.faults` and this room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.faults import by_halves, let_go
from services.predictor.batcher import Batch, Part, select
from services.predictor.epoch import Epoch, Stepped
from services.predictor.slots import Slots
from services.predictor.state_store import NO_ROW, StateStore
from services.predictor.stats import ShardStats, add
from services.records import Fault, Reason, Rejected

if TYPE_CHECKING:
    from services.predictor.deployed_models import ModelSet

KINDS = 100
"""Kinds of errors whose stack is told, once each; more are only counted."""
SUSPECTS = 1000
"""Streams remembered for having raised, which are looked at first the next time."""


class Aside:
    """Of one shard. `notify`: where the stack of each kind of error is told once; `progress` is told after each attempt
    to find what is to blame.
    """

    def __init__(
        self,
        store: StateStore,
        slots: Slots,
        models: ModelSet,
        stats: ShardStats,
        notify: Callable[..., None],
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        self._store, self._slots, self._models, self._stats, self._notify = store, slots, models, stats, notify
        self.progress = progress
        self._unreadable: dict[int, str] = {}  # stream number -> why its state row cannot be read
        self._suspects: dict[int, None] = {}  # stream numbers
        self._told: set[tuple[str, str]] = set()

    # ---- records ----------------------------------------------------------------------------------------------------

    def decoded(self, rejected: Rejected) -> None:
        """Counts and tells of the records that the decoder has refused for an error of its own."""
        if rejected.faults:
            rows = [row for row, reason in enumerate(rejected.reasons) if reason is Reason.INTERNAL]
            first = int(rejected.records.offsets[rows[0]])
            self._tell("decode", rejected.faults, len(rows), partition=rejected.records.partition, offset=first)

    # ---- state rows -------------------------------------------------------------------------------------------------

    def unreadable(self, partition: int, stream: bytes | None, offset: int, fault: Fault) -> None:
        """The newest row of a stream cannot be read, so nobody knows its state; None: the record is of no stream."""
        self._tell("restore", (fault,), 1, partition=partition, offset=offset, stream=stream)
        if stream is None:
            return
        number = self._store.numbers(partition, [stream])
        where = f"partition {partition}, offset {offset} of the changelog"
        self._without_state(int(number[0]), f"A state row that cannot be read ({where})")

    def stray(self, number: int, sentence: str) -> None:
        """The newest row of a stream can be read, but cannot be of this pipeline."""
        partition, stream = int(self._store.partitions[number]), self._store.names(np.array([number]))[0]
        self._tell("restore", (Fault("StateRowForeign", sentence),), 1, partition=partition, stream=stream)
        self._without_state(
            number, f"A state row that is not of this pipeline (partition {partition} of the changelog)"
        )

    def _without_state(self, number: int, why: str) -> None:
        self._store.drop(np.array([number]))
        self._unreadable[number] = why
        self._stats.unreadable_streams = len(self._unreadable)

    def readable(self, numbers: NDArray[np.int64]) -> None:
        """Streams [k] have newer rows, or ended."""
        if self._unreadable:
            for number in numbers.tolist():
                self._unreadable.pop(number, None)
            self._stats.unreadable_streams = len(self._unreadable)

    def first(self) -> str:
        """The first of the rows that cannot be read; empty: all can."""
        return next(iter(self._unreadable.values()), "")

    def part(self, part: Part) -> Part:
        """The part without the readings of streams whose state nobody knows."""
        return without(part, self._unreadable) if self._unreadable else part

    # ---- steps ------------------------------------------------------------------------------------------------------

    def stepped(
        self,
        batch: Batch,
        opened: Callable[[Batch], Epoch],
        step: Callable[[Batch, Epoch], Stepped],
    ) -> tuple[Batch, Epoch, Stepped]:
        """Steps the batch in an epoch `opened` for it, without the streams whose step raises by itself. Raises where a
        stream of nobody's cannot be stepped either.
        """

        def attempt(streams: NDArray[np.int64]) -> None:
            chosen = only(batch, streams)
            step(chosen, opened(chosen))

        epoch = opened(batch)
        try:
            return batch, epoch, step(batch, epoch)
        except Exception as error:
            faults = self._found("step", np.unique(batch.numbers()), attempt, error)
        details = {number: f"An error of streamrnn's own ({fault.kind})" for number, fault in faults.items()}
        batch = replace(batch, parts=tuple(without(part, details) for part in batch.parts))
        epoch = opened(batch)
        return batch, epoch, step(batch, epoch)

    def flushed(
        self,
        numbers: NDArray[np.int64],
        opened: Callable[[], Epoch],
        flush: Callable[[NDArray[np.int64], Epoch], Stepped],
    ) -> tuple[NDArray[np.int64], Epoch, Stepped]:
        """Sends what waits in streams [k], without those whose flush raises by itself: what waits in them goes on
        waiting. Returns the others. Raises as `stepped`.
        """
        epoch = opened()
        try:
            return numbers, epoch, flush(numbers, epoch)
        except Exception as error:
            faults = self._found("flush", numbers, lambda some: flush(some, opened()), error)
        numbers, epoch = numbers[~np.isin(numbers, list(faults))], opened()
        return numbers, epoch, flush(numbers, epoch)

    def _found(
        self,
        place: str,
        streams: NDArray[np.int64],
        attempt: Callable[[NDArray[np.int64]], object],
        error: Exception,
    ) -> dict[int, Fault]:
        """Those of streams [k] with which the attempt raises alone, by number; told."""

        def forget() -> None:
            self._slots.dropped()
            self._models.check(self._slots.spare())
            self.progress()

        def attempted(some: NDArray[np.int64]) -> None:
            try:
                attempt(streams[some])
            finally:
                forget()

        let_go(error)
        forget()
        known = np.flatnonzero(np.isin(streams, list(self._suspects)))
        groups = [*known.reshape(-1, 1), np.setdiff1d(np.arange(len(streams)), known)] if len(known) else []
        faults = {
            int(streams[i]): fault for i, fault in by_halves(len(streams), attempted, error, groups=groups).items()
        }
        for number, fault in faults.items():
            stream = self._store.names(np.array([number]))[0]
            self._tell(place, (fault,), 1, partition=int(self._store.partitions[number]), stream=stream)
        self._suspects = dict.fromkeys([*faults, *self._suspects][:SUSPECTS])
        return faults

    def never_kept(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Streams among `numbers` [k], whose epochs are kept, of which no reading ever was: they need no number, or
        keys whose steps raise would fill their partition for ever.
        """
        rowless = np.unique(numbers[self._store.offsets[numbers] == NO_ROW])
        return np.setdiff1d(rowless, list(self._unreadable))

    # ---- both -------------------------------------------------------------------------------------------------------

    def _tell(self, place: str, faults: Iterable[Fault], n: int, **fields: object) -> None:
        add(self._stats.internal_errors, place, n)
        for fault in faults:
            if (place, fault.kind) not in self._told and len(self._told) < KINDS:
                self._told.add((place, fault.kind))
                self._notify("internal_error", place=place, error=fault.kind, stack=fault.stack, **fields)


def only(batch: Batch, streams: NDArray[np.int64]) -> Batch:
    """The readings of some streams, and nothing else of the batch."""
    parts = []
    for part in batch.parts:
        rows = np.flatnonzero(np.isin(part.numbers, streams))
        if len(rows):
            nothing = Rejected(part.records.take([]), [], [])
            parts.append(
                replace(part, readings=select(part.readings, rows), numbers=part.numbers[rows], rejected=nothing)
            )
    return Batch(tuple(parts))


def without(part: Part, streams: Mapping[int, str]) -> Part:
    """The part with the records of some streams as dead letters; a stream's number -> the beginning of why.

    A packed record with rows of other streams, too, is both: it becomes a dead letter, and they are predicted.
    """
    out = np.isin(part.numbers, list(streams))
    if not out.any():
        return part
    rows, others = np.flatnonzero(out), np.flatnonzero(~out)
    offsets, first = np.unique(part.readings.offsets[rows], return_index=True)
    shared = np.isin(offsets, part.readings.offsets[others])
    details = []
    for row, mixed in zip(rows[first].tolist(), shared.tolist(), strict=True):
        more = " Its rows of other streams are not refused: they have predictions." if mixed else ""
        stream = ascii(part.readings.streams[row][:60].decode("utf-8", "backslashreplace"))
        details.append(
            f"{streams[int(part.numbers[row])]} keeps stream {stream} from being stepped; see the log.{more}"
        )
    refused = Rejected(
        part.records.take(np.searchsorted(part.records.offsets, offsets).tolist()),
        [Reason.INTERNAL] * len(offsets),
        details,
    )
    return replace(
        part,
        readings=select(part.readings, others),
        numbers=part.numbers[others],
        rejected=_joined(part.rejected, refused),
    )


def _joined(some: Rejected, more: Rejected) -> Rejected:
    """Both, in order of offsets; a record that is in both comes once."""
    if not len(some):
        return more
    new = ~np.isin(more.records.offsets, some.records.offsets)
    offsets = np.concatenate([some.records.offsets, more.records.offsets[new]])
    chosen = [(some, row) for row in range(len(some))] + [(more, row) for row in np.flatnonzero(new).tolist()]
    order = np.argsort(offsets, kind="stable")
    chosen = [chosen[i] for i in order.tolist()]
    stamps = np.array([one.records.timestamps_ms[row] for one, row in chosen], np.int64)
    records = replace(
        some.records,
        offsets=offsets[order],
        timestamps_ms=stamps,
        keys=[one.records.keys[row] for one, row in chosen],
        values=[one.records.values[row] for one, row in chosen],
        headers={i: one.records.headers[row] for i, (one, row) in enumerate(chosen) if row in one.records.headers},
    )
    reasons, details = [one.reasons[row] for one, row in chosen], [one.details[row] for one, row in chosen]
    return Rejected(records, reasons, details, some.faults)
