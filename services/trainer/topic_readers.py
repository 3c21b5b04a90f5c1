"""Where a range of a topic is read from: Kafka as far back as retention goes, or the archive and Kafka beyond it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.brokers import kafka_range
from services.brokers.kafka_fetch import READ_BYTES
from services.brokers.kafka_history import KafkaHistory
from services.brokers.kafka_options import Options
from services.records import Records
from services.settings import Settings

DAY_MS = 86_400_000


class TopicReader(Protocol):
    """A topic's committed records by offset and by time."""

    @property
    def topic(self) -> str: ...

    def spans(self) -> dict[int, tuple[int, int]]:
        """Partition -> [first offset that is left, end)."""

    def offsets_at(self, times: Mapping[int, int]) -> dict[int, int | None]:
        """Partition -> the first offset whose record has at least the time given, ms; None where none has."""

    def read(self, wanted: Mapping[int, tuple[int, int]]) -> Iterator[Records]:
        """The records of [from, to) of each partition, oldest first, partition after partition, without the holes."""

    def holes(self, wanted: Mapping[int, tuple[int, int]]) -> list[tuple[int, int, int]]:
        """(partition, from, to) of what was lost for good within [from, to) of each partition."""


@dataclass(frozen=True, slots=True)
class KafkaReader:
    """The topic alone; a batch that unpacks to more than `most_bytes` is one refused record. Raises Retriable when the
    broker does not answer, Refused when the topic is missing.
    """

    options: Options
    topic: str
    most_bytes: int = READ_BYTES

    def spans(self) -> dict[int, tuple[int, int]]:
        """See Past."""
        return kafka_range.bounds(self.options, self.topic)

    def offsets_at(self, times: Mapping[int, int]) -> dict[int, int | None]:
        """See Past."""
        return kafka_range.offsets_at(self.options, self.topic, times)

    def read(self, wanted: Mapping[int, tuple[int, int]]) -> Iterator[Records]:
        """See Past."""
        return kafka_range.read_range(self.options, self.topic, wanted, self.most_bytes)

    def holes(self, wanted: Mapping[int, tuple[int, int]]) -> list[tuple[int, int, int]]:
        """See Past. Kafka eats from the front only."""
        return []


@dataclass(frozen=True, slots=True)
class ArchiveReader:
    """The archive at `where`, and the topic from where it ends. Raises Gone and Damaged, too."""

    options: Options
    topic: str
    where: str | Path
    most_bytes: int = READ_BYTES  # as of KafkaReader

    def spans(self) -> dict[int, tuple[int, int]]:
        """See Past. The archive counts where it reaches the topic."""
        from services.archive import reading

        held = reading.spans(self.where, self.topic)
        left = kafka_range.bounds(self.options, self.topic)
        for partition, (first, end) in left.items():
            if partition in held and held[partition][0] < first <= held[partition][1]:
                left[partition] = (held[partition][0], end)
        return left

    def offsets_at(self, times: Mapping[int, int]) -> dict[int, int | None]:
        """See Past. Looks into the archive where the topic's oldest record is later than the time."""
        found = kafka_range.offsets_at(self.options, self.topic, times)
        kafka, both = kafka_range.bounds(self.options, self.topic), self.spans()
        for partition, at_ms in times.items():
            first, begins = kafka[partition][0], both[partition][0]
            if begins < first and found[partition] in (None, first):
                archived = self._archived_at(partition, at_ms, first)
                found[partition] = found[partition] if archived is None else archived
        return found

    def read(self, wanted: Mapping[int, tuple[int, int]]) -> Iterator[Records]:
        """See Past."""
        from services.archive import reading

        topic = KafkaHistory(self.options, self.topic, self.most_bytes)
        for partition, (first, end) in sorted(wanted.items()):
            yield from reading.onward(self.where, topic, partition, first, end, over_holes=True)

    def holes(self, wanted: Mapping[int, tuple[int, int]]) -> list[tuple[int, int, int]]:
        """See Past. What retention took before the archive had it."""
        from services.archive import reading

        there = reading.holes(self.where, self.topic)
        return [
            (partition, max(first, begin), min(end, until))
            for partition, (first, end) in sorted(wanted.items())
            for begin, until in there.get(partition, [])
            if begin < end and first < until
        ]

    def _archived_at(self, partition: int, at_ms: int, end: int) -> int | None:
        """The first archived offset before `end` with at least that time."""
        from services.archive import layout, places, reading

        at = places.place(self.where, self.topic)
        chain = layout.chains(at.paths(), at.where).get(partition, [])
        for piece in chain:
            if piece.gone or layout.day_number(piece.day) < at_ms // DAY_MS:
                continue
            for some in reading.records(self.where, self.topic, partition, piece.first, min(piece.next, end)):
                late = (some.timestamps_ms >= at_ms).nonzero()[0]
                if len(late):
                    return int(some.offsets[late[0]])
        return None


def past_of(settings: Settings, topic: str, archive: str | Path | None) -> TopicReader:
    """The past of a topic, from an archive where one is given."""
    most_bytes = settings.epoch.max_poll_mib << 20
    if archive is None:
        return KafkaReader(settings.kafka, topic, most_bytes)
    return ArchiveReader(settings.kafka, topic, archive, most_bytes)
