"""What a broker will not take, however often it is written: of which topic, the broker's own words, and what to do.

Hazard: such an error that is tried again drops epochs for ever. May import kafka-python.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka import errors as kafka_errors

from services.predictor.ports import Refused

TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
REJECTED = (
    *TOO_LARGE,
    kafka_errors.InvalidRecordError,
    kafka_errors.InvalidTimestampError,
    kafka_errors.PolicyViolationError,
    kafka_errors.UnsupportedForMessageFormatError,
)


def refusal(error: BaseException | None, topic: str = "") -> Refused | None:
    """What a person must do about an error of a record; None: it may get better by itself. `topic` empty: it is not
    known which.
    """
    if not isinstance(error, REJECTED):
        return None
    named = topic or "the topic"
    where = f"topic {topic}" if topic else "a topic"
    return Refused(f"a record for {where} is refused by the broker: {error}. {_remedy(error, named)}")


def refusal_of(futures: Iterable[Any]) -> Refused | None:
    """The same of the first record whose own error it is: in a transaction those beside it fail, too, and say less."""
    for future in futures:
        error = getattr(future, "exception", None)
        tp = getattr(getattr(future, "_produce_future", None), "topic_partition", None)
        if (found := refusal(error, getattr(tp, "topic", ""))) is not None:
            return found
    return None


def _remedy(error: BaseException, topic: str) -> str:
    if isinstance(error, TOO_LARGE):
        return f"Was max.message.bytes of {topic} lowered? Raise it again"
    # Of a batch with several such records the library makes InvalidRecordError, whatever their errors are.
    said = str(error).lower()
    if isinstance(error, kafka_errors.InvalidTimestampError) or "timestamp" in said:
        return (
            f"Set this machine's clock right, or raise message.timestamp.after.max.ms of {topic} "
            "(message.timestamp.before.max.ms, should the clock be behind)"
        )
    if isinstance(error, kafka_errors.PolicyViolationError):
        return f"Ask whoever runs Kafka which policy {topic} is under"
    if isinstance(error, kafka_errors.UnsupportedForMessageFormatError):
        return f"Give {topic} a message format of Kafka 0.11 or newer (message.format.version)"
    if "compacted" in said:
        return f"A record without a key cannot be compacted: set cleanup.policy of {topic} back to delete"
    return f"Undo what was changed in the settings of {topic}"
