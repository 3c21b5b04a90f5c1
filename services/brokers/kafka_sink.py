"""The one place that writes to Kafka: `ports.Sink` on kafka-python. An epoch is one transaction.

    prepare   encode every record; what cannot be written is refused before anything is begun
    begin     the transaction opens with its first record
    append    whole batches, one future each; every future is checked
    offsets   under the group, in the same transaction
    commit    and read the group's offsets back: the client can report a commit that never happened

Whoever fences signs the group's offsets, and so does every commit, with a number of its own: so a kept commit is told
from a dropped one even where offsets stay where they are. The ids of the topics stand beside it (ADR 26). A producer
that has lost its connection may have been replaced meanwhile; initialising its id again would shut out the new owner.
So who has signed is looked at first.

After any error the producer is never used again: its leftovers would get into the next transaction. `settle` makes a
new one, whose initialisation aborts or completes what the old one left, and reads what is true.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from kafka import TopicPartition

from services.brokers import kafka_append, kafka_group, kafka_rejected, kafka_topics
from services.brokers.kafka_append import PartitionAppend
from services.brokers.kafka_connect import ANSWER_MS, asked, drop, is_fenced, meaning, open_producer
from services.brokers.kafka_encode import HEAD_BYTES, RECORD_BYTES
from services.brokers.kafka_group import CommittedOffset, Group, offsets_of
from services.brokers.kafka_options import Options
from services.brokers.kafka_producer import Producer
from services.brokers.watchdog import Expire, Watchdog, end_process
from services.predictor import topic_ids
from services.predictor.ports import Fenced, Forgotten, Refused, Retriable
from services.records import Commit, Encoded, Role, TopicIds

log = logging.getLogger(__name__)

Delivery = Literal["exactly_once", "at_least_once"]

KEY_BYTES = 256
SLACK_S = 5.0
"""The watchdog waits so much longer than Kafka's transaction timeout: by then the transaction has ended by itself."""


