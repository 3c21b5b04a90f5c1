"""Whether what was said can be said again: both models unrolled offline over the same readings, bit against bit.

The champion from each stream's first reading on; its successor from where its shard had brought the stream over, which
the changelog tells: the latest `state.recent` readings before the first state row with a memory of that model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.cli.demo.replay import Replay
from services.cli.demo.story import Story
from services.cli.demo.tally import Tally

SETTLED_MS = 3_000
"""So long after the challenger sat down every stream has had a reading."""
PART = 20_000
"""Readings that are sent at a time, so that many streams are stepped side by side."""


@dataclass(frozen=True, slots=True)
class Again:
    """What a model says offline, by the rows of the replay; NaN and False where it was not asked."""

    said: NDArray[np.bool_]  # [rows]
    y: NDArray[np.float32]  # [rows, features]
    lo: NDArray[np.float32]  # [rows, features]
    hi: NDArray[np.float32]  # [rows, features]
    score: NDArray[np.float32]  # [rows]

    def same(self, tally: Tally, rows: NDArray[np.int64]) -> int:
        """Of how many of these predictions all bits are the ones that the topic holds."""
        equal = self.said[rows]
        for ours, theirs in ((self.y, tally.y), (self.lo, tally.lo), (self.hi, tally.hi)):
            equal &= (_bits(ours[rows]) == _bits(theirs[rows])).all(axis=1)
        equal &= _bits(self.score[rows]) == _bits(tally.score[rows])
        return int(equal.sum())


def again(model: Path, replay: Replay, first: NDArray[np.int64]) -> Again:
    """Through the loop that serves, with the memory for a broker: what `model` says of each stream's readings from
    step first[stream] on, to the last one that was sent.
    """
    from services.codecs import predictions
    from services.driver import StreamDriver
    from services.records import Role

    rows, features = replay.x.shape
    y, lo, hi = (np.full((rows, features), np.nan, np.float32) for _ in range(3))
    made = Again(np.zeros(rows, np.bool_), y, lo, hi, np.full(rows, np.nan, np.float32))
    step = np.arange(rows) % replay.steps
    asked = np.flatnonzero((replay.sent_ms > 0) & (step >= np.repeat(first, replay.steps)))
    asked = asked[np.argsort(step[asked], kind="stable")]
    driver = StreamDriver(model, slots=max(8, replay.streams))
    for begin in range(0, len(asked), PART):
        for row in asked[begin : begin + PART].tolist():
            driver.send_record(replay.names[row // replay.steps], replay.value(row), partition=0)
        driver.run()
    seen = predictions.decode(driver.broker.records(Role.PREDICTIONS, 0))
    row = replay.rows(seen.streams, seen.at_ms)
    made.said[row], made.y[row], made.score[row] = True, seen.y, seen.score
    if seen.lo is not None and seen.hi is not None:
        made.lo[row], made.hi[row] = seen.lo, seen.hi
    return made


class ChallengerStart:
    """From where on the challenger knows each stream. Looks while it happens, for the changelog is compacted later."""

    def __init__(self, settings: Any, shards: int) -> None:
        self._kafka, self._topic, self._recent = settings.kafka, settings.topics.changelog, settings.state.recent
        self._shards = shards
        self._from: dict[int, int] = {}  # partition -> offset, of some time before it was deployed
        self._known: dict[bytes, int] = {}  # stream -> offset of the last reading before the challenger stepped it

    def look(self, story: Story) -> None:
        """Call it a few times a second."""
        from services.brokers.kafka_client import end_offsets

        if self._known:
            return
        if not self._from:
            if story.passed is not None:
                self._from = end_offsets(self._kafka, self._topic)
            return
        activated = [one for one in story.all("models_activated") if one.fields["challenger"]]
        if len(activated) >= self._shards and time.time_ns() // 1_000_000 >= activated[-1].at_ms + SETTLED_MS:
            self._known = self._read(activated[0].fields["challenger"])

    def _read(self, model: str) -> dict[bytes, int]:
        from services.brokers.kafka_client import end_offsets
        from services.brokers.kafka_range import read_range

        known: dict[bytes, int] = {}
        newest: dict[bytes, int] = {}  # stream -> offset of the last reading in its latest state row so far
        ends = end_offsets(self._kafka, self._topic)
        for records in read_range(self._kafka, self._topic, {p: (self._from[p], end) for p, end in ends.items()}):
            for key, value in zip(records.keys, records.values, strict=True):
                if not key or value is None:  # the sentinel's key is empty
                    continue
                offset, memories = _told(value)
                if model in memories and key in newest:
                    known.setdefault(key, newest[key])
                newest[key] = offset
        return known

    def first(self, replay: Replay, tally: Tally) -> NDArray[np.int64]:
        """[streams], the step of the first reading that the challenger knows; `replay.steps` where it knows none."""
        found = np.full(replay.streams, replay.steps, np.int64)
        for stream, name in enumerate(replay.names):
            if name in self._known:
                mine = tally.offset[stream * replay.steps : (stream + 1) * replay.steps]
                known = int(((mine >= 0) & (mine <= self._known[name])).sum())
                found[stream] = max(0, known - self._recent)
        return found


def _told(value: bytes) -> tuple[int, list[str]]:
    """Of a state row: the offset of the last reading folded in, and whose memories it holds."""
    from services.codecs.state_rows import ENTRY, HEADER

    head = np.frombuffer(value[: HEADER.itemsize], HEADER)[0]
    entries = np.frombuffer(value, ENTRY, int(head["memories"]), HEADER.itemsize)
    return int(head["offset"]), [name.decode() for name in entries["name"].tolist()]


def _bits(values: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.ascontiguousarray(values).view(np.int32)
