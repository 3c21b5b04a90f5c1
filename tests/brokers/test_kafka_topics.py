"""Topics on a real broker: made once, found sound, and everything that would break a promise is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from waiting import wait_for

from services.brokers import kafka_topics
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_connect import open_admin
from services.brokers.kafka_topics import TopicSpec
from services.predictor.ports import Refused, Retriable
from services.records import Role


@pytest.fixture
def options(broker: DevBroker) -> dict[str, Any]:
    return {"bootstrap_servers": broker.bootstrap}


@pytest.fixture
def wanted(topic_names: Callable[[], str]) -> TopicSpec:
    pipeline = topic_names()
    return TopicSpec({role: f"{pipeline}.{role.value}" for role in Role}, partitions=3)


def make(options: dict[str, Any], name: str, partitions: int = 3, **configs: str) -> None:
    with open_admin(options) as admin:
        named = {key.replace("_", "."): value for key, value in configs.items()}
        admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1, "configs": named}})
        admin.wait_for_topics([name])


def test_topics_are_made_once_and_found_sound(options: dict[str, Any], wanted: TopicSpec) -> None:
    assert sorted(kafka_topics.create(options, wanted)) == sorted(wanted.names.values())
    assert kafka_topics.create(options, wanted) == []
    assert kafka_topics.check(options, wanted) == []
    assert kafka_topics.partition_count(options, wanted.names) == 3
    with open_admin(options) as admin:
        names = list(wanted.names.values())
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found = admin.describe_configs(resources, config_filter="all")["topic"]
        partitions = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(names)}
    policies = {role: found[name]["cleanup.policy"]["value"] for role, name in wanted.names.items()}
    assert policies == dict.fromkeys(Role, "delete") | {Role.CHANGELOG: "compact"}
    assert set(partitions.values()) == {3}
    assert found[wanted.names[Role.PREDICTIONS]]["retention.ms"]["value"] == str(7 * 86_400_000)


def test_missing_topics_are_refused(options: dict[str, Any], wanted: TopicSpec) -> None:
    findings = kafka_topics.check(options, wanted)
    assert [finding.severity for finding in findings] == ["refuse"] * 4
    assert "streamrnn topics create" in str(findings[0])
    with pytest.raises(Refused, match="does not exist"):
        kafka_topics.partition_count(options, wanted.names)


def test_topics_beside_an_existing_readings_topic_get_its_partitions(
    options: dict[str, Any], wanted: TopicSpec
) -> None:
    make(options, wanted.names[Role.READINGS], partitions=5)
    assert len(kafka_topics.create(options, wanted)) == 3
    assert kafka_topics.check(options, wanted) == []
    assert set(kafka_topics.max_message_bytes(options, [wanted.names[Role.CHANGELOG]], 5).values()) == {4 << 20}


def grown(options: dict[str, Any], wanted: TopicSpec) -> set[str]:
    """Makes the topics and gives the readings more partitions. The outputs, which have fewer then."""
    kafka_topics.create(options, wanted)
    with open_admin(options) as admin:
        admin.create_partitions({wanted.names[Role.READINGS]: 5})
    outputs = {name for role, name in wanted.names.items() if role is not Role.READINGS}
    wait_for(lambda: short(options, wanted) == outputs, "the broker knows of the new partitions")
    return outputs


def short(options: dict[str, Any], wanted: TopicSpec) -> set[str]:
    """Topics that are refused for their partitions."""
    return {one.topic for one in kafka_topics.check(options, wanted) if one.setting == "partitions"}


def test_an_output_with_fewer_partitions_is_refused_until_create_gives_it_as_many(
    options: dict[str, Any], wanted: TopicSpec
) -> None:
    grown(options, wanted)
    kafka_topics.create(options, wanted)
    assert kafka_topics.check(options, wanted) == []


def test_create_returns_when_the_brokers_show_the_added_partitions(
    options: dict[str, Any], wanted: TopicSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = grown(options, wanted)
    shown, grow, late = KafkaAdminClient.describe_topics, KafkaAdminClient.create_partitions, [0]

    def behind(admin: KafkaAdminClient, names: list[str]) -> list[dict[str, Any]]:
        """As a broker answers that learns of partitions late."""
        found = shown(admin, names)
        if late[0]:
            late[0] -= 1
            for topic in found:
                topic["partitions"] = topic["partitions"][: 3 if topic["name"] in outputs else None]
        return found

    def growing(admin: KafkaAdminClient, *arguments: Any, **named: Any) -> Any:
        late[0] = 3
        return grow(admin, *arguments, **named)

    monkeypatch.setattr(KafkaAdminClient, "describe_topics", behind)
    monkeypatch.setattr(KafkaAdminClient, "create_partitions", growing)
    kafka_topics.create(options, wanted)
    assert short(options, wanted) == set()


@pytest.mark.parametrize(
    ("role", "partitions", "configs", "setting", "severity"),
    [
        (Role.READINGS, 2, {}, "partitions", "refuse"),
        (Role.CHANGELOG, 3, {"cleanup_policy": "delete"}, "cleanup.policy", "refuse"),
        (Role.CHANGELOG, 3, {"cleanup_policy": "compact,delete"}, "cleanup.policy", "refuse"),
        (Role.CHANGELOG, 3, {"cleanup_policy": "compact", "max_message_bytes": "2000"}, "max.message.bytes", "refuse"),
        (Role.DEAD_LETTERS, 3, {"cleanup_policy": "compact"}, "cleanup.policy", "refuse"),
        (Role.PREDICTIONS, 3, {"cleanup_policy": "compact"}, "cleanup.policy", "warn"),
        (Role.DEAD_LETTERS, 3, {"max_message_bytes": "1048588"}, "max.message.bytes", "warn"),
        (Role.PREDICTIONS, 3, {"min_insync_replicas": "2"}, "min.insync.replicas", "refuse"),
        (Role.PREDICTIONS, 3, {"message_timestamp_type": "LogAppendTime"}, "message.timestamp.type", "warn"),
        (Role.READINGS, 3, {"retention_ms": "60000"}, "retention.ms", "warn"),
    ],
)
def test_what_is_wrong_is_named_with_setting_and_fix(
    options: dict[str, Any],
    wanted: TopicSpec,
    role: Role,
    partitions: int,
    configs: dict[str, str],
    setting: str,
    severity: str,
) -> None:
    others = {Role.READINGS, Role.CHANGELOG} - {role}  # made first, or the others would follow the readings' partitions
    for other in others:
        policy = "compact" if other is Role.CHANGELOG else "delete"
        make(options, wanted.names[other], cleanup_policy=policy, max_message_bytes="1048588")
    make(options, wanted.names[role], partitions, **configs)
    kafka_topics.create(options, wanted)
    findings = kafka_topics.check(options, kafka_topics.with_row_bytes(wanted, 1800))
    found = [finding for finding in findings if finding.topic == wanted.names[role] and finding.setting == setting]
    assert [finding.severity for finding in found] == [severity], findings
    assert setting in str(found[0])
    assert found[0].fix in str(found[0])


def test_fewer_partitions_than_the_shard_owns_are_refused(options: dict[str, Any], wanted: TopicSpec) -> None:
    kafka_topics.create(options, wanted)
    with pytest.raises(Refused, match="3 partitions and needs 4"):
        kafka_topics.max_message_bytes(options, [wanted.names[Role.PREDICTIONS]], 4)


def test_more_replicas_than_brokers_are_refused(options: dict[str, Any], wanted: TopicSpec) -> None:
    with pytest.raises(Refused, match="InvalidReplicationFactor"):
        kafka_topics.create(options, TopicSpec(wanted.names, 1, replication=2))


def test_a_broker_that_is_away_is_not_a_finding(wanted: TopicSpec) -> None:
    with pytest.raises(Retriable, match="does not answer"):
        kafka_topics.check({"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 300}, wanted)
