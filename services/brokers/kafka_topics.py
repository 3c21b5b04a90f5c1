"""The four topics of a pipeline: making them, and saying which of their settings would break a promise."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from services.brokers.kafka_connect import ANSWER_MS, asked, open_admin
from services.brokers.kafka_options import Options, brokers
from services.predictor.ports import Refused, Retriable
from services.records import Role, TopicIds

MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's default of max.message.bytes; taken where this user may not read a topic's settings."""
OUTPUT_BYTES = 4 << 20
HEADER_BYTES = 4096
"""A dead letter is its record and so much more at most: the headers that say why."""
DAY_MS = 86_400_000
SHOWN_S = 0.2
"""Between two looks whether the brokers show what was made."""

Severity = Literal["refuse", "warn"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What the pipeline wants of its topics. A retention of None keeps records for ever."""

    names: Mapping[Role, str]
    partitions: int
    replication: int | None = None  # None: 3, or the number of brokers if that is less
    retention_ms: int | None = 7 * DAY_MS  # of readings and predictions
    dead_letters_retention_ms: int | None = 30 * DAY_MS
    row_bytes: int = 0  # of a state row, where the model is known


@dataclass(frozen=True, slots=True)
class Finding:
    """A topic's setting that is not what it should be. `refuse`: a promise would be broken; `warn`: worth a look."""

    topic: str
    setting: str
    found: str
    needed: str
    fix: str
    severity: Severity

    def __str__(self) -> str:
        return f"topic {self.topic}: {self.setting} is {self.found}, needed is {self.needed}; {self.fix}"


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the brokers describe it."""

    name: str
    partitions: int
    replicas: int  # of the partition that has the fewest
    settings: Mapping[str, str]
    id: str = ""  # as in records.TopicIds; empty before Kafka 2.8

    def number(self, setting: str, default: int) -> int:
        """A setting's value; the default where it could not be read."""
        return int(self.settings.get(setting, default))


def spec(settings: Any, names: Mapping[Role, str]) -> TopicSpec:
    """What a tree of settings (`services.settings.Settings`) wants."""
    topics = settings.topics
    return TopicSpec(
        names,
        topics.partitions,
        topics.replication,
        _ms(topics.retention_days),
        _ms(topics.dead_letters_retention_days),
    )


def create(options: Options, wanted: TopicSpec, tell: Callable[[str], object] = lambda line: None) -> list[str]:
    """Makes the topics that are missing and returns their names once they can be used. Of the others, outputs that have
    fewer partitions than the readings get as many; else they are left as they are. `tell` hears what is waited for.
    Raises Retriable when the broker does not answer, Refused when it will not have a topic so.
    """
    with open_admin(options) as admin:
        there = _described(options, admin, list(wanted.names.values()))
        _grow(options, admin, {role: there[name] for role, name in wanted.names.items() if name in there}, tell)
        missing = {role: name for role, name in wanted.names.items() if name not in there}
        if not missing:
            return []
        count = len(asked(options, "counting the brokers", admin.describe_cluster)["brokers"])
        replication = wanted.replication or min(3, count)
        if (
            Role.READINGS in wanted.names and Role.READINGS not in missing
        ):  # readings of partition p are answered in partition p of the other topics
            partitions = there[wanted.names[Role.READINGS]].partitions
        else:
            partitions = wanted.partitions
        shape = {"num_partitions": partitions, "replication_factor": replication}
        new = {name: {**shape, "configs": _configs(role, wanted, replication)} for role, name in missing.items()}
        made = asked(options, "making topics", admin.create_topics, new, raise_errors=False)
        for topic in made["topics"]:
            error = kafka_errors.for_code(topic["error_code"])
            if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
                raise Refused(f"topic {topic['name']} could not be made: {error.__name__}: {topic['error_message']}")
        asked(options, "waiting for new topics", admin.wait_for_topics, list(new), timeout_ms=2 * ANSWER_MS)
        return list(new)


def _grow(
    options: Options, admin: KafkaAdminClient, there: Mapping[Role, TopicDescription], tell: Callable[[str], object]
) -> None:
    """Gives outputs as many partitions as the readings have, and waits until the brokers show them. Never the readings:
    keys would go to other partitions.
    """
    if (readings := there.get(Role.READINGS)) is None:
        return
    short = [topic.name for topic in there.values() if topic.partitions < readings.partitions]
    if short:
        more = dict.fromkeys(short, readings.partitions)
        made = asked(options, "adding partitions", admin.create_partitions, more, raise_errors=False)
        for result in made.results:
            error = kafka_errors.for_code(result.error_code)
            if error is not kafka_errors.NoError:
                raise Refused(f"topic {result.name} gets no more partitions: {error.__name__}: {result.error_message}")
        tell(f"waiting until the brokers show the added partitions of {', '.join(short)} ...")
        end_s = time.monotonic() + 2 * ANSWER_MS / 1000
        while any(topic.partitions < readings.partitions for topic in existing(options, admin, short)):
            if time.monotonic() > end_s:
                raise Retriable(f"partitions were added to {', '.join(short)}, and the brokers do not show them yet")
            time.sleep(SHOWN_S)


def create_events(options: Options, name: str, replication: int | None = None) -> bool:
    """Makes the compacted topic of a pipeline's events; False: it is there. Raises as `create`."""
    with open_admin(options) as admin:
        if _described(options, admin, [name]):
            return False
        count = len(asked(options, "counting the brokers", admin.describe_cluster)["brokers"])
        shape = {"num_partitions": 1, "replication_factor": replication or min(3, count)}
        new = {name: {**shape, "configs": {"cleanup.policy": "compact"}}}
        made = asked(options, "making topics", admin.create_topics, new, raise_errors=False)
        error = kafka_errors.for_code(made["topics"][0]["error_code"])
        if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
            raise Refused(f"topic {name} could not be made: {error.__name__}: {made['topics'][0]['error_message']}")
        asked(options, "waiting for new topics", admin.wait_for_topics, [name], timeout_ms=2 * ANSWER_MS)
        return True


def check(options: Options, wanted: TopicSpec) -> list[Finding]:
    """What is wrong with the topics, refusals first. Raises Retriable when the broker does not answer."""
    with open_admin(options) as admin:
        there = _described(options, admin, list(wanted.names.values()))
        count = len(asked(options, "counting the brokers", admin.describe_cluster)["brokers"])
    findings: list[Finding] = []
    for role, name in wanted.names.items():
        if name in there:
            findings += _findings(role, there[name], there, wanted, count)
        else:
            fix = "create it with `streamrnn topics create`, or give its name under `topics`"
            findings.append(Finding(name, "existence", "missing", "present", fix, "refuse"))
    return sorted(findings, key=lambda finding: finding.severity != "refuse")


def partition_count(options: Options, names: Mapping[Role, str]) -> int:
    """Partitions of the readings. Raises Retriable when the broker does not answer, Refused when there is no topic."""
    with open_admin(options) as admin:
        return existing(options, admin, [names[Role.READINGS]])[0].partitions


def max_message_bytes(options: Options, names: Sequence[str], partitions: int) -> dict[str, int]:
    """The largest record batch that each of the topics takes. Raises as `described`."""
    return {
        topic.name: topic.number("max.message.bytes", MAX_MESSAGE_BYTES)
        for topic in described(options, names, partitions)
    }


def described(options: Options, names: Sequence[str], partitions: int) -> list[TopicDescription]:
    """The topics in the order of `names`. Raises Retriable when the broker does not answer, Refused when a topic is
    missing or has fewer than `partitions`.
    """
    with open_admin(options) as admin:
        topics = existing(options, admin, names)
    for topic in topics:
        if topic.partitions < partitions:
            raise Refused(
                f"topic {topic.name} has {topic.partitions} partitions and needs {partitions}: as many as the readings"
            )
    return topics


def there(options: Options, names: Mapping[Role, str]) -> dict[Role, TopicDescription]:
    """The topics that are there, without their settings: one small request. Raises Retriable, Refused."""
    with open_admin(options) as admin:
        found = asked(options, "looking at the topics", admin.describe_topics, list(names.values()))
    described = {topic["name"]: _bare(topic) for topic in found if not topic["error_code"] and topic["partitions"]}
    return {role: described[name] for role, name in names.items() if name in described}


def ids(options: Options, names: Mapping[Role, str]) -> TopicIds:
    """Ids of the topics that are there. Raises as `there`."""
    return {role: topic.id for role, topic in there(options, names).items() if topic.id}


def _bare(topic: Mapping[str, Any]) -> TopicDescription:
    replicas = min(len(partition["replica_nodes"]) for partition in topic["partitions"])
    return TopicDescription(topic["name"], len(topic["partitions"]), replicas, {}, _short(topic))


def _short(topic: Mapping[str, Any]) -> str:
    whole = str(topic.get("topic_id") or "").replace("-", "")
    return whole[:8] if whole.strip("0") else ""


def existing(options: Options, admin: KafkaAdminClient, names: Sequence[str]) -> list[TopicDescription]:
    """The topics in the order of `names`. Raises Refused for one that does not exist."""
    there = _described(options, admin, names)
    for name in names:
        if name not in there:
            raise Refused(
                f"topic {name} does not exist at {brokers(options)}; create it with `streamrnn topics create`, or give "
                "its name under `topics`"
            )
    return [there[name] for name in names]


def _described(options: Options, admin: KafkaAdminClient, names: Sequence[str]) -> dict[str, TopicDescription]:
    found = asked(options, "describing topics", admin.describe_topics, list(names))
    there = {}
    for topic in found:
        error = kafka_errors.for_code(topic["error_code"])
        if error is kafka_errors.NoError and topic["partitions"]:
            there[topic["name"]] = topic
        elif error not in (kafka_errors.NoError, kafka_errors.UnknownTopicOrPartitionError):
            raise Refused(f"topic {topic['name']} cannot be looked at: {error.__name__}")
    if not there:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in there]
    all_settings = asked(options, "reading topic settings", admin.describe_configs, resources, config_filter="all")
    result = {}
    for name, topic in there.items():
        settings = all_settings.get("topic", {}).get(name, {})
        values = {setting: str(found["value"]) for setting, found in settings.items()}
        result[name] = dataclasses.replace(_bare(topic), settings=values)
    return result


