"""Rejected records -> dead letters: bytes, key and headers as they came, plus why. Imports `services.records` only.

The added headers are those of Kafka Connect's DeadLetterQueueReporter, so that its tools can read them, and
`streamrnn.reason` with the word of the enum. A header is appended, never replaced: readers take the last of a name.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.records import Encoded, Header, Reason, Rejected, Role

ERRORS = "__connect.errors."
_OFFSET, _MESSAGE = ERRORS + "offset", ERRORS + "exception.message"
REASON = "streamrnn.reason"
TRUNCATED = "streamrnn.truncated"
"""The value's original length in bytes, where it was cut to fit."""
TRUNCATED_KEY = "streamrnn.truncated.key"
DROPPED_HEADERS = "streamrnn.truncated.headers"
"""How many of the record's own headers were left out because cutting the value was not enough."""
_SHORTEST_KEY = 1024
_HEADER_OVERHEAD = 10  # two varints of a header in a record batch, at their longest


def encode(
    rejected: Rejected, topic: str, group: str, timestamp_ms: int, max_bytes: int = 900_000, task: str | None = None
) -> Encoded:
    """One dead letter per rejected record of `topic`, of at most `max_bytes` with key and headers. `task` is the shard
    (the partition when None).
    """
    records = rejected.records
    before: list[Header] = [(ERRORS + "topic", topic.encode()), (ERRORS + "partition", b"%d" % records.partition)]
    between: list[Header] = [
        (ERRORS + "connector.name", group.encode()),
        (ERRORS + "task.id", (str(records.partition) if task is None else task).encode()),
    ]
    about = {reason: _about(reason) for reason in set(rejected.reasons)}
    fixed = max_bytes - _size([*before, (_OFFSET, b""), *between, *_LONGEST])
    keys, values = list(records.keys), list(records.values)
    headers: list[Sequence[Header]] = []
    for row, (offset, reason, detail) in enumerate(
        zip(records.offsets.tolist(), rejected.reasons, rejected.details, strict=True)
    ):
        place, message = b"%d" % offset, detail.encode("utf-8", "backslashreplace")
        key, value, own = keys[row], values[row], records.headers.get(row, ())
        room = fixed - len(place) - len(message)
        cuts: list[Header] = []
        if len(key or b"") + len(value or b"") + (_size(own) if own else 0) > room:
            keys[row], values[row], own, cuts = _fitted(key, value, list(own), room)
        first, last = about[reason]
        headers.append([*own, *before, (_OFFSET, place), *between, *first, (_MESSAGE, message), last, *cuts])
    return Encoded(Role.DEAD_LETTERS, records.partition, keys, values, timestamp_ms, headers)


def _about(reason: Reason) -> tuple[tuple[Header, ...], Header]:
    """Headers that follow from the reason: those before the sentence, and the one behind it."""
    stage = b"KEY_CONVERTER" if _of_key(reason) else b"VALUE_CONVERTER"
    error = (ERRORS + "exception.class.name", b"services.codecs.refusal.Refusal")
    by = (ERRORS + "class.name", b"services.codecs.readings.ReadingDecoder")
    return ((ERRORS + "stage", stage), by, error), (REASON, reason.value.encode())


def _of_key(reason: Reason) -> bool:
    return reason in (Reason.MISSING_KEY, Reason.KEY_TOO_LONG)


def _size(headers: Sequence[Header]) -> int:
    return sum(_HEADER_OVERHEAD + len(name.encode()) + len(value or b"") for name, value in headers)


_LONGEST = (*_about(Reason.TOMBSTONE)[0], (_MESSAGE, b""), _about(max(Reason, key=len))[1])


def _fitted(
    key: bytes | None, value: bytes | None, own: list[Header], room: int
) -> tuple[bytes | None, bytes | None, list[Header], list[Header]]:
    """Key, value and headers, too large as they are, cut to `room` bytes, and headers that say so. The value goes
    first, then the record's own headers, then the key.
    """
    cuts: list[Header] = []
    room -= _size([(name, b"9" * 10) for name in (TRUNCATED, TRUNCATED_KEY, DROPPED_HEADERS)])
    if own and len(key or b"") + _size(own) > room:
        cuts.append((DROPPED_HEADERS, b"%d" % len(own)))
        own = []
    if key is not None and len(key) > max(room - _size(own), _SHORTEST_KEY):
        cuts.append((TRUNCATED_KEY, b"%d" % len(key)))
        key = key[: max(room - _size(own), _SHORTEST_KEY)]
    left = max(0, room - len(key or b"") - _size(own))
    if value is not None and len(value) > left:
        cuts.append((TRUNCATED, b"%d" % len(value)))
        value = value[:left]
    return key, value, own, cuts
