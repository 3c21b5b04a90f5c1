"""Whether the readings can be unpacked: what the group reads next, and what came last. May import brokers."""

from __future__ import annotations

from collections.abc import Iterator

from services.doctor.lines import CheckResult, Target


def records(patient: Target) -> Iterator[CheckResult]:
    """A batch of each partition that cannot be read: damaged, in a compression that is not installed, or refused."""
    from services.brokers import kafka_connect, kafka_range, kafka_survey

    settings = patient.settings
    topic = settings.topics.readings
    if missing := kafka_connect.missing_codec(settings.kafka):
        yield CheckResult("records", "fail", missing, "Install it, or set another kafka.compression_type.")
    bounds = kafka_range.bounds(settings.kafka, topic)
    committed = kafka_survey.committed(settings.kafka, settings.group, topic)
    places = {
        partition: sorted({min(max(committed.get(partition, first), first), end - 1), end - 1})
        for partition, (first, end) in bounds.items()
        if end > first
    }
    found = kafka_range.unreadable(settings.kafka, topic, places, bounds, settings.epoch.max_poll_mib << 20)
    for said, trouble in found:
        if trouble == "refused":
            what, _, fix = said.partition(". ")
            yield CheckResult("records", "warn", f"{what}: it becomes one dead letter", fix)
            continue
        fix = (
            "Run `pip install 'streamrnn[fast]'`."
            if trouble == "codec"
            else "See docs/runbooks/StreamrnnPartitionSetAside.md."
        )
        yield CheckResult("records", "fail", said, fix)
    if not found:
        yield CheckResult("records", "ok", f"{topic}: what comes next and what came last can be read")
