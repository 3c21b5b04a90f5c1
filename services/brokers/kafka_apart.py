"""Which partition an error of the client library is of: its fetcher reads all of a consumer's in one go.

May import kafka-python.
"""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from services.brokers.kafka_batch import CodecMissing, MalformedRecords
from services.brokers.kafka_fetch import Unreadable
from services.predictor.ports import Refused

FETCHED = (kafka_errors.CorruptRecordError, kafka_errors.UnsupportedCodecError, UnicodeDecodeError)
"""What the library raises over bytes that it cannot read; a header's name may be no text."""


class OffsetsGone(Refused):
    """The next offsets of some partitions cannot be read any more, or never could; of which, where the library says."""

    def __init__(self, topic: str, error: kafka_errors.OffsetOutOfRangeError | kafka_errors.LogTruncationError) -> None:
        found = getattr(error, "divergent_offsets", None) or (error.args[0] if error.args else None)
        self.partitions = tuple(tp.partition for tp in found) if isinstance(found, dict) else ()
        super().__init__(
            f"topic {topic}: the next readings are gone ({error}). Retention deleted them before they were "
            "read (raise retention.ms), or the topic was made anew (then start over: `streamrnn topics start-over`)"
        )


def name_partitions(consumer: KafkaConsumer) -> None:
    """Makes the consumer's errors over what was fetched `Unreadable`, of their partition. The two names are private: a
    library without them says as before that something cannot be read, and not where.
    """
    fetcher = consumer._fetcher
    parse, append = getattr(fetcher, "_parse_fetched_data", None), getattr(fetcher, "_append", None)
    if parse is None or append is None:
        return

    def parsed(completed: Any) -> Any:
        try:
            return parse(completed)
        except kafka_errors.CorruptRecordError as error:
            said = MalformedRecords("so says the broker (CORRUPT_MESSAGE)")
            raise Unreadable(completed.topic_partition, completed.fetched_offset, said) from error

    def appended(drained: Any, part: Any, *rest: Any) -> Any:
        tp: TopicPartition | None = getattr(part, "topic_partition", None)
        try:
            return append(drained, part, *rest)
        except FETCHED as error:
            if tp is None:
                raise
            part.drain()  # otherwise the fetcher would ask this response again and again
            is_codec = isinstance(error, kafka_errors.UnsupportedCodecError)
            said = (CodecMissing if is_codec else MalformedRecords)(str(error))
            raise Unreadable(tp, part.next_fetch_offset, said) from error

    fetcher._parse_fetched_data, fetcher._append = parsed, appended
