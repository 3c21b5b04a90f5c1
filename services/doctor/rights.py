"""What this user may do, as far as Kafka says. May import brokers."""

from __future__ import annotations

from collections.abc import Iterator

from services.doctor.lines import CheckResult, Target
from services.records import Role

WANTED = {
    Role.READINGS: ("READ",),
    Role.PREDICTIONS: ("WRITE",),
    Role.CHANGELOG: ("READ", "WRITE"),
    Role.DEAD_LETTERS: ("WRITE",),
}


def rights(patient: Target) -> Iterator[CheckResult]:
    """Rights on the topics and the group. Of transactional ids Kafka tells nobody, so there is a line that says so."""
    from services.brokers import kafka_survey
    from services.fleet.assembly import topic_names

    settings = patient.settings
    cluster = kafka_survey.cluster(settings.kafka)
    authorizer = cluster.settings.get("authorizer.class.name")
    wanted = {name: list(WANTED[role]) for role, name in topic_names(settings).items()}
    if settings.registry is not None:
        wanted[settings.topics.events] = ["WRITE"]
    found = kafka_survey.topic_rights(settings.kafka, list(wanted))
    missing = []
    for topic, operations in wanted.items():
        if topic not in found:
            continue  # `topics` says so
        if not found[topic]:
            missing.append(CheckResult("rights", "unknown", f"Kafka does not say what this user may do with {topic}"))
        elif lacking := [one for one in operations if one not in found[topic]]:
            missing.append(
                CheckResult(
                    "rights",
                    "fail",
                    f"this user may not {' and '.join(lacking)} topic {topic}",
                    _allow(lacking, f"--topic {topic}"),
                )
            )
        elif "DESCRIBE_CONFIGS" not in found[topic]:
            missing.append(
                CheckResult(
                    "rights",
                    "warn",
                    f"this user may not see the settings of topic {topic}; "
                    "max.message.bytes is taken to be Kafka's default",
                    _allow(["DESCRIBE_CONFIGS"], f"--topic {topic}"),
                )
            )
    group = kafka_survey.group_rights(settings.kafka, settings.group)
    if group is not None and "READ" not in group:
        missing.append(
            CheckResult(
                "rights",
                "fail",
                f"this user may not READ group {settings.group}, under which offsets are committed",
                _allow(["READ"], f"--group {settings.group}"),
            )
        )
    yield from missing
    if authorizer == "":
        if not missing:
            yield CheckResult("rights", "ok", "Kafka has no authorizer: whoever reaches it may do everything")
        return
    if not missing and found:
        yield CheckResult(
            "rights", "ok", f"this user may read and write the topics{', and the group' if group else ''}"
        )
    if group is None:
        yield CheckResult(
            "rights",
            "unknown",
            f"whether this user may READ group {settings.group}: Kafka does not say",
            f"If `serve` is refused: {_allow(['READ'], f'--group {settings.group}')}",
        )
    if settings.delivery == "exactly_once":
        yield CheckResult(
            "rights",
            "unknown",
            f"whether this user may WRITE the transactional ids {settings.group}-shard-*: only trying tells",
            f"If `serve` is refused: {_allow(['WRITE', 'DESCRIBE'], _ids(settings.group))}",
        )


def _ids(group: str) -> str:
    return f"--transactional-id {group}-shard- --resource-pattern-type prefixed"


def _allow(operations: list[str], resource: str) -> str:
    every = " ".join(
        f"--operation {one.replace('_', '').capitalize()}" if "_" not in one else "--operation DescribeConfigs"
        for one in operations
    )
    return f"kafka-acls.sh --bootstrap-server BROKER --add --allow-principal User:NAME {every} {resource}."
