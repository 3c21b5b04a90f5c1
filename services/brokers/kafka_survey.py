"""What a Kafka says of itself to whoever only looks: brokers, version, rights, clock, offsets. kafka-python lives here.

Nothing is written, and nothing comes into being by asking: a group is asked for only where groups have been used, for
the question would make Kafka's internal topic of offsets. Failures become the ports' errors, as everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec

from services.brokers.kafka_connect import asked, open_admin
from services.brokers.kafka_options import Options

OFFSETS = "__consumer_offsets"
Rights = frozenset[str]
"""Operations that this user may do on a resource, by Kafka's names: READ, WRITE, DESCRIBE, ..."""


@dataclass(frozen=True, slots=True)
class Broker:
    """One of the cluster's brokers, at the address that it tells its clients."""

    number: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as one of its brokers describes it."""

    name: str
    brokers: Sequence[Broker]
    version: tuple[int, ...]  # whose requests the brokers know: of the oldest one
    rights: Rights | None  # on the cluster; None: it does not say
    settings: Mapping[str, str] = field(default_factory=dict)  # of one broker; empty where this user may not see them


@dataclass(frozen=True, slots=True)
class Span:
    """What a partition holds: offsets [first, end), and the time of its newest record; -1 where there is none."""

    first: int
    end: int
    newest_ms: int


@dataclass(frozen=True, slots=True)
class Skew:
    """How far this machine's clock is ahead of the cluster's, known to within `error_ms`."""

    ahead_ms: float
    error_ms: float


def cluster(options: Options) -> Cluster:
    """The cluster behind the bootstrap servers. Raises Retriable when it does not answer, Refused when it will not."""
    with open_admin(options) as admin:
        found = asked(options, "describing the cluster", admin.describe_cluster)
        brokers = [Broker(one["broker_id"], one["host"], one["port"]) for one in found["brokers"]]
        versions = []
        for broker in brokers:
            with suppress(Exception):  # one that cannot be reached is found by whoever connects to each of them
                versions.append(admin.get_broker_version_data(broker.number).broker_version)
        settings = broker_settings(admin, brokers[0].number) if brokers else {}
        rights = found.get("authorized_operations")
        return Cluster(
            str(found["cluster_id"]),
            brokers,
            min(versions, default=()),
            None if rights is None else frozenset(rights),
            settings,
        )


def broker_settings(admin: KafkaAdminClient, number: int) -> dict[str, str]:
    """Settings of one broker; empty where this user may not see them."""
    resource = ConfigResource(ConfigResourceType.BROKER, str(number))
    try:
        found = admin.describe_configs([resource], config_filter="all")["broker"][str(number)]
    except Exception:
        return {}
    return {name: str(entry["value"]) for name, entry in found.items()}


def topic_rights(options: Options, topics: Sequence[str]) -> dict[str, Rights]:
    """What this user may do with each topic that is there; none where Kafka does not say."""
    with open_admin(options) as admin:
        found = asked(options, "asking for rights", admin.describe_topics, list(topics))
    return {
        topic["name"]: frozenset(topic["authorized_operations"] or ())
        for topic in found
        if not topic["error_code"] and topic["partitions"]
    }


def group_rights(options: Options, group: str) -> Rights | None:
    """What this user may do with a consumer group; None where no group has ever been used, or Kafka does not say."""
    with open_admin(options) as admin:
        if not _groups_are_used(options, admin):
            return None
        found = asked(options, f"asking for rights on group {group}", admin.describe_groups, [group])[group]
    denied = "GroupAuthorization" in str(found.get("error") or "")
    rights = found.get("authorized_operations")
    return frozenset() if denied else None if rights is None else frozenset(rights)


def skew(options: Options, clock_s: Callable[[], float] = time.time) -> Skew | None:
    """This machine's clock beside that of the cluster's active controller, which stamps the time of an answer into what
    it says of itself. Known to within half of the time that question and answer take. None where it cannot be asked:
    before Kafka 3.3, with ZooKeeper, or without the right DESCRIBE on the cluster.
    """
    with open_admin(options) as admin:
        best: Skew | None = None
        for _ in range(3):  # the first question pays for the connection; the quickest one knows best
            asked_s = clock_s()
            try:
                found = admin.describe_metadata_quorum()
            except kafka_errors.KafkaError:
                return best
            answered_s = clock_s()
            stamp_ms = _stamp_ms(found)
            if stamp_ms <= 0:
                return best
            middle_ms, error_ms = 500 * (asked_s + answered_s), 500 * (answered_s - asked_s)
            if best is None or error_ms < best.error_ms:
                best = Skew(middle_ms - stamp_ms, error_ms)
        return best


def _stamp_ms(quorum: Mapping[str, Any]) -> int:
    """Of the leader among the voters, whose own entry says when it answered."""
    for topic in quorum["topics"]:
        for partition in topic["partitions"]:
            for voter in partition["current_voters"]:
                if voter["replica_id"] == partition["leader_id"]:
                    return int(voter.get("last_caught_up_timestamp", -1))
    return -1


def spans(options: Options, topic: str, partitions: int) -> dict[int, Span]:
    """What each partition of a topic holds. Raises Retriable, or Refused without the right to ask."""
    tps = [TopicPartition(topic, partition) for partition in range(partitions)]
    with open_admin(options) as admin:

        def at(spec: Any) -> Mapping[TopicPartition, Any]:
            found = asked(options, f"looking at {topic}", admin.list_partition_offsets, dict.fromkeys(tps, spec))
            return dict(found)

        first, end = at(OffsetSpec.EARLIEST), at(OffsetSpec.LATEST)
        newest: Mapping[TopicPartition, Any] = {}
        with suppress(Exception):  # since Kafka 3.0
            newest = at(OffsetSpec.MAX_TIMESTAMP)
    return {
        tp.partition: Span(first[tp].offset, end[tp].offset, newest[tp].timestamp if tp in newest else -1) for tp in tps
    }


def committed(options: Options, group: str, topic: str) -> dict[int, int]:
    """The group's next offsets of a topic; none where no group has ever committed."""
    return {partition: entry.offset for partition, entry in entries(options, group, topic).items()}


def entries(options: Options, group: str, topic: str) -> dict[int, OffsetAndMetadata]:
    """What the group holds for the partitions of a topic; nothing where no group has ever committed."""
    with open_admin(options) as admin:
        if not _groups_are_used(options, admin):
            return {}
        found = asked(options, f"reading group {group}", admin.list_group_offsets, {group: None})[group]
    return {tp.partition: one for tp, one in found.items() if tp.topic == topic and one.offset >= 0}


def _groups_are_used(options: Options, admin: KafkaAdminClient) -> bool:
    found = asked(options, "looking for groups", admin.describe_topics, [OFFSETS])
    return any(topic["partitions"] for topic in found)