class KafkaSink:
    """See ports.Sink.

    topics: name of every role's topic; `partitions` are the shard's, the same in each.
    timeout_s: Kafka's transaction timeout. A commit that takes much longer ends the process through `on_expiry`, as the
        client library may never return.
    server, incarnation: who signs. The first incarnation of a server takes over from whoever is there when it looks for
        the first time; later ones, and `settle`, only from their own server's earlier ones.
    bulk: None: whole batches if the client library allows it, else record by record.
    anew: the topics may be others than those that the group's offsets are of.
    """

    def __init__(
        self,
        options: Options,
        *,
        group: str,
        transactional_id: str,
        topics: Mapping[Role, str],
        partitions: Sequence[int],
        delivery: Delivery = "exactly_once",
        timeout_s: float = 30.0,
        server: str = "",
        incarnation: int = 0,
        bulk: bool | None = None,
        anew: bool = False,
        on_expiry: Expire = end_process,
    ) -> None:
        self._options, self._topics = options, dict(topics)
        self._transactional_id = transactional_id if delivery == "exactly_once" else None
        self._tps = {partition: TopicPartition(topics[Role.READINGS], partition) for partition in partitions}
        self._timeouts_ms, self._bulk = _timeouts_ms(timeout_s, options), bulk
        self._anew = anew
        self._timeout_s = self._timeouts_ms["transaction_timeout_ms"] / 1000
        self._group = Group(options, group, self._tps, server or uuid.uuid4().hex[:12], incarnation)
        self._watchdog = Watchdog(self._timeout_s + SLACK_S, on_expiry)
        self._max_bytes: dict[str, int] = {}  # topic -> its max.message.bytes
        self._known: dict[int, CommittedOffset] = {}  # by partition, as it was last read
        self._tried = 0  # commits that were begun; numbers them
        self.signed = False
        self._producer: Producer | None = None
        self._appender: kafka_append.Appender | None = None

    @property
    def max_value_bytes(self) -> int:
        """The largest value that every output topic takes. May ask the broker: raises Retriable or Refused."""
        self._describe()
        return min(self._max_bytes.values()) - HEAD_BYTES - RECORD_BYTES - KEY_BYTES

    @property
    def topic_ids(self) -> TopicIds:
        """See ports.Sink."""
        return self._group.topic_ids

    def check_topics(self, before: TopicIds) -> None:
        """See ports.Sink."""
        topic_ids.check(before, self.topic_ids, self._topics)

    def fence(self) -> None:
        """See ports.Sink. Raises Retriable when the broker does not answer, Refused when topics are missing."""
        self._take_over(sign=True)

    def _take_over(self, sign: bool) -> None:
        self._max_bytes = {}
        self._describe()
        self._let_go()
        signatures = self._group.signatures()
        if self._transactional_id is not None:
            self._group.check(self._transactional_id, signatures)
        before = [kafka_group.topics_of(signature) for signature in signatures]
        if sign:
            self.signed = any(before)
        for ids in before if not self._anew else ():
            self.check_topics(ids)
        if sign and self._transactional_id is None:
            self._group.check_committable()
        own: dict[str, Any] = dict(self._timeouts_ms)
        doing = "opening a producer"
        if self._transactional_id is not None:
            own["transactional_id"] = self._transactional_id
            doing = f"taking over {self._transactional_id}"
        producer = open_producer(self._options, **own)
        try:
            with self._watchdog.guard(doing):
                for topic in self._max_bytes:
                    producer.partitions_for(topic)
                if self._transactional_id is not None:
                    producer.init_transactions()
                    if sign:
                        self._sign(producer)
        except Exception as error:
            drop(producer)
            raise meaning(error, self._options, doing) from error
        self._producer = producer
        self._appender = kafka_append.appender(producer, self._bulk)

    def committed(self) -> Mapping[int, int]:
        """See ports.Sink. Raises Retriable when the broker does not answer."""
        self._known = self._group.read(ANSWER_MS)
        return offsets_of(self._known)

    def ends(self) -> Mapping[int, int]:
        """See ports.Sink. Raises Retriable when the broker does not answer."""
        return self._group.ends()

    def commit(self, commit: Commit) -> None:
        """See ports.Sink. Raises Refused, before anything is written, for a record larger than its topic takes."""
        producer = self._producer
        if producer is None:
            raise RuntimeError("call fence() before commit(), and settle() after Retriable")
        if not commit.writes and dict(commit.started) == dict(commit.offsets):
            raise ValueError("a commit without writes must move an offset")
        parts = [self._prepare(encoded) for encoded in commit.writes if len(encoded)]
        # All partitions' offsets: one that is not renewed expires (offsets.retention.minutes), though it is needed.
        offsets = {**offsets_of(self._known), **commit.offsets}
        self._tried += 1
        began_s = time.monotonic()
        try:
            with self._watchdog.guard("a commit"):
                if self._transactional_id is not None:
                    self._transact(producer, parts, offsets)
                else:
                    self._write(parts, offsets)
                found = self._group.read(round(self._timeout_s * 1000))
        except Exception as error:
            raise self._failed(error, time.monotonic() - began_s) from error
        meant = self._signed(commit.offsets)
        if any(found.get(partition) != entry for partition, entry in meant.items()):
            self._let_go()
            raise Retriable(f"the commit reported success, but the group's offsets are {found}, not {meant}")
        self._known = found

    def settle(self, commit: Commit) -> bool:
        """See ports.Sink. Raises Retriable while the broker does not answer; call it again then. With at-least-once
        delivery False means only that the offsets were not moved.
        """
        self._take_over(sign=False)  # what is there is signed by us, or we leave
        found = self._group.read(ANSWER_MS)
        kept = self._is_kept(found, commit)
        if not kept and (gone := sorted(self._known.keys() - found.keys())):
            raise Forgotten(
                f"the offsets of group {self._group.name} have expired or were deleted in partitions {gone}"
            )
        if not kept and not self._is_dropped(found):
            raise Fenced(f"another owner has committed: the offsets of group {self._group.name} are {found}, "
                         f"this epoch went from {dict(commit.started)} to {dict(commit.offsets)}")  # fmt: skip
        self._known = found
        return kept

    # All partitions count, also those the epoch did not touch: whoever moved one of them owned the shard meanwhile.

    def _is_kept(self, found: Mapping[int, CommittedOffset], commit: Commit) -> bool:
        whole = {**offsets_of(self._known), **commit.offsets}
        if self._transactional_id is None and dict(commit.started) != dict(commit.offsets):
            return offsets_of(found) == whole  # whoever it was that got there
        return dict(found) == self._signed(whole)

    def _is_dropped(self, found: Mapping[int, CommittedOffset]) -> bool:
        if self._transactional_id is None:
            return offsets_of(found) == offsets_of(self._known)
        return dict(found) == self._known

    def _signed(self, offsets: Mapping[int, int]) -> dict[int, CommittedOffset]:
        """What the group holds once the commit that was tried last is kept."""
        signature = self._group.signature(self._tried)
        return {partition: CommittedOffset(offset, signature) for partition, offset in offsets.items()}

    def close(self) -> None:
        """See ports.Sink. What is under way is left to the next owner's `fence`, as after a crash."""
        producer, self._producer = self._producer, None
        if producer is not None:
            drop(producer, wait_s=2.0)
        self._group.close()
        self._watchdog.close()

    # ---- owning -----------------------------------------------------------------------------------------------------

    def _sign(self, producer: Producer) -> None:
        """Commits the group's offsets as they are, under our name. Until then those before us do not know of us."""
        found = self._group.fetch(ANSWER_MS)
        if found:
            producer.begin_transaction()
            offsets = {tp.partition: offset.offset for tp, offset in found.items()}
            producer.send_offsets_to_transaction(self._group.signed(offsets, self._tried), self._group.name)
            producer.commit_transaction()

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _prepare(self, encoded: Encoded) -> PartitionAppend:
        topic = self._topics[encoded.role]
        return kafka_append.prepare(topic, encoded, self._max_bytes[topic])

    def _transact(self, producer: Producer, parts: Sequence[PartitionAppend], offsets: Mapping[int, int]) -> None:
        producer.begin_transaction()
        self._append(parts)
        producer.send_offsets_to_transaction(self._group.signed(offsets, self._tried), self._group.name)
        producer.commit_transaction()

    def _write(self, parts: Sequence[PartitionAppend], offsets: Mapping[int, int]) -> None:
        # A state row may be ahead of the offsets (a replayed reading is then recognised), never ahead of a prediction.
        states = [part for part in parts if part.encoded.role is Role.CHANGELOG]
        self._append([part for part in parts if part.encoded.role is not Role.CHANGELOG])
        self._append(states)
        self._group.commit(self._group.signed(offsets, self._tried), round(self._timeout_s * 1000))

    def _append(self, parts: Sequence[PartitionAppend]) -> None:
        assert self._appender is not None and self._producer is not None
        futures = self._appender.append(parts)
        try:
            self._producer.await_records(futures, self._timeout_s)
        except Exception as error:
            if (refused := kafka_rejected.refusal_of(futures)) is None:
                raise
            raise refused from error

    def _failed(self, error: Exception, took_s: float) -> Exception:
        """Drops the producer and names the error. Fenced only when somebody else was the cause for certain: Kafka says
        the same after it has ended a transaction that took too long.
        """
        last = getattr(getattr(self._producer, "_transaction_manager", None), "last_error", None)
        self._let_go()
        if (is_fenced(error) or is_fenced(last)) and took_s < self._timeout_s:
            return Fenced(f"{self._transactional_id} has another owner: {error}")
        meant = meaning(error, self._options, "a commit")
        return meant if isinstance(meant, Refused) else kafka_rejected.refusal(last) or meant

    def _let_go(self) -> None:
        producer, self._producer, self._appender = self._producer, None, None
        if producer is not None:
            drop(producer)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def _describe(self) -> None:
        if self._max_bytes:
            return
        # Readings last: of the topics that we write to the first that is missing is named.
        roles = (Role.PREDICTIONS, Role.CHANGELOG, Role.DEAD_LETTERS, Role.READINGS)
        found = kafka_topics.described(self._options, [self._topics[role] for role in roles], max(self._tps) + 1)
        now = {role: topic.id for role, topic in zip(roles, found, strict=True) if topic.id}
        topic_ids.check(self.topic_ids, now, self._topics)
        self._group.topic_ids = now
        self._max_bytes = {
            topic.name: topic.number("max.message.bytes", kafka_topics.MAX_MESSAGE_BYTES) for topic in found[:3]
        }


