"""Readings from Kafka for the shard's partitions: `ports.Source` on kafka-python.

Partitions are assigned, never subscribed to; offsets are the caller's business. While the broker is away `poll` gives
nothing, and the client reconnects by itself.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from services.brokers import kafka_fetch
from services.brokers.kafka_apart import OffsetsGone, name_partitions
from services.brokers.kafka_connect import (
    ANSWER_MS,
    Misfit,
    asked,
    check_partitions,
    close_consumer,
    is_connected,
    meaning,
    open_consumer,
    refused_login,
)
from services.brokers.kafka_fetch import Unreadable
from services.brokers.kafka_merged import merged
from services.brokers.kafka_options import Options, brokers
from services.predictor.ports import Refused, Retriable
from services.records import Records

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""After this a partition that could not be read is tried again, for somebody may have mended it."""

SILENT_S = 1.0
"""A client without a connection for so long is told about: right after it was opened it has none yet."""


class KafkaSource:
    """See ports.Source. `columnar` None: the fast way if the client library allows it, else record objects.

    A poll holds about `max_poll_bytes` of unpacked records at most, and as much again of the batch that is its last; a
    batch that is larger comes as one record that says so.

    `notify(event, **fields)` hears once when the broker goes away and once when it is back, and of such batches.
    spares: a partition whose next record batch cannot be read is set aside and tried again every AGAIN_S, and the
        others are read on; nothing of it is skipped. Where retention has overtaken a partition it is read on from its
        beginning, which `overtaken` says. Otherwise `poll` raises Refused.
    """

    def __init__(
        self,
        options: Options,
        topic: str,
        partitions: Sequence[int],
        *,
        columnar: bool | None = None,
        max_poll_bytes: int = sys.maxsize,
        notify: Callable[..., None] | None = None,
        spares: bool = False,
    ) -> None:
        self._options, self._topic, self._spares = options, topic, spares
        self._tps = {partition: TopicPartition(topic, partition) for partition in partitions}
        self._columnar, self._room = columnar, kafka_fetch.PollBudget(max_poll_bytes)
        self._notify = notify or _log_event
        self._consumer: KafkaConsumer | None = None
        self._wanted: dict[int, int | None] = {}  # partition -> where to go before the next fetch; None: its beginning
        self._next: dict[int, int] = {}  # partition -> offset after the last record given out
        self._held: dict[int, Records] = {}  # partition -> records fetched but not given out
        self._ends: dict[int, int] = {}  # partition -> end when the consumer was opened
        self._seen_s = time.monotonic()  # when the broker was last known to be there
        self._said: set[str] = set()  # why it is away, as far as that was told
        self.away_since_s: float | None = None
        """Monotonic clock when the broker was first found away; None: it answers."""
        self._broken: Refused | None = None
        self.unreadable: dict[int, str] = {}
        """Partition that is set aside -> why."""
        self.overtaken: dict[int, int] = {}
        """Partition whose next readings retention has deleted -> where reading went on; who takes it in clears it."""
        self._again_s: dict[int, float] = {}  # partition that is paused -> monotonic, when to try it again

    def beginning(self) -> Mapping[int, int]:
        """See ports.Source. Raises Retriable while the broker does not answer."""
        consumer = self._opened()
        doing = f"looking for the start of {self._topic}"
        first = asked(self._options, doing, consumer.beginning_offsets, self._all(), timeout_ms=ANSWER_MS)
        return {tp.partition: offset for tp, offset in first.items()}

    def seek(self, offsets: Mapping[int, int]) -> None:
        """See ports.Source."""
        for partition, offset in offsets.items():
            self._next[partition] = self._wanted[partition] = offset
            self._held.pop(partition, None)

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        """See ports.Source. Partitions that were never sought start at their beginning. Raises Refused for a missing
        topic, malformed records, and an offset that cannot be read any more.
        """
        if self._broken is not None:
            raise self._broken
        if self._held:
            return self._given(self._held, max_records)
        until_s = time.monotonic() + timeout_s
        try:
            consumer = self._opened()
            self._go_to_wanted(consumer)
            self._try_again(consumer)
            timeout_ms = max(0, round((until_s - time.monotonic()) * 1000))
            self._room.renew()
            fetched = consumer.poll(timeout_ms, max_records=max_records)
        except Exception as error:
            raised = self._meaning(error)
            if self._spares and (
                isinstance(raised, Unreadable) or (isinstance(raised, OffsetsGone) and raised.partitions)
            ):
                self._set_apart(raised)
                return []
            if not isinstance(raised, Retriable):
                self._broken = raised if isinstance(raised, Refused) else None
                raise raised from error
            self._away(raised)
            if isinstance(raised, Misfit):
                self.close()
            time.sleep(max(0.0, until_s - time.monotonic()))
            return []
        if fetched or is_connected(consumer):
            self._answered()
        elif time.monotonic() - self._seen_s > SILENT_S:
            self._silent()
        for tp in fetched:
            self._readable(tp.partition)
        polled = {tp.partition: merged(tp.partition, chunks) for tp, chunks in fetched.items()}
        for partition, records in polled.items():
            for row in records.begins:  # of single records there may be thousands; they are counted
                self._notify("batch_refused", partition=partition, error=records.refused[row][1])
        return self._given(polled, max_records)

    def lag(self) -> Mapping[int, int]:
        """See ports.Source. Transaction markers and aborted records count until they are passed."""
        lags = {}
        for partition, tp in self._tps.items():
            end = self._ends.get(partition, 0)
            position: int | None = self._next.get(partition)
            if self._consumer is not None:
                end = max(end, self._consumer.highwater(tp) or 0)
                if partition not in self._wanted and partition not in self._held:
                    position = self._consumer.position(tp, timeout_ms=0)
            lags[partition] = max(0, end - (position or 0))
        return lags

    def close(self) -> None:
        """See ports.Source."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            close_consumer(consumer)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _all(self) -> list[TopicPartition]:
        return list(self._tps.values())

    def _opened(self) -> KafkaConsumer:
        if self._consumer is not None:
            return self._consumer
        consumer = open_consumer(self._options)
        try:
            check_partitions(self._options, consumer, self._topic, self._tps)
            consumer.assign(self._all())
            name_partitions(consumer)
            if self._columnar is not False and (why := kafka_fetch.install(consumer, self._room)):
                log.warning("readings are fetched one by one, about 5 times slower: %s", why)
            doing = f"looking for the end of {self._topic}"
            ends = asked(self._options, doing, consumer.end_offsets, self._all(), timeout_ms=ANSWER_MS)
        except BaseException:
            close_consumer(consumer)
            raise
        self._ends = {tp.partition: offset for tp, offset in ends.items()}
        self._wanted = {partition: self._next.get(partition) for partition in self._tps}
        self._consumer = consumer
        return consumer

    def _go_to_wanted(self, consumer: KafkaConsumer) -> None:
        if not self._wanted:
            return
        if None in self._wanted.values():
            first = self.beginning()
            self._wanted = {partition: first[partition] if offset is None else offset
                            for partition, offset in self._wanted.items()}  # fmt: skip
        for partition, offset in self._wanted.items():
            consumer.seek(self._tps[partition], offset)
        self._next.update({partition: offset for partition, offset in self._wanted.items() if offset is not None})
        self._wanted = {}

    def _set_apart(self, why: Unreadable | OffsetsGone) -> None:
        """The other partitions are read on, whatever has become of this one."""
        if isinstance(why, Unreadable):
            self._set_aside(why.partition, str(why))
            return
        try:
            first = self.beginning()
        except Retriable as error:
            self._away(error)  # the next poll finds the same
            return
        for partition in why.partitions:
            at = self._next[partition]
            self._wanted[partition] = self._next[partition] = max(at, first[partition])
            if at < first[partition]:
                self.overtaken[partition] = first[partition]
                self._readable(partition)
            else:
                self._set_aside(partition, str(why))

    def _set_aside(self, partition: int, why: str) -> None:
        assert self._consumer is not None
        tp = self._tps[partition]
        self._consumer.pause(tp)
        self._again_s[partition] = time.monotonic() + AGAIN_S
        with suppress(Retriable):  # nothing is fetched of it now that would tell its end
            doing = f"looking for the end of {self._topic}"
            self._ends |= {
                partition: asked(self._options, doing, self._consumer.end_offsets, [tp], timeout_ms=ANSWER_MS)[tp]
            }
        if self.unreadable.get(partition) != why:
            self.unreadable[partition] = why
            self._notify("partition_set_aside", partition=partition, error=why, retry_s=AGAIN_S)

    def _try_again(self, consumer: KafkaConsumer) -> None:
        now_s = time.monotonic()
        for partition in [one for one, due_s in self._again_s.items() if now_s >= due_s]:
            del self._again_s[partition]
            consumer.resume(self._tps[partition])

    def _readable(self, partition: int) -> None:
        if self.unreadable.pop(partition, None) is not None:
            self._notify("partition_readable", partition=partition)

    def _given(self, available: Mapping[int, Records], max_records: int) -> list[Records]:
        polled: list[Records] = []
        held: dict[int, Records] = {}
        room = max_records
        for partition, records in available.items():
            part = records.rows(0, room)
            if len(part) < len(records):
                held[partition] = records.rows(len(part), len(records))
            if len(part):
                self._next[partition] = int(part.offsets[-1]) + 1
                polled.append(part)
                room -= len(part)
        self._held = held
        return polled

    def _meaning(self, error: Exception) -> Exception:
        if isinstance(error, kafka_errors.OffsetOutOfRangeError | kafka_errors.LogTruncationError):
            return OffsetsGone(self._topic, error)
        if isinstance(error, kafka_errors.CorruptRecordError | UnicodeDecodeError):
            return Refused(f"topic {self._topic}: a record batch is malformed: {error}")
        return meaning(error, self._options, f"reading {self._topic}")

    def _silent(self) -> None:
        """No broker is connected. Hazard: a consumer that has lost all of them may connect again and yet never fetch,
        so the next poll opens another.
        """
        silent = Retriable(f"Kafka at {brokers(self._options)} does not answer")
        self._away(refused_login(self._options) or silent)
        self.close()

    def _away(self, why: Retriable) -> None:
        """Tells it once, and each misfit once: that a login is refused shows only after a while of silence."""
        first = self.away_since_s is None
        if first:
            self.away_since_s = time.monotonic()
            self._said = set()
        if first or (isinstance(why, Misfit) and str(why) not in self._said):
            self._said.add(str(why))
            self._notify("broker_away", error=str(why))

    def _answered(self) -> None:
        self._seen_s = time.monotonic()
        if self.away_since_s is not None:
            self._notify("broker_back", away_s=round(self._seen_s - self.away_since_s, 1))
            self.away_since_s = None


def _log_event(event: str, **fields: Any) -> None:
    log.warning("%s %s", event, fields)
