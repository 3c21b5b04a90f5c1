"""Whether an archive is as it was written: every file opened, every page's checksum compared, every row counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from services.archive import rows
from services.archive.layout import ArchiveFile, Damaged, sorted_pieces
from services.archive.places import ArchiveStorage, place


@dataclass
class Found:
    """What is in the archive of one partition."""

    partition: int
    first: int
    next: int
    records: int = 0
    pieces: int = 0
    holes: list[str] = field(default_factory=list)  # a sentence each, as they were recorded


@dataclass
class ArchiveReport:
    """What a check found; the archive is sound if nothing is wrong. Recorded holes are no damage."""

    where: str
    partitions: list[Found]
    wrong: list[str]  # a sentence each, with the file's name


def verify(
    where: str | Path, topic: str, progress: Callable[[int, int], None] = lambda done, of: None
) -> ArchiveReport:
    """Reads all of a topic's archive. `progress` hears how many files are done, and of how many."""
    at = place(where, topic)
    chained, wrong = sorted_pieces(at.paths(), at.where)
    verdict = ArchiveReport(at.where, [], wrong)
    total, done = sum(map(len, chained.values())), 0
    for partition, chain in chained.items():
        found = Found(partition, chain[0].first, chain[-1].next)
        verdict.partitions.append(found)
        for piece in chain:
            try:
                _count(at, topic, piece, found)
            except (Damaged, OSError) as error:
                verdict.wrong.append(str(error))
            done += 1
            progress(done, total)
    return verdict


def _count(at: ArchiveStorage, topic: str, piece: ArchiveFile, found: Found) -> None:
    with at.open(piece.path) as source:
        file, footer = rows.opened(source, topic, piece, at.where)
        found.pieces += 1
        found.records += (count := sum(map(len, rows.read(file, piece, at.where))))
    if count != footer["rows"]:
        raise Damaged(f"{at.where}/{piece.path} holds {count} rows, and {footer['rows']} were written; put back a copy")
    if piece.gone:
        found.holes.append(str(footer.get("note", f"offsets {piece.first} to {piece.last} are gone")))
