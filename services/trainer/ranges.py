"""Which readings of a topic: what a person asks for -> offsets of each partition, checked against what is left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from services.trainer.topic_readers import TopicReader

MOST_RECORDS = 1_000_000
"""The latest records of a topic that are taken where nothing is asked for."""
FIRST_TIME = 100_000_000_000
"""A bare number from here on is ms since 1970 (this one is March 1973); a smaller one is an offset."""

_SPAN_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class WrongRange(Exception):
    """The range cannot be read, or holds nothing to learn from. The message names it, and what is left."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a range begins or ends: at a time, at an offset of every partition, or at one of each named."""

    said: str
    at_ms: int | None = None
    offset: int | None = None
    offsets: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class RangeQuery:
    """A range as asked for. `begin` and `last_*` exclude each other; nothing: the latest MOST_RECORDS."""

    begin: Bound | None = None
    end: Bound | None = None
    last_records: int | None = None  # over all partitions
    last_ms: int | None = None  # back from the end, or from now


@dataclass(frozen=True, slots=True)
class Range:
    """Records of a topic. Offsets may be of markers: a range holds at most as many records as it has offsets."""

    topic: str
    partitions: Mapping[int, tuple[int, int]]  # partition -> [from, to), only those with any
    notes: tuple[str, ...] = field(default=(), compare=False)  # how it is not what was asked for

    @property
    def offsets(self) -> int:
        """In all partitions."""
        return sum(end - first for first, end in self.partitions.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{partition}: {first}..{end}" for partition, (first, end) in sorted(self.partitions.items()))
        return f"{self.topic} [{parts}]"


def asked(begin: str | None = None, end: str | None = None, last: str | None = None) -> RangeQuery:
    """What `--from`, `--to` and `--last` say.

    An edge is a time (ISO 8601, without a zone UTC; or ms since 1970), an offset of every partition (`1200`), or one of
    each (`0:1200,1:900`). `last` is a number of records (`100000`) or a span of time (`48h`, `7d`). Raises WrongRange.
    """
    if begin is not None and last is not None:
        raise WrongRange("--from and --last both say where the range begins: leave one of them out")
    records = span_ms = None
    if last is not None:
        found = re.fullmatch(r"(\d+)([smhd]?)", last.strip().replace("_", "").replace(",", ""))
        if found is None or not int(found[1]):
            raise WrongRange(f"--last {last!r} is neither a number of records (100000) nor a span of time (48h, 7d)")
        records, span_ms = (None, int(found[1]) * _SPAN_MS[found[2]]) if found[2] else (int(found[1]), None)
    edges = [None if said is None else _edge(said, name) for said, name in ((begin, "--from"), (end, "--to"))]
    return RangeQuery(edges[0], edges[1], records, span_ms)


def resolve(past: TopicReader, wanted: RangeQuery, now_ms: int) -> Range:
    """The offsets that are meant. Raises WrongRange for offsets that are gone or not there yet, naming what is left,
    and for a range without any; Refused for a missing topic; Retriable when the broker does not answer.
    """
    topic, left, since_ms = past.topic, past.spans(), None
    ends = _offsets(past, wanted.end, left, first=False)
    begins = {partition: first for partition, (first, _) in left.items()}
    if wanted.begin is not None:
        begins = _offsets(past, wanted.begin, left, first=True)
    elif wanted.last_ms is not None:
        until_ms = wanted.end.at_ms if wanted.end is not None and wanted.end.at_ms is not None else now_ms
        since_ms = max(0, until_ms - wanted.last_ms)
        since = past.offsets_at(dict.fromkeys(left, since_ms))
        begins = {partition: ends[partition] if at is None else at for partition, at in since.items()}
    else:
        most = wanted.last_records or MOST_RECORDS
        begins = _latest({partition: (begins[partition], end) for partition, end in ends.items()}, most)
    for partition in left:
        if wanted.begin is not None and wanted.end is not None and begins[partition] > ends[partition]:
            raise WrongRange(
                f"{topic}, partition {partition}: --from {wanted.begin.said} is offset {begins[partition]} and comes "
                f"after --to {wanted.end.said}, offset {ends[partition]}: swap them"
            )
    chosen = {partition: (first, ends[partition]) for partition, first in begins.items() if first < ends[partition]}
    if not chosen:
        raise WrongRange(f"{topic} has no reading in the range asked for; {said_left(left)}")
    notes = () if since_ms is None else tuple(_eaten(past, chosen, left, since_ms))
    return Range(topic, chosen, notes)


def said_left(left: Mapping[int, tuple[int, int]]) -> str:
    """What can be read, for people."""
    parts = [f"{first} to {end} of partition {partition}" for partition, (first, end) in sorted(left.items())]
    some = ", ".join(parts[:8]) + (", ..." if len(parts) > 8 else "")
    return f"what is left is offsets {some}" if any(first < end for first, end in left.values()) else "it is empty"


def said_time(at_ms: int) -> str:
    """A time for people, whatever a sensor's clock says."""
    return str(np.datetime_as_string(np.datetime64(at_ms, "ms"), unit="s", timezone="UTC"))


def _eaten(
    past: TopicReader, chosen: Mapping[int, tuple[int, int]], left: Mapping[int, tuple[int, int]], since_ms: int
) -> list[str]:
    """A sentence about the partitions of which retention has eaten what came between `since_ms` and what is left."""
    firsts = []
    for partition, (first, end) in sorted(chosen.items()):
        if not first or first != left[partition][0]:
            continue
        some = next(iter(past.read({partition: (first, end)})), None)
        if some is not None and len(some) and int(some.timestamps_ms[0]) > since_ms:
            at = said_time(int(some.timestamps_ms[0]))
            firsts.append(f"offset {int(some.offsets[0])} of partition {partition}, {at}")
    if not firsts:
        return []
    more = f" and of {len(firsts) - 8} more" if len(firsts) > 8 else ""
    note = (
        f"the range was to begin at {said_time(since_ms)}, and retention has eaten everything before "
        f"{'; '.join(firsts[:8])}{more}: training does with what is left; raise the topic's retention, or train on the "
        "archive"
    )
    return [note]


def _edge(said: str, name: str) -> Bound:
    text = said.strip()
    if re.fullmatch(r"\d+", text):
        number = int(text)
        return Bound(said, at_ms=number) if number >= FIRST_TIME else Bound(said, offset=number)
    if re.fullmatch(r"\d+:\d+(\s*,\s*\d+:\d+)*", text):
        pairs = [pair.split(":") for pair in text.split(",")]
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if len(offsets) < len(pairs):
            raise WrongRange(f"{name} {said!r} names a partition twice")
        return Bound(said, offsets=offsets)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise WrongRange(
            f"{name} {said!r} is neither a time (2026-11-25T12:00, or ms since 1970), an offset of every partition "
            "(1200) nor offsets of each (0:1200,1:900)"
        ) from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return Bound(said, at_ms=round(at.timestamp() * 1000))


def _offsets(
    past: TopicReader, edge: Bound | None, left: Mapping[int, tuple[int, int]], *, first: bool
) -> dict[int, int]:
    """The edge in every partition; of one that it does not name the whole is left out at `first`, else taken."""
    name, topic = "--from" if first else "--to", past.topic
    if edge is None:
        return {partition: end for partition, (_, end) in left.items()}
    if edge.at_ms is not None:
        found = past.offsets_at(dict.fromkeys(left, edge.at_ms))
        for partition, (begin, _) in left.items():
            # Hazard: of a time before the oldest record that is left nobody knows how much was between them.
            if first and begin > 0 and found[partition] == begin:
                raise WrongRange(
                    f"{topic}, partition {partition}: retention has eaten everything before offset {begin}, maybe some "
                    f"of it from after --from {edge.said}; {said_left(left)}. Name offsets or a later time, or train "
                    "on the archive"
                )
        return {partition: left[partition][1] if at is None else at for partition, at in found.items()}
    if edge.offsets is not None and (strange := sorted(set(edge.offsets) - set(left))):
        raise WrongRange(f"{topic} has no partition {strange[0]}; it has {len(left)}, numbered from 0")
    given = dict.fromkeys(left, edge.offset) if edge.offsets is None else edge.offsets
    result = {}
    for partition, (begin, end) in left.items():
        offset = given.get(partition)
        if offset is None:
            result[partition] = end
            continue
        if offset < begin and (first or offset > 0):
            raise WrongRange(
                f"{topic}, partition {partition}: offset {offset} is gone, for retention has eaten everything before "
                f"{begin}; {said_left(left)}. Begin {name} there, or train on the archive"
            )
        if offset > end:
            raise WrongRange(
                f"{topic}, partition {partition}: {name} {offset} is not there yet; {said_left(left)}. Name an offset "
                f"up to {end}"
            )
        result[partition] = offset
    return result


def _latest(left: Mapping[int, tuple[int, int]], most: int) -> dict[int, int]:
    """Where to begin so that about `most` offsets are taken, of every partition the same share."""
    there = sum(max(0, end - first) for first, end in left.values())
    share = min(1.0, most / there) if there else 1.0
    return {partition: end - round(max(0, end - first) * share) for partition, (first, end) in left.items()}


def same(past: TopicReader, partitions: Mapping[int, tuple[int, int]]) -> Range:
    """A range that was read before, as a card names it. Raises WrongRange where some of it is gone."""
    left = past.spans()
    for partition, (first, end) in partitions.items():
        begin, until = left.get(partition, (0, 0))
        if first < begin or end > until:
            raise WrongRange(
                f"{past.topic}, partition {partition}: of offsets {first} to {end} some are gone, for retention has "
                f"eaten everything before {begin}; {said_left(left)}. Name the archive, if there is one"
                if first < begin
                else f"{past.topic}, partition {partition}: offsets {first} to {end} are not there, {said_left(left)}: "
                "this is another topic of that name"
            )
    return Range(past.topic, dict(partitions))
