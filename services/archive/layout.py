"""The names of the archive's files, which alone say what is archived: no index, nothing that could disagree with them.

    topic=NAME/day=2026-11-25/partition-03-FIRST-LAST.parquet        offsets FIRST to LAST, LAST among them
    topic=NAME/day=2026-11-25/partition-03-FIRST-LAST-gone.parquet   no rows: a hole, whose footer says why

Imports the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

DAY_MS = 86_400_000
LAST_DAY = 2_932_896
"""9999-12-31, in days since 1970."""

_PATH = re.compile(r"day=(\d{4}-\d\d-\d\d)/partition-(\d{2,})-(\d{20})-(\d{20})(-gone)?\.parquet")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Damaged(Exception):
    """The archive is not as it was written. Remedy: a person looks at the file that is named."""


class Gone(Exception):
    """Offsets that were asked for are not in the archive. Remedy: ask for what the message says is left."""


@dataclass(frozen=True, slots=True, order=True)
class ArchiveFile:
    """One file: the offsets `first` to `last` of a partition, both among them."""

    partition: int
    first: int
    last: int
    day: str  # as in 2026-11-25
    gone: bool = False  # a hole: lost before, or in a batch that unpacks to too much; the file has no rows

    @property
    def next(self) -> int:
        """The offset after it."""
        return self.last + 1

    @property
    def path(self) -> str:
        """Below the topic's folder."""
        gone = "-gone" if self.gone else ""
        return f"day={self.day}/partition-{self.partition:02d}-{self.first:020d}-{self.last:020d}{gone}.parquet"


def topic_folder(topic: str) -> str:
    """The folder of a topic. Raises Damaged for what cannot be a topic's name."""
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise Damaged(f"{topic!r} is no topic name: at most 249 letters, digits, '.', '_' or '-'")
    return f"topic={topic}"


def day_name(day: int) -> str:
    """Days since 1970 as in 2026-11-25; what lies outside 1970 to 9999 is filed under the nearest day."""
    return datetime.fromtimestamp(min(max(day, 0), LAST_DAY) * 86_400, UTC).strftime("%Y-%m-%d")


def day_number(name: str) -> int:
    """The reverse of `day_name`."""
    return int(datetime.strptime(name, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) // 86_400


def piece_of(path: str) -> ArchiveFile | None:
    """What a path below the topic's folder says; None for a file that is none of the archive's."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    day, partition, first, last, gone = found.groups()
    piece = ArchiveFile(int(partition), int(first), int(last), day, gone is not None)
    try:
        day_number(day)
    except ValueError:
        return None
    return piece if piece.first <= piece.last and piece.path == path else None


def chains(paths: Iterable[str], where: str) -> dict[int, list[ArchiveFile]]:
    """The pieces of each partition in the order of offsets, without holes or overlaps between them.

    Raises Damaged with the names of the files where it is not so.
    """
    chained, wrong = sorted_pieces(paths, where)
    if wrong:
        raise Damaged(wrong[0])
    return chained


def sorted_pieces(paths: Iterable[str], where: str) -> tuple[dict[int, list[ArchiveFile]], list[str]]:
    """The pieces of each partition in the order of offsets, and a sentence for each thing that is wrong with them."""
    pieces: dict[int, list[ArchiveFile]] = {}
    wrong = []
    for path in sorted(paths):
        piece = piece_of(path)
        if piece is None:
            wrong.append(f"{where}/{path} is not a file of this archive; move it somewhere else")
        else:
            pieces.setdefault(piece.partition, []).append(piece)
    for chain in pieces.values():
        chain.sort()
        wrong += [sentence for before, after in pairwise(chain)
                  if (sentence := _misfit(before, after, where))]  # fmt: skip
    return dict(sorted(pieces.items())), wrong


def spans_of(chained: Mapping[int, list[ArchiveFile]]) -> dict[int, tuple[int, int]]:
    """First offset and the one after the last, by partition."""
    return {partition: (chain[0].first, chain[-1].next) for partition, chain in chained.items()}


def _misfit(before: ArchiveFile, after: ArchiveFile, where: str) -> str | None:
    if after.first > before.next:
        return (
            f"{where}: the offsets {before.next} to {after.first - 1} of partition {before.partition} are missing "
            f"between {before.path} and {after.path}; put the file back, or move away all of this partition before them"
        )
    if after.first < before.next:
        return (
            f"{where}: {before.path} and {after.path} hold the same offsets, so two archivers have written here at "
            "once; stop one of them and move the file away whose offsets the other one holds, too"
        )
    return None
