"""The loop over the partitions that one actor owns: poll, decode, batch, step, encode, commit. One epoch a batch.

    seal      a batch's predictions, state rows, dead letters and next offsets become a Commit     (a value)
    commit    the sink makes all of it visible, or none                                          (the only write)
    kept      -> the state store takes the rows; slots become clean
    dropped   -> dirty streams lose their slots; the source goes back to where the epoch started
    unsettled -> the sink finds out which of the two it was, however long the broker is away

The device's state is a working copy: after a drop it is thrown away and loaded again from the store, never undone.
With `models` the only module of this room that may import rnn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rnn.serve.build import AnyEngine
from services.codecs.readings import ReadingDecoder
from services.predictor.admission import Admission
from services.predictor.aside import Aside
from services.predictor.batcher import Batch, batches, part_of, without_folded
from services.predictor.deployed_models import DeployedModel, ModelSet
from services.predictor.epoch import Epoch, EpochContext, Stepped
from services.predictor.epoch_trace import PhaseTimer, Tracer, traced
from services.predictor.idle import Idle
from services.predictor.lag import Lag, skipped
from services.predictor.online_evaluation import OnlineEvaluator
from services.predictor.options import Notify, ShardOptions
from services.predictor.pace import Pace
from services.predictor.patience import Patience, settled
from services.predictor.portions import Portions
from services.predictor.ports import Changelog, Fenced, Sink, Source
from services.predictor.restore import Restoring
from services.predictor.slots import Slots
from services.predictor.state_store import StateStore
from services.predictor.stats import ShardStats
from services.predictor.strays import check_memories
from services.predictor.waiting import Waiting, flush_after_ms
from services.predictor.watched_streams import lit
from services.records import ModelState, Records


class Shard:
    """One shard. `start`, then `turn` again and again; raises Fenced or Refused when it must leave."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        changelog: Changelog,
        champion: DeployedModel,
        decoder: ReadingDecoder,
        origin: EpochContext,
        partitions: Sequence[int],
        options: ShardOptions | None = None,
        *,
        challenger: DeployedModel | None = None,
        share: float = 1.0,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        steady_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        pause: Callable[[float], object] = time.sleep,
        notify: Notify = lambda event, **fields: None,
        tracer: Tracer | None = None,
    ) -> None:
        self.sink, self.changelog, self.decoder = sink, changelog, decoder
        self.source, decoder.progress = Portions(source, decoder.weigh), self._alive
        self.partitions = tuple(partitions)
        self._origin, self._clock_ms, self._steady_ms, self._notify = origin, clock_ms, steady_ms, notify
        self.options = options or ShardOptions()
        self.pace = Pace(self.options.max_readings, self.options.epoch_s)
        self.store = StateStore()
        self.models = ModelSet(champion, self.store, self.options.recent)
        self.slots = Slots(self.engine.table.slots)
        self.admission = Admission(self.store, self.options.max_streams, notify)
        self.idle = Idle(self.store, self.options.ttl_ms)
        self.waiting = Waiting(self.store, flush_after_ms(self.engine.config, self.options.flush_after_ms))
        self.stats = ShardStats(slots=self.slots.capacity)
        self.aside = Aside(self.store, self.slots, self.models, self.stats, notify, self._alive)
        self.outcomes = OnlineEvaluator(self.partitions[0] if self.partitions else 0, self.models, self.options.shards)
        self.deploy(champion, challenger, share)
        self._patiently = Patience(pause, notify, self._progress)
        self.position: dict[int, int] = {}  # partition -> first offset not yet folded in by a kept epoch
        self._signed_ms: int | None = None  # when the offsets of all partitions were committed; None: they are due
        self._first: Mapping[int, int] = {}  # partition -> offset with which the changelog's begins
        self._committed: dict[int, int] = {}  # partition -> the group's offset; behind the position after retention
        self._lag, self._phase = Lag(), PhaseTimer(self.stats, tracer)
        self.spotlight = lit(self.options.spotlight, self.engine.config, self.store, self.outcomes.watches, notify)

    @property
    def engine(self) -> AnyEngine:
        """The champion's."""
        return self.models.champion.engine

    def deploy(self, champion: DeployedModel, challenger: DeployedModel | None, share: float = 1.0) -> None:
        """Who steps the streams from now on; the challenger takes on a `share` of them. Between two turns only: an
        epoch has one champion, whom its predictions name. Both must read and answer the same, and have as many slots
        as the shard.
        """
        began = time.perf_counter()
        swapped = champion is not self.models.champion
        self.models.change(champion, challenger, share)
        for deployed in self.models.all():
            deployed.tell(self._alive)
        self.outcomes.change()
        if swapped:
            self.stats.swap_s.observe(time.perf_counter() - began)
        self.origin = replace(self._origin, model=champion.model, spelling=champion.spelling)
        self.stats.model = champion.model
        self.stats.challenger = "" if challenger is None else challenger.model

    # ---- start ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fence, restore, check, seek: in this order. Raises Refused when state and offsets disagree."""
        self._patiently(self.sink.fence)
        began = time.monotonic()
        start = Restoring(
            self.changelog, self.sink, self.store, self.models.wanted(), self.aside, self._patiently, self.options
        )
        for records, done in start.of(self.partitions):
            self.stats.restored, self.stats.restore_done = self.stats.restored + records, done
            self._progress()
        self.stats.restore_done, self.stats.restore_s = 1.0, time.monotonic() - began
        self.stats.live_streams = self.store.live
        check_memories(self.store, self.aside, self.origin.model, self.models.recent is not None)
        committed, beginning = self._patiently(self.sink.committed), self._patiently(self.source.beginning)
        stand = start.stand(committed, beginning, self._notify)
        self._committed, self.position, self._first = dict(stand.committed), dict(stand.position), stand.first
        self._signed_ms = None if stand.unsigned else self._clock_ms()
        self.stats.lost += stand.lost
        self.source.seek(self.position)
        self.waiting.start(self._steady_ms())
        self.stats.ready = True
        self._progress()
        self._notify("ready", streams=self.stats.live_streams, seconds=round(self.stats.restore_s, 3),
                     offsets=dict(self.position))  # fmt: skip

    # ---- run --------------------------------------------------------------------------------------------------------

    def turn(self) -> int:
        """One poll, and the epochs that come of it and of streams that fell silent. Returns how many records came."""
        began = time.perf_counter()
        polled = self.source.poll(self.pace.readings, self.options.poll_s)
        self.stats.lost += skipped(self.source.overtaken(), self.position, self._notify)
        if polled:
            self._phase("poll", began)
            self._take(polled)
        self.stats.lag, self.stats.unreadable = dict(self.source.lag()), dict(self.source.unreadable)
        self.stats.lag_s = self._lag.see(polled, self.stats.lag, self._clock_ms())
        self._flush()
        self._renew()
        self._progress()
        return sum(map(len, polled))

    def _take(self, polled: Sequence[Records]) -> None:
        began = time.perf_counter()
        self.idle.read(polled, self._clock_ms())
        parts = []
        for records in polled:
            readings, rejected = self.admission.admitted(records, *self.decoder.decode(records))
            self.aside.decoded(rejected)
            part = self.aside.part(part_of(records, readings, rejected, self._committed[records.partition], self.store))
            if not self.options.exactly_once:
                fresh = without_folded(part, self.store)
                self.stats.replayed += len(part.numbers) - len(fresh.numbers)
                part = fresh
            parts.append(part)
            self._alive()
        self._phase("decode", began)
        busy = np.concatenate([part.numbers for part in parts])  # none of them is idle, whichever epoch it falls into
        # After a drop the source went back; what was left of the poll will be polled again.
        if all(self._epoch(batch, busy) for batch in batches(parts, self.slots.capacity)):
            self.store.forget(self.aside.never_kept(busy))

    def _epoch(self, batch: Batch, busy: NDArray[np.int64]) -> bool:
        now_ms, began = self._clock_ms(), time.perf_counter()
        batch, epoch, (numbers, offsets, memories, said) = self.aside.stepped(
            batch, lambda some: Epoch(some, self.origin, now_ms), self._step
        )
        if batch.readings:
            self.pace.took(batch.readings, time.perf_counter() - began)
        began = time.perf_counter()
        # Tombstones ride on an epoch with readings, so that its offsets tell a kept commit from a dropped one.
        ended = self.waiting.without(self.idle.found(self.source.lag, busy, self.options.max_readings))
        epoch.add_tombstones(self.store, ended)
        if not self._close(epoch, numbers, offsets, memories, began):
            return False
        if self.spotlight is not None:
            self.spotlight.forget(ended)
        self.slots.forget(ended)
        self.store.forget(ended)
        self.waiting.stepped(numbers, self._steady_ms())
        if said is not None:
            self.outcomes.kept(batch.numbers(), said.x, said.champion, said.challenger, said.held)
            if self.spotlight is not None:
                self.spotlight.kept(batch, said.x, said.champion)
        self.outcomes.forget(ended)
        self._count(batch, epoch, len(ended))
        self._alive()
        return True

    def _count(self, batch: Batch, epoch: Epoch, ended: int) -> None:
        stats = self.stats
        stats.count(batch, epoch.flags, self._clock_ms())
        stats.evictions |= {"spilled": self.slots.evicted, "idle": stats.evictions["idle"] + ended}
        stats.live_streams, stats.streams_used = self.store.live, self.admission.used
        stats.slots_used, stats.brought_over = self.slots.used, self.models.warmed
        self.outcomes.show(stats)

    def _flush(self) -> None:
        """Sends what waits in streams that fell silent, in epochs without readings: offsets stay where they are."""
        most = min(self.slots.capacity, self.options.max_readings)
        for silent in self.waiting.silent(self.stats.lag, self._steady_ms(), most):
            began = time.perf_counter()
            numbers, epoch, (changed, offsets, memories, _) = self.aside.flushed(
                silent, lambda: Epoch(Batch(()), self.origin, self._clock_ms()), self._said_at_last
            )
            if not len(changed):
                self.slots.kept()  # nothing was waiting, nothing has changed
            elif not self._close(epoch, changed, offsets, memories, began):
                return
            self.stats.flushed += len(epoch.flags)
            self.stats.count_predictions(epoch.flags)
            self.waiting.stepped(silent, self._steady_ms())  # what was set aside is tried again after as long a silence
            self.waiting.flushed(numbers)

    def _renew(self) -> None:
        """Commits where it stands, before Kafka forgets an owner that has nothing else to commit."""
        now_ms, nobody = self._clock_ms(), np.zeros(0, np.int64)
        if self.options.is_to_sign(self._signed_ms, now_ms):
            self._close(Epoch(Batch(()), self.origin, now_ms), nobody, nobody, [], time.perf_counter())

    def _close(
        self,
        epoch: Epoch,
        numbers: NDArray[np.int64],
        offsets: NDArray[np.int64],
        memories: list[ModelState],
        began: float,
    ) -> bool:
        """Seals and commits the epoch that gave streams [k] new rows. False: nothing of it happened."""
        seen_ms = self.idle.seen_ms(numbers) if epoch.batch.parts else self.store.seen_ms[numbers]
        epoch.add_states(self.store, numbers, offsets, seen_ms, memories)
        if signs := self.options.is_to_sign(self._signed_ms, epoch.now_ms):
            epoch.add_still(self._committed)
        commit = epoch.seal(self.sink.topic_ids, self._first)
        self._phase("encode", began)
        began = time.perf_counter()
        kept = settled(self.sink, commit, self._patiently, self.stats, self._notify)
        self._phase("commit", began)
        self.stats.count_epoch(kept, self._clock_ms())
        if self._phase.tracer is not None:
            self._phase.tracer(traced(self.stats, self._phase, epoch, commit, kept))
        if not kept:
            self.slots.dropped()
            self.source.seek({partition: self.position[partition] for partition in self.partitions})
            return False
        self.store.keep(numbers, offsets, seen_ms, memories)
        self.slots.kept()
        self.position.update({part.partition: part.next_offset for part in epoch.batch.parts})
        self._committed.update(commit.offsets)
        self._signed_ms = epoch.now_ms if signs else self._signed_ms
        return True

    def _placed(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of distinct streams [k], which hold their states then."""
        placed = self.slots.place(numbers)
        self.models.place(placed, numbers)
        return placed.slots

    def _step(self, batch: Batch, epoch: Epoch) -> Stepped:
        """Steps all readings."""
        if not batch.readings:
            return Stepped(np.zeros(0, np.int64), np.zeros(0, np.int64), [], None)
        began = time.perf_counter()
        numbers, which = np.unique(batch.numbers(), return_inverse=True)
        slots = self._placed(numbers)
        offsets = np.empty(len(numbers), np.int64)
        offsets[which] = batch.column("offsets")  # repeated indices: the last one, which is the stream's newest, stays
        self._phase("batch", began)
        began = time.perf_counter()
        said = self.models.run(slots[which], batch, numbers[which])
        memories = self.models.memories(slots)
        self._phase("forward", began)
        began = time.perf_counter()
        epoch.add_predictions(said.champion, said.surprised)
        self._phase("encode", began)
        return Stepped(numbers, offsets, memories, said)

    def _said_at_last(self, numbers: NDArray[np.int64], epoch: Epoch) -> Stepped:
        """Says what waits in streams [k]."""
        slots = self._placed(numbers)
        result = self.engine.flush(slots)
        assert result.of is not None
        epoch.add_flushed(result, self.store, numbers, self._committed)
        changed = np.unique(result.of)
        its, memories = numbers[changed], self.models.memories(slots[changed])
        return Stepped(its, self.store.offsets[its], memories, None)

    # ---- end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets go of the adapters. Nothing is committed: between turns there is nothing to commit."""
        for port in (self.source, self.changelog, self.sink):
            with suppress(Fenced):
                port.close()

    def _progress(self) -> None:
        self._alive()
        self.stats.away_s = self._patiently.away_s(self.source)

    def _alive(self) -> None:
        """Called between any two things that take long: who does not call it for too long is replaced."""
        self.stats.beats += 1
        self.stats.last_progress_s = self._clock_ms() / 1000
