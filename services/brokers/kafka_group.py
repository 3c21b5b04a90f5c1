"""The consumer group's committed offsets: reading them, and the signatures beside them that say whose they are.

A signature is `server/incarnation/number/topics`, the number being that of the owner's commit (ADR 3 and 6), and the
last part the ids of the four topics (ADR 26). Nobody subscribes: the group has offsets and no members, and where it has
one Kafka takes offsets from members only. kafka-python lives here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from services.brokers.kafka_connect import ANSWER_MS, asked, close_consumer, open_consumer
from services.brokers.kafka_options import Options
from services.predictor import topic_ids
from services.predictor.ports import Fenced, Refused
from services.records import TopicIds

HAS_MEMBERS = (
    kafka_errors.CommitFailedError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
)
"""What Kafka answers when offsets come from outside of a group that has members, and how the library wraps it."""


class CommittedOffset(NamedTuple):
    """What the group holds for one partition."""

    offset: int  # next to read
    signature: str  # of whoever committed it; without a number in release 0.1


Found = dict[TopicPartition, OffsetAndMetadata]


class Group:
    """The offsets of some partitions of one topic, as the owner `server/incarnation` sees and signs them."""

    def __init__(
        self, options: Options, name: str, partitions: Mapping[int, TopicPartition], server: str, incarnation: int
    ) -> None:
        self.name = name
        self._options, self._partitions = options, partitions
        self._server, self._incarnation = server, incarnation
        self.topic_ids: TopicIds = {}
        """Of the topics as they are now, for signatures."""
        self._consumer: KafkaConsumer | None = None  # reads and never polls
        # (server, incarnation) of those that we may shut out: who is there when our server looks for the first time.
        self._replaced: set[tuple[str, str]] | None = None if incarnation == 0 else set()

    def consumer(self) -> KafkaConsumer:
        """The group's own; opened when it is first needed. Raises Retriable."""
        if self._consumer is None:
            self._consumer = open_consumer(self._options, group_id=self.name, retry_backoff_ms=2)
        return self._consumer

    def read(self, timeout_ms: int) -> dict[int, CommittedOffset]:
        """Entries by partition, of those that have one; waits for transactions under way. Raises Retriable."""
        found = asked(self._options, f"reading the offsets of group {self.name}", self.fetch, timeout_ms)
        return {
            partition: CommittedOffset(found[tp].offset, str(found[tp].metadata or ""))
            for partition, tp in self._partitions.items()
            if tp in found
        }

    def fetch(self, timeout_ms: int, consumer: KafkaConsumer | None = None) -> Found:
        """All offsets in one request; `committed`, which is public, asks for one partition at a time. A read-committed
        consumer, as our own is, waits for transactions under way.
        """
        consumer = consumer or self.consumer()
        fetch = getattr(getattr(consumer, "_coordinator", None), "fetch_committed_offsets", None)
        if fetch is not None:
            found: Found = fetch(list(self._partitions.values()), timeout_ms=timeout_ms)
            return found
        each = {tp: consumer.committed(tp, metadata=True, timeout_ms=timeout_ms) for tp in self._partitions.values()}
        return {tp: offset for tp, offset in each.items() if offset is not None}

    def commit(self, offsets: Found, timeout_ms: int) -> None:
        """Outside of a transaction. Raises Refused when the group has a member, the library's errors otherwise."""
        try:
            self.consumer().commit(offsets, timeout_ms=timeout_ms)
        except HAS_MEMBERS as error:
            raise Refused(
                f"Kafka takes no offsets of group {self.name}, for a consumer has joined it ({error}). End the "
                "consumer that uses this group, or give this pipeline another `group` (or `pipeline`)"
            ) from error

    def check_committable(self) -> None:
        """Commits the offsets as they are, with the signatures that they have: whoever cannot, and finds out only after
        predictions were written, writes them again with every attempt. An owner that commits at this very moment is
        set back, and what it wrote comes again, as after a crash. Raises Retriable, Refused.
        """
        doing = f"committing the offsets of group {self.name} as they are"
        if found := asked(self._options, doing, self.fetch, ANSWER_MS):
            asked(self._options, doing, self.commit, found, ANSWER_MS)

    def ends(self) -> dict[int, int]:
        """Stable end of each partition. Raises Retriable."""
        tps, doing = list(self._partitions.values()), "looking for the ends of the readings"
        found = asked(self._options, doing, self.consumer().end_offsets, tps, timeout_ms=ANSWER_MS)
        return {tp.partition: end for tp, end in found.items()}

    def signature(self, number: int) -> str:
        """Ours, under our commit of this number."""
        return f"{self._server}/{self._incarnation}/{number}/{topic_ids.spelled(self.topic_ids)}"

    def signed(self, offsets: Mapping[int, int], number: int) -> Found:
        """Offsets by partition as they are committed."""
        mine = self.signature(number)
        return {self._partitions[partition]: OffsetAndMetadata(at, mine, -1) for partition, at in offsets.items()}

    def signatures(self) -> set[str]:
        """Of all entries, without waiting for transactions under way. Raises Retriable."""
        # Read-uncommitted: else this would wait for the transaction of ours that is about to be settled.
        consumer = open_consumer(self._options, group_id=self.name, isolation_level="read_uncommitted")
        try:
            looking = f"looking who owns group {self.name}"
            found = asked(self._options, looking, self.fetch, ANSWER_MS, consumer)
        finally:
            close_consumer(consumer)
        return {str(offset.metadata or "") for offset in found.values()}

    def check(self, doing: str, signatures: set[str]) -> None:
        """Raises Fenced when another server, or a later incarnation of ours, has signed since. The first look of a
        server's first incarnation never does: whoever is there then is to be replaced, however often that is tried.
        Entries that have expired say nothing of anybody.
        """
        owners = {_owner(signature) for signature in signatures}
        if self._replaced is None:
            self._replaced = owners
        for server, incarnation in owners - self._replaced:
            if server and server != self._server:
                raise Fenced(f"{doing} has another owner: server {server} has signed the offsets")
            if server and int(incarnation) > self._incarnation:
                raise Fenced(f"{doing} has another owner: our incarnation {incarnation}")

    def close(self) -> None:
        """Never raises; the next call opens it anew."""
        if self._consumer is not None:
            close_consumer(self._consumer)
            self._consumer = None


def offsets_of(entries: Mapping[int, CommittedOffset]) -> dict[int, int]:
    """The offsets alone."""
    return {partition: entry.offset for partition, entry in entries.items()}


def topics_of(signature: str) -> TopicIds:
    """Ids of the four topics when it was written; of another's signature nothing."""
    return topic_ids.read(signature.rpartition("/")[2])


def _owner(signature: str) -> tuple[str, str]:
    """(server, incarnation) of a signature; of offsets that nobody has signed: two empty ones."""
    server, incarnation, *_ = (*signature.split("/"), "", "")
    return server, incarnation


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return "UnstableOffsetCommit" not in record.getMessage()


# Waiting for a transaction's markers is the normal course of a read-back; the library logs each look as an error.
logging.getLogger("kafka.coordinator.consumer").addFilter(_is_worth_saying)
