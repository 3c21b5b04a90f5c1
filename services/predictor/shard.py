"""The loop over the partitions that one actor owns: poll, decode, batch, step, encode, commit. One epoch a batch.

    seal      a batch's predictions, state rows, dead letters and next offsets become a Commit     (a value)
    commit    the ledger makes all of it visible, or none                                          (the only write)
    kept      -> the state store takes the rows; slots become clean
    dropped   -> dirty streams lose their slots; the source goes back to where the epoch started
    unsettled -> the ledger finds out which of the two it was, however long the broker is away

The device's state is a working copy: after a drop it is thrown away and loaded again from the store, never undone.
The only module of this room that may import rnn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rnn.engine import Engine
from services.codecs import state_rows
from services.codecs.readings import ReadingDecoder
from services.predictor.batcher import Batch, batches, part_of, without_folded
from services.predictor.epoch import Epoch, Origin
from services.predictor.ports import Changelog, Fenced, Ledger, Refused, Source, Unsettled
from services.predictor.slots import Slots
from services.predictor.state_store import NO_ROW, StateStore
from services.predictor.stats import ShardStats, add
from services.records import Commit, Flag, Records

T = TypeVar("T")

Notify = Callable[..., None]
"""`notify(event, **fields)`: something a person may want to read."""

RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits between attempts to settle, the last one for ever."""


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """What a shard may be told; see services.settings for what the numbers mean to an operator."""

    exactly_once: bool = True
    max_readings: int = 10_000  # about this many records a poll
    ttl_ms: int | None = None  # a stream silent for longer is forgotten; None = never
    poll_s: float = 0.2  # longest wait for a reading; bounds how late a stop is noticed


