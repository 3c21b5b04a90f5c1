"""The ways back: what the archive holds, and its records by offsets, alone or with what the topic has beyond it.

Reading needs no lock: a file is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from services.archive import rows
from services.archive.archiver import Topic
from services.archive.layout import ArchiveFile, Gone, chains, spans_of
from services.archive.places import ArchiveStorage, place
from services.records import Records


def spans(where: str | Path, topic: str) -> dict[int, tuple[int, int]]:
    """First archived offset and the one after the last, by partition; holes lie between them. Raises Damaged."""
    at = place(where, topic)
    return spans_of(chains(at.paths(), at.where))


def holes(where: str | Path, topic: str) -> dict[int, list[tuple[int, int]]]:
    """Offsets that could not be archived: first and the one after the last, by partition. `verify` says why."""
    at = place(where, topic)
    found = chains(at.paths(), at.where)
    return {partition: gone for partition, chain in found.items()
            if (gone := [(piece.first, piece.next) for piece in chain if piece.gone])}  # fmt: skip


def records(
    where: str | Path, topic: str, partition: int, first: int, end: int, *, over_holes: bool = False
) -> Iterator[Records]:
    """All records of a partition from `first` up to but not including `end`, in the order of offsets.

    Raises Gone at once when the archive does not reach so far, or has a hole there and `over_holes` is not given.
    Raises Damaged, also later, with the file's name. Holds one row group in memory at a time.
    """
    if first >= end:
        return iter(())
    at = place(where, topic)
    chain = chains(at.paths(), at.where).get(partition, [])
    if not chain or first < chain[0].first or end > chain[-1].next:
        has = f"holds {chain[0].first} to {chain[-1].last}" if chain else "holds nothing of this partition"
        raise Gone(f"{at.where} {has}, and offsets {first} to {end - 1} of partition {partition} were asked for")
    wanted = [piece for piece in chain if piece.next > first and piece.first < end]
    if not over_holes and (gone := [piece for piece in wanted if piece.gone]):
        raise Gone(
            f"{at.where}: offsets {gone[0].first} to {gone[0].last} of partition {partition} could not be archived "
            f"(`streamrnn archive verify` says why); ask for what lies after {gone[-1].last}, or pass over_holes=True"
        )
    return _read(at, topic, wanted, first, end)


def onward(
    where: str | Path, topic: Topic, partition: int, first: int, end: int, *, over_holes: bool = False
) -> Iterator[Records]:
    """As `records`, from the archive as far as it goes and from the topic itself beyond, without hole or double.

    What the archive has is taken from there, so retention cannot eat it meanwhile. Raises Gone at once when neither has
    what was asked for, naming what is left.
    """
    held = spans(where, topic.name).get(partition)
    begin, stable = topic.spans().get(partition, (0, 0))
    turn = min(end, held[1]) if held is not None and held[0] <= first < held[1] else first
    if turn < end and turn < begin:
        left = f"the archive holds {held[0]} to {held[1] - 1}" if held else "the archive holds nothing of it"
        raise Gone(
            f"topic {topic.name}, partition {partition}: offsets {turn} to {min(begin, end) - 1} are in neither the "
            f"archive nor the topic; {left}, the topic begins at {begin}"
        )
    if turn < end and end > stable:
        raise Gone(f"topic {topic.name}, partition {partition} ends at offset {stable}, before {end}")
    archived = records(where, topic.name, partition, first, turn, over_holes=over_holes)
    return _joined(archived, topic, partition, turn, end)


def _joined(archived: Iterator[Records], topic: Topic, partition: int, turn: int, end: int) -> Iterator[Records]:
    yield from archived
    if turn < end:
        yield from topic.read(partition, turn, end)


def _read(at: ArchiveStorage, topic: str, wanted: list[ArchiveFile], first: int, end: int) -> Iterator[Records]:
    for piece in wanted:
        with at.open(piece.path) as source:
            file, _ = rows.opened(source, topic, piece, at.where)
            yield from rows.read(file, piece, at.where, first, end)