def _configs(role: Role, wanted: TopicSpec, replication: int) -> dict[str, str]:
    configs = {"min.insync.replicas": str(2 if replication > 2 else 1)}
    if role is Role.CHANGELOG:
        # Restoring reads the whole topic, so old rows should go soon: small segments, cleaned when a fifth is old.
        return configs | {
            "cleanup.policy": "compact",
            "segment.bytes": str(64 << 20),
            "segment.ms": str(DAY_MS // 4),
            "min.cleanable.dirty.ratio": "0.2",
            "delete.retention.ms": str(DAY_MS),
            "max.message.bytes": str(OUTPUT_BYTES),
        }
    retention_ms = wanted.dead_letters_retention_ms if role is Role.DEAD_LETTERS else wanted.retention_ms
    configs |= {"cleanup.policy": "delete", "retention.ms": str(-1 if retention_ms is None else retention_ms)}
    if role is not Role.READINGS:
        configs["max.message.bytes"] = str(OUTPUT_BYTES)
    return configs


def _findings(
    role: Role, topic: TopicDescription, there: Mapping[str, TopicDescription], wanted: TopicSpec, brokers_now: int
) -> Iterator[Finding]:
    def finding(setting: str, found: object, needed: object, fix: str, severity: Severity) -> Finding:
        return Finding(topic.name, setting, str(found), str(needed), fix, severity)

    readings = there.get(wanted.names[Role.READINGS])
    policy = topic.settings.get("cleanup.policy", "")
    limit = topic.number("max.message.bytes", MAX_MESSAGE_BYTES)
    if role is Role.READINGS and topic.partitions < wanted.partitions:
        fix = f"add partitions, or set topics.partitions: {topic.partitions}"
        yield finding("partitions", topic.partitions, f"at least {wanted.partitions}", fix, "refuse")
    if role is not Role.READINGS and readings is not None and topic.partitions < readings.partitions:
        fix = (f"run `streamrnn topics create`, which adds them: what is read from partition p of {readings.name} is "
               "answered in partition p")  # fmt: skip
        yield finding("partitions", topic.partitions, f"at least {readings.partitions}", fix, "refuse")
    if role is Role.CHANGELOG and policy not in ("compact", ""):
        fix = "set it to compact; otherwise Kafka deletes the states of streams that have been silent for a while"
        yield finding("cleanup.policy", policy, "compact", fix, "refuse")
    if role is Role.CHANGELOG and wanted.row_bytes and limit < (needed := wanted.row_bytes + HEADER_BYTES):
        yield finding("max.message.bytes", limit, f"at least {needed}", "raise it: a state row does not fit", "refuse")
    if role is Role.DEAD_LETTERS and "compact" in policy:
        fix = "set it to delete; a compacted topic takes no record without a key, and such readings are refused too"
        yield finding("cleanup.policy", policy, "delete", fix, "refuse")
    if role in (Role.READINGS, Role.PREDICTIONS) and "compact" in policy:
        fix = "set it to delete, or only the last record of each stream will be left"
        yield finding("cleanup.policy", policy, "delete", fix, "warn")
    if role is Role.DEAD_LETTERS and readings is not None:
        needed = readings.number("max.message.bytes", MAX_MESSAGE_BYTES) + HEADER_BYTES
        if limit < needed:
            fix = "raise it: the largest readings would not fit here if they were refused, and the service would stop"
            yield finding("max.message.bytes", limit, f"at least {needed}", fix, "warn")
    in_sync = topic.number("min.insync.replicas", 1)
    if in_sync > topic.replicas:
        fix = f"lower it, or give the topic {in_sync} replicas; nothing can be written as it is"
        yield finding("min.insync.replicas", in_sync, f"at most {topic.replicas}", fix, "refuse")
    elif topic.replicas > 2 and in_sync < 2:
        yield finding("min.insync.replicas", in_sync, 2, "raise it, or one broker's loss can lose records", "warn")
    if topic.replicas < min(3, brokers_now):
        fix = "add replicas, or one broker's loss stops the pipeline"
        yield finding("replicas", topic.replicas, min(3, brokers_now), fix, "warn")
    if role is not Role.READINGS and topic.settings.get("message.timestamp.type", "CreateTime") != "CreateTime":
        fix = "set it to CreateTime, or records carry the broker's time in place of the commit's"
        yield finding("message.timestamp.type", topic.settings["message.timestamp.type"], "CreateTime", fix, "warn")
    retention_ms = topic.number("retention.ms", -1)
    if role is Role.READINGS and "delete" in policy and 0 <= retention_ms < DAY_MS:
        fix = "raise it: a service that is down for longer loses the readings of that time"
        yield finding("retention.ms", retention_ms, f"at least {DAY_MS}", fix, "warn")


def _ms(days: float | None) -> int | None:
    return None if days is None else round(days * DAY_MS)


def with_row_bytes(wanted: TopicSpec, row_bytes: int) -> TopicSpec:
    """The same, for a model whose state rows have `row_bytes`."""
    return dataclasses.replace(wanted, row_bytes=row_bytes)
