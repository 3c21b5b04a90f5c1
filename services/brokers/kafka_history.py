"""A topic's committed records by offsets, as far back as it still reaches: `archive.archiver.Topic` on kafka-python."""

from __future__ import annotations

from collections.abc import Iterator

from services.brokers.kafka_fetch import READ_BYTES
from services.brokers.kafka_options import Options
from services.brokers.kafka_range import bounds, read_range
from services.records import Records


class KafkaHistory:
    """Holds no connection between two calls. Raises Retriable when the broker does not answer, Refused when the topic
    is missing; both may be asked again.
    """

    def __init__(self, options: Options, topic: str, most_bytes: int = READ_BYTES) -> None:
        self.name = topic
        self._options, self._most_bytes = options, most_bytes

    def spans(self) -> dict[int, tuple[int, int]]:
        """First offset that can still be read, and the last stable offset, of every partition."""
        return bounds(self._options, self.name)

    def read(self, partition: int, first: int, end: int) -> Iterator[Records]:
        """Committed records from `first` up to but not including `end`, oldest first; both within the span. Ends by
        position: markers and aborted records are passed. What unpacks to too much is refused, as by `read_range`.
        """
        if first >= end:
            return iter(())
        return read_range(self._options, self.name, {partition: (first, end)}, self._most_bytes)
