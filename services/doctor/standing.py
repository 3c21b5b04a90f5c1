"""Whether offsets, states and topics belong together, as a shard asks when it starts. May import brokers."""

from __future__ import annotations

from collections.abc import Iterator

from services.doctor.lines import CheckResult, Target, days
from services.records import Role


def states(patient: Target) -> Iterator[CheckResult]:
    """What a start of `serve` would refuse, in its own words."""
    from services.brokers import kafka_expiry, kafka_group, kafka_sentinels, kafka_stable, kafka_survey, kafka_topics
    from services.codecs import sentinels
    from services.fleet.assembly import topic_names
    from services.fleet.status import transactional_id
    from services.predictor import restore, topic_ids
    from services.predictor.state_store import StateStore

    settings = patient.settings
    names, kafka = topic_names(settings), settings.kafka
    changelog, count = names[Role.CHANGELOG], kafka_topics.partition_count(kafka, names)
    ours = {transactional_id(settings.group, shard) for shard in range(count)}  # `serve` ends those at its start
    held = kafka_stable.held_open(kafka, changelog, range(count), ours.__contains__)
    for sentence in held.values():
        said, _, fix = sentence.partition(". ")
        yield CheckResult("states", "fail", said, f"{fix}.")
    if held:
        return  # what lies behind is not seen
    entries = kafka_survey.entries(kafka, settings.group, names[Role.READINGS])
    now = kafka_topics.ids(kafka, names)
    searches = kafka_sentinels.newest(kafka, changelog, count, lambda its: not topic_ids.made_anew(its.topic_ids, now))
    found = {partition: search.found for partition, search in searches.items() if search.found is not None}
    known = [kafka_group.topics_of(entry.metadata or "") for entry in entries.values()]
    others = [search.other for search in searches.values() if search.found is None and search.other is not None]
    for before in [*known, *(sentinel.topic_ids for sentinel in others)]:
        topic_ids.check(before, now, names)
    for stray in (search.stray for search in searches.values() if search.stray is not None):
        yield CheckResult("states", "warn", stray.said, sentinels.FIX)
    spans = kafka_survey.spans(kafka, changelog, count)
    for partition, sentinel in found.items():
        if restore.deleted(sentinel, first := spans[partition].first):
            yield CheckResult(
                "states",
                "warn",
                f"{changelog}, partition {partition}: records before offset {first} were deleted; streams whose state "
                "was among them start anew",
                f"Leave cleanup.policy of {changelog} at compact, and its records alone.",
            )
    # A server that runs commits between our two looks: what it says now must not be held against what it said then.
    later = kafka_survey.entries(kafka, settings.group, names[Role.READINGS])
    committed = {partition: entry.offset for partition, entry in entries.items()}
    for partition, entry in later.items():
        its = found.get(partition)
        if its is not None and committed.get(partition, entry.offset) <= its.next_offset <= entry.offset:
            committed[partition] = its.next_offset
    restore.standing(committed, found, StateStore(), settings.delivery == "exactly_once")
    if expired := sorted(found.keys() - committed.keys()):
        yield CheckResult(
            "states",
            "warn",
            f"Kafka has forgotten the offsets of group {settings.group} in partitions "
            f"{', '.join(map(str, expired))}: `serve` goes on from where {changelog} says",
            "Nothing is lost. Raise the brokers' offsets.retention.minutes if servers rest for longer.",
        )
    expiry = kafka_expiry.read(kafka)
    forgets_ms = min((one for one in expiry if one is not None), default=None)
    every = f"an idle server says where it stands every {days(kafka_expiry.renew_ms(expiry))}"
    if forgets_ms is not None and forgets_ms // 4 < settings.epoch.timeout_s * 1000:
        yield CheckResult(
            "states",
            "warn",
            f"Kafka forgets an idle pipeline within {days(forgets_ms)}; {every}, and one commit may take "
            f"{settings.epoch.timeout_s:g} s (epoch.timeout_s)",
            "Raise the brokers' offsets.retention.minutes and transactional.id.expiration.ms.",
        )
    elif not expired:
        yield CheckResult("states", "ok", f"{changelog} goes as far as group {settings.group}; {every}")
