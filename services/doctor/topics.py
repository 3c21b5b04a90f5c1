"""The pipeline's topics: their settings, how long they keep what, and where the group stands. May import brokers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from services.doctor.lines import CheckResult, Level, Target, days
from services.predictor.topic_ids import START_OVER
from services.records import Role

DAY_MS = 86_400_000
RESTORED_PER_S = 50_000
"""State rows that one shard reads in a second, on a slow core: half of what was measured."""
SLOW_S = 60
FUTURE_MS = 60_000
UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}


def topics(patient: Target) -> Iterator[CheckResult]:
    """The topics are there, and keep the promises."""
    from services.brokers import kafka_survey, kafka_topics
    from services.doctor.models import row_bytes
    from services.fleet.assembly import topic_names

    settings = patient.settings
    names = topic_names(settings)
    wanted = kafka_topics.with_row_bytes(kafka_topics.spec(settings, names), row_bytes(settings))
    findings = kafka_topics.check(settings.kafka, wanted)
    for found in findings:
        level: Level = "fail" if found.severity == "refuse" else "warn"
        yield CheckResult(
            "topics",
            level,
            f"{found.topic}: {found.setting} is {found.found}, needed is {found.needed}",
            f"{found.fix[:1].upper()}{found.fix[1:]}.",
        )
    if not findings:
        yield CheckResult("topics", "ok", f"{', '.join(names.values())}: all keep the promises")
    if settings.registry is not None and not kafka_survey.topic_rights(settings.kafka, [settings.topics.events]):
        yield CheckResult(
            "topics",
            "warn",
            f"{settings.topics.events} is not there: what happens to the models is not kept",
            "Create it with `streamrnn topics create`.",
        )


def retention(patient: Target) -> Iterator[CheckResult]:
    """How long things are kept, beside how long they are needed."""
    from services.brokers import kafka_survey
    from services.brokers.kafka_connect import open_admin
    from services.brokers.kafka_topics import existing

    settings = patient.settings
    with open_admin(settings.kafka) as admin:
        readings, changelog = existing(settings.kafka, admin, [settings.topics.readings, settings.topics.changelog])
    lines = []
    kept_ms = readings.number("retention.ms", 7 * DAY_MS)
    kept = "for ever" if kept_ms < 0 else f"for {days(kept_ms)}"
    ttl = settings.state.ttl_days
    if ttl is not None and (kept_ms < 0 or ttl * DAY_MS < kept_ms):
        lines.append(
            CheckResult(
                "retention",
                "warn",
                f"{readings.name} keeps readings {kept}, but streams are forgotten after "
                f"{ttl:g} days: a service that was down for longer finds the readings, and no states",
                "Raise state.ttl_days, or lower the topic's retention.ms.",
            )
        )
    learned_ms = _learned_ms(settings.retrain.last)
    retrains = settings.registry is not None and (settings.retrain.cron or settings.retrain.on_drift)
    if retrains and settings.retrain.archive is None and 0 <= kept_ms < learned_ms:
        lines.append(
            CheckResult(
                "retention",
                "warn",
                f"retraining learns from the last {settings.retrain.last}, and {readings.name} keeps readings {kept}",
                "Raise the topic's retention.ms, shorten retrain.last, or set retrain.archive.",
            )
        )
    rows = [
        one.end - one.first for one in kafka_survey.spans(settings.kafka, changelog.name, changelog.partitions).values()
    ]
    restore_s = sum(rows) / RESTORED_PER_S / max(1, min(settings.fleet.shards, len(rows)))
    restored = f"{sum(rows):,} records of {changelog.name} are read at a restart: about {restore_s:.1f} s"
    if restore_s > SLOW_S:
        lines.append(
            CheckResult(
                "retention",
                "warn",
                restored,
                f"Lower min.cleanable.dirty.ratio and segment.ms of {changelog.name}, or add shards.",
            )
        )
    if (gone_ms := changelog.number("delete.retention.ms", DAY_MS)) < max(restore_s, SLOW_S) * 1000:
        lines.append(
            CheckResult(
                "retention",
                "warn",
                f"{changelog.name} keeps the marks of forgotten streams for "
                f"{days(gone_ms)} (delete.retention.ms): a restore that takes longer would bring some back",
                f"Set delete.retention.ms of {changelog.name} to {DAY_MS}.",
            )
        )
    yield from lines
    if not lines:
        yield CheckResult("retention", "ok", f"{readings.name} keeps readings {kept}; {restored}")


def _learned_ms(last: str) -> int:
    """What `retrain.last` says, where it is a length of time; 0 where it is a number of readings."""
    found = re.fullmatch(r"(\d+)([smhd])", last)
    return int(found[1]) * UNITS_MS[found[2]] if found else 0


def offsets(patient: Target) -> Iterator[CheckResult]:
    """Where the group stands, and whether what it wants next is still there."""
    from services.brokers import kafka_survey, kafka_topics
    from services.fleet.assembly import topic_names

    settings = patient.settings
    readings, names = settings.topics.readings, topic_names(settings)
    count = kafka_topics.partition_count(settings.kafka, names)
    spans = kafka_survey.spans(settings.kafka, readings, count)
    committed = kafka_survey.committed(settings.kafka, settings.group, readings)
    wrong = []
    for partition, at in sorted(committed.items()):
        if (span := spans.get(partition)) is None:
            continue
        if at < span.first:
            wrong.append(
                CheckResult(
                    "offsets",
                    "fail",
                    f"{readings}, partition {partition}: readings {at} to {span.first - 1} "
                    "were deleted before they were read",
                    "They are lost, but for what an archive holds (docs/archive.md). Raise the topic's retention.ms.",
                )
            )
        elif at > span.end:
            wrong.append(
                CheckResult(
                    "offsets",
                    "fail",
                    f"{readings}, partition {partition}: the group wants {at} next, and the "
                    f"topic ends at {span.end}: it was made anew, or lost records",
                    f"Start over with `{START_OVER}`.",
                )
            )
    fresh = [p for p, span in sorted(spans.items()) if p not in committed and span.end > span.first]
    if committed and fresh:
        wrong.append(
            CheckResult(
                "offsets",
                "warn",
                f"{readings}, partition {', '.join(map(str, fresh))}: holds records, and the group has no offset of it "
                "though it has others: it was added, and nothing has been read of it yet",
                "A running server takes added partitions in within a minute, or says on /readyz why it cannot.",
            )
        )
    states = kafka_survey.spans(settings.kafka, names[Role.CHANGELOG], count)
    if not committed and any(span.end > span.first for span in states.values()) and not _sentinels(patient, count):
        wrong.append(
            CheckResult(
                "offsets",
                "fail",
                f"{names[Role.CHANGELOG]} holds states, but the group {settings.group} has "
                "no offsets: they were deleted, or have expired",
                f"Put the offsets back, or start over with `{START_OVER}`.",
            )
        )
    newest_ms, now_ms = max((span.newest_ms for span in spans.values()), default=-1), patient.clock_s() * 1000
    if newest_ms > now_ms + FUTURE_MS:
        wrong.append(
            CheckResult(
                "offsets",
                "warn",
                f"the newest record of {readings} is {days(newest_ms - now_ms)} in the "
                "future: latencies and lags will be wrong",
                "Set the clocks of the sensors, or message.timestamp.type=LogAppendTime on that topic.",
            )
        )
    yield from wrong
    if not wrong:
        lag = sum(max(0, span.end - committed.get(p, span.first)) for p, span in spans.items())
        new = "" if newest_ms < 0 else f"; the newest is {days(max(0.0, now_ms - newest_ms))} old"
        begun = f"group {settings.group} is {lag:,} records behind" if committed else f"{lag:,} records, none read yet"
        yield CheckResult("offsets", "ok", f"{readings}: {begun}{new}")


def _sentinels(patient: Target, partitions: int) -> bool:
    """Whether the changelog says how far it goes; then a start asks it (`standing`)."""
    from services.brokers import kafka_sentinels

    settings = patient.settings
    found = kafka_sentinels.newest(settings.kafka, settings.topics.changelog, partitions, lambda sentinel: True)
    return any(search.found is not None for search in found.values())
