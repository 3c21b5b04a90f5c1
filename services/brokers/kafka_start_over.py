"""Starting a pipeline over on purpose: its streams' states are forgotten, and the group is put where it is to go on.

All of it is one transaction, with the topics' ids of now, so that a server finds either what was there or a pipeline
that has just begun. kafka-python lives here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kafka import TopicPartition

from services.brokers import kafka_stable, kafka_survey, kafka_topics
from services.brokers.kafka_changelog import KafkaChangelog
from services.brokers.kafka_fetch import READ_BYTES
from services.brokers.kafka_group import Group, offsets_of, topics_of
from services.brokers.kafka_options import Options
from services.brokers.kafka_sink import KafkaSink, fence_all
from services.codecs import sentinels
from services.codecs.sentinels import Search, Sentinel
from services.predictor.ports import Fenced, Refused
from services.predictor.topic_ids import made_anew
from services.records import Commit, Encoded, Role

Where = Literal["committed", "beginning", "end"]


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One partition of the readings."""

    first: int  # offset that can be read
    end: int
    stands: int | None  # where the group is; None: it has read nothing
    start: int  # where the pipeline will go on
    streams: Sequence[bytes]  # that have a state


@dataclass(frozen=True, slots=True)
class StartOverPlan:
    """What starting over would do."""

    anew: Sequence[str]  # topics that were made anew since the pipeline last committed
    places: Mapping[int, PartitionPlan]  # by partition


class StartOver:
    """`plan` only looks; `take_over` shuts out a server that runs; `do` starts over."""

    def __init__(
        self,
        options: Options,
        group: str,
        names: Mapping[Role, str],
        transactional_ids: Sequence[str],
        timeout_s: float,
        most_bytes: int = READ_BYTES,
    ) -> None:
        self._most_bytes = most_bytes
        self._options, self._group, self._names = options, group, dict(names)
        self._ids, self._timeout_s = list(transactional_ids), timeout_s

    def take_over(self) -> None:
        """Whoever commits under the group's transactional ids can do so no more. Raises Retriable."""
        fence_all(self._options, self._ids, self._timeout_s)

    def plan(self, where: Where) -> StartOverPlan:
        """Reads the whole changelog. Raises Retriable, and Refused where an open transaction hides a part of it."""
        partitions = kafka_topics.partition_count(self._options, self._names)
        if held := kafka_stable.held_open(self._options, self._names[Role.CHANGELOG], range(partitions), self._is_ours):
            raise Refused("; ".join(held.values()))
        now = kafka_topics.ids(self._options, self._names)
        readings = self._names[Role.READINGS]
        tps = {partition: TopicPartition(readings, partition) for partition in range(partitions)}
        group = Group(self._options, self._group, tps, "start-over", 0)
        try:
            committed = offsets_of(group.read(round(self._timeout_s * 1000)))
            known = [topics_of(signature) for signature in group.signatures()]
        finally:
            group.close()
        streams, last = self._changelog(partitions)
        known += [sentinel.topic_ids for sentinel in last.values()]
        stands = {partition: sentinel.next_offset for partition, sentinel in last.items()} | committed
        anew = [role for role in Role if any(role in made_anew(before, now) for before in known)]
        if where == "committed" and Role.READINGS in anew:
            where = "beginning"
        places = {}
        for partition, span in kafka_survey.spans(self._options, readings, partitions).items():
            start = {
                "committed": stands.get(partition, span.first),
                "beginning": span.first,
                "end": span.end,
            }[where]
            start = min(max(start, span.first), span.end)
            places[partition] = PartitionPlan(span.first, span.end, stands.get(partition), start, streams[partition])
        return StartOverPlan([self._names[role] for role in anew], places)

    def do(self, plan: StartOverPlan) -> None:
        """Forgets states and moves the group, in one transaction. Raises Retriable: then nothing of it has happened, or
        all of it; Fenced when a server has started meanwhile.
        """
        sink = KafkaSink(
            self._options,
            group=self._group,
            transactional_id=self._ids[0],
            topics=self._names,
            partitions=sorted(plan.places),
            timeout_s=self._timeout_s,
            anew=True,
        )
        try:
            sink.fence()
            started = sink.committed()
            if any(started.get(partition, place.stands) != place.stands for partition, place in plan.places.items()):
                raise Fenced("a server has committed meanwhile: stop it, and start over again")
            now_ms = time.time_ns() // 1_000_000
            writes = []
            first = kafka_survey.spans(self._options, self._names[Role.CHANGELOG], len(plan.places))
            for partition, place in plan.places.items():
                sentinel = Sentinel(partition, place.start, first[partition].first, sink.topic_ids)
                keys: list[bytes | None] = [*place.streams, sentinels.KEY]
                values: list[bytes | None] = [*[None] * len(place.streams), sentinels.encode(sentinel)]
                writes.append(Encoded(Role.CHANGELOG, partition, keys, values, now_ms))
            offsets = {partition: place.start for partition, place in plan.places.items()}
            sink.commit(Commit(started, offsets, tuple(writes)))
        finally:
            sink.close()

    def _changelog(self, partitions: int) -> tuple[dict[int, list[bytes]], dict[int, Sentinel]]:
        """The streams that have a state, and the sentinels, by partition."""
        changelog = KafkaChangelog(self._options, self._names[Role.CHANGELOG], most_bytes=self._most_bytes)
        streams: dict[int, list[bytes]] = {}
        last: dict[int, Sentinel] = {}
        try:
            for partition in range(partitions):
                live: dict[bytes, bool] = {}
                search = Search(lambda sentinel: True)
                for records in changelog.read(partition):
                    for key, value in zip(records.keys, records.values, strict=True):
                        live[key or b""] = value is not None
                    search.see(records)
                if search.found is not None:
                    last[partition] = search.found
                streams[partition] = [key for key, has in live.items() if has and key != sentinels.KEY]
        finally:
            changelog.close()
        return streams, last

    def _is_ours(self, transactional_id: str) -> bool:
        return transactional_id in self._ids