class Shard:
    """One shard. `start`, then `turn` again and again; raises Fenced or Refused when it must leave."""

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        changelog: Changelog,
        engine: Engine,
        decoder: ReadingDecoder,
        origin: Origin,
        partitions: Sequence[int],
        options: ShardOptions | None = None,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        pause: Callable[[float], object] = time.sleep,
        notify: Notify = lambda event, **fields: None,
    ) -> None:
        self.source, self.ledger, self.changelog = source, ledger, changelog
        self.engine, self.decoder, self.origin = engine, decoder, origin
        self.partitions = tuple(partitions)
        self.options = options or ShardOptions()
        self.store = StateStore(engine.table.row_bytes)
        self.slots = Slots(engine.table.slots)
        self.stats = ShardStats(model=origin.model, slots=engine.table.slots)
        self._clock_ms, self._pause, self._notify = clock_ms, pause, notify
        self._position: dict[int, int] = {}  # partition -> first offset not yet folded in by a kept epoch
        self._committed: dict[int, int] = {}  # partition -> the group's offset; behind the position after retention

    # ---- start ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fence, restore, check, seek: in this order. Raises Refused when state and offsets disagree."""
        self._patiently(self.ledger.fence)
        began = time.monotonic()
        for done, partition in enumerate(self.partitions):
            self._restore(partition, done)
        self.stats.restore_done, self.stats.restore_s = 1.0, time.monotonic() - began
        self.stats.live_streams = self.store.live
        committed = dict(self._patiently(self.ledger.committed))
        beginning = self._patiently(self.source.beginning)
        for partition in self.partitions:
            first = beginning[partition]
            offset = committed.get(partition, first)
            if offset < first:
                self._notify("readings_lost_to_retention", partition=partition, committed=offset, beginning=first)
                offset = first
            self._check_state(partition, committed.get(partition))
            self._position[partition] = offset
            self._committed[partition] = committed.get(partition, first)
        self.source.seek(self._position)
        self.stats.ready = True
        self._progress()
        self._notify("ready", streams=self.stats.live_streams, seconds=round(self.stats.restore_s, 3),
                     offsets=dict(self._position))  # fmt: skip

    def _restore(self, partition: int, done: int) -> None:
        first, end = self.changelog.span(partition)
        for records in self.changelog.read(partition):
            try:
                kept, tombstones = state_rows.decode(
                    records, self.engine.table.layout, self.origin.model, self.engine.table.row_bytes
                )
            except state_rows.StateRowRefused as error:
                raise Refused(str(error)) from error
            gone = self.store.numbers(partition, tombstones) if tombstones else np.zeros(0, np.int64)
            self.store.offsets[gone] = NO_ROW
            if len(kept):
                numbers = self.store.numbers(partition, kept.streams)
                self.store.keep(numbers, kept.offsets, kept.saved_ms, kept.rows)
            self.stats.restored += len(records)
            share = (int(records.offsets[-1]) + 1 - first) / max(1, end - first)
            self.stats.restore_done = (done + share) / len(self.partitions)
            self._progress()

    def _check_state(self, partition: int, committed: int | None) -> None:
        if not self.options.exactly_once:
            return  # rows ahead of the offsets are how replayed readings are recognised
        here = (self.store.offsets != NO_ROW) & (self.store.partitions == partition)
        ahead = int(self.store.offsets[here].max(initial=NO_ROW))
        if ahead >= (committed or 0):
            raise Refused(
                f"partition {partition}: the changelog holds states up to offset {ahead}, but the group's committed "
                f"offset is {committed}. Somebody moved or deleted the group's offsets, or topics.changelog belongs to "
                "another group. Put the offsets back, or start over with a new `group` and an empty changelog topic."
            )

    # ---- run --------------------------------------------------------------------------------------------------------

    def turn(self) -> int:
        """One poll, and the epochs that come of it. Returns how many records were polled."""
        began = time.perf_counter()
        polled = self.source.poll(self.options.max_readings, self.options.poll_s)
        if polled:
            self._phase("poll", began)
            self._take(polled)
        self.stats.lag = dict(self.source.lag())
        self._progress()
        return sum(len(records) for records in polled)

    def _take(self, polled: Sequence[Records]) -> None:
        began = time.perf_counter()
        parts = []
        for records in polled:
            readings, rejected = self.decoder.decode(records)
            part = part_of(records, readings, rejected, self._committed[records.partition], self.store)
            if not self.options.exactly_once:
                fresh = without_folded(part, self.store)
                self.stats.replayed += len(part.numbers) - len(fresh.numbers)
                part = fresh
            parts.append(part)
        self._phase("decode", began)
        busy = np.concatenate([part.numbers for part in parts])  # none of them is idle, whichever epoch it falls into
        for batch in batches(parts, self.slots.capacity):
            if not self._epoch(batch, busy):
                return  # the source went back; what was left of the poll will be polled again

    def _epoch(self, batch: Batch, busy: NDArray[np.int64]) -> bool:
        now_ms = self._clock_ms()
        epoch = Epoch(batch, self.origin, now_ms)
        numbers: NDArray[np.int64] = np.zeros(0, np.int64)
        offsets, rows = np.zeros(0, np.int64), np.zeros((0, self.engine.table.row_bytes), np.uint8)
        if batch.readings:
            numbers, offsets, rows = self._step(batch, epoch)
        began = time.perf_counter()
        ended = self._ended(busy, now_ms)
        epoch.add_states(self.store, numbers, offsets, rows, self.engine.table.layout)
        epoch.add_tombstones(self.store, ended)
        commit = epoch.seal()
        self._phase("encode", began)
        began = time.perf_counter()
        kept = self._commit(commit)
        self._phase("commit", began)
        add(self.stats.epochs, "kept" if kept else "dropped", 1)
        if not kept:
            self.slots.dropped()
            self.source.seek({partition: self._position[partition] for partition in self.partitions})
            return False
        self.store.keep(numbers, offsets, now_ms, rows)
        self.slots.kept()
        self.slots.forget(ended)
        self.store.forget(ended)
        self._position.update(commit.offsets)
        self._committed.update(commit.offsets)
        self._count(batch, epoch, len(ended))
        return True

    def _step(self, batch: Batch, epoch: Epoch) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """Steps all readings; returns the dirty streams' numbers [k], last offsets [k] and new rows [k, row_bytes]."""
        began = time.perf_counter()
        numbers, which = np.unique(batch.numbers(), return_inverse=True)
        placed = self.slots.place(numbers)
        known = self.store.offsets[numbers] != NO_ROW
        load, clear = placed.fresh & known, placed.fresh & ~known
        if load.any():
            self.engine.load(placed.slots[load], self.store.rows[numbers[load]])
        if clear.any():
            self.engine.clear(placed.slots[clear])
        offsets = np.empty(len(numbers), np.int64)
        offsets[which] = batch.column("offsets")  # repeated indices: the last one, which is the stream's newest, stays
        self._phase("batch", began)
        began = time.perf_counter()
        result = self.engine.run(placed.slots[which], batch.x(), batch.column("at_ms"), batch.column("seq"))
        rows = self.engine.rows(placed.slots)
        self._phase("forward", began)
        began = time.perf_counter()
        epoch.add_predictions(result)
        self._phase("encode", began)
        return numbers, offsets, rows

    def _ended(self, busy: NDArray[np.int64], now_ms: int) -> NDArray[np.int64]:
        # Tombstones ride on an epoch with readings, so that its offsets tell a kept commit from a dropped one.
        if self.options.ttl_ms is None:
            return np.zeros(0, np.int64)
        return np.setdiff1d(self.store.idle(now_ms - self.options.ttl_ms), busy)[: self.options.max_readings]

    # ---- commit -----------------------------------------------------------------------------------------------------

    def _commit(self, commit: Commit) -> bool:
        try:
            self.ledger.commit(commit)
            return True
        except Unsettled as error:
            self._notify("unsettled", error=str(error))
        kept = self._patiently(lambda: self.ledger.settle(commit))
        self._notify("settled", kept=kept)
        return kept

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Tries until it is settled. The broker may be away for long; nothing is lost by waiting."""
        tries = 0
        while True:
            try:
                return attempt()
            except Unsettled as error:
                wait_s = RETRY_S[min(tries, len(RETRY_S) - 1)]
                tries += 1
                self._notify("broker_away", error=str(error), retry_s=wait_s)
                self._progress()
                self._pause(wait_s)

    def close(self) -> None:
        """Lets go of the adapters. Nothing is committed: between turns there is nothing to commit."""
        for port in (self.source, self.changelog, self.ledger):
            with suppress(Fenced):
                port.close()

    # ---- numbers ----------------------------------------------------------------------------------------------------

    def _count(self, batch: Batch, epoch: Epoch, ended: int) -> None:
        stats = self.stats
        stats.readings += batch.readings
        stats.predictions += batch.readings
        for part in batch.parts:
            for reason in part.rejected.reasons:
                stats.rejected[reason] = stats.rejected.get(reason, 0) + 1
        if batch.readings:
            stats.batch_rows.observe(batch.readings)
            stats.latency_s.observe((self._clock_ms() - batch.column("arrived_ms").astype(np.float64)) / 1000)
            for flag in Flag:
                add(stats.flagged, (flag.name or "").lower(), int((epoch.flags & flag.value > 0).sum()))
        stats.evictions["spilled"] = self.slots.evicted
        stats.evictions["idle"] += ended
        stats.live_streams = self.store.live
        stats.slots_used = self.slots.used

    def _phase(self, name: str, began: float) -> None:
        self.stats.phase_s[name].observe(time.perf_counter() - began)

    def _progress(self) -> None:
        self.stats.last_progress_s = self._clock_ms() / 1000