def fence_all(options: Options, transactional_ids: Iterable[str], timeout_s: float = 30.0) -> None:
    """Shuts out whoever owns these ids; their transactions are aborted, or completed if they were decided. Raises
    Retriable when the broker does not answer.
    """
    for name in transactional_ids:
        producer = open_producer(options, transactional_id=name, **_timeouts_ms(timeout_s, options))
        try:
            asked(options, f"taking over {name}", producer.init_transactions)
        finally:
            drop(producer, wait_s=2.0)


def _timeouts_ms(timeout_s: float, options: Options) -> dict[str, int]:
    """A request may fail and be tried again before a record is given up, and that before the transaction ends; unless
    `options` says otherwise.
    """

    def chosen(name: str, otherwise_ms: int) -> int:
        return int(options.get(name) or otherwise_ms)

    whole_ms = round(timeout_s * 1000)
    request_ms = chosen("request_timeout_ms", whole_ms // 3)
    delivery_ms = chosen("delivery_timeout_ms", max(whole_ms * 2 // 3, request_ms))
    transaction_ms = chosen("transaction_timeout_ms", max(whole_ms, delivery_ms))
    return {
        "request_timeout_ms": request_ms,
        "delivery_timeout_ms": delivery_ms,
        "transaction_timeout_ms": transaction_ms,
        "max_block_ms": chosen("max_block_ms", transaction_ms),
    }
