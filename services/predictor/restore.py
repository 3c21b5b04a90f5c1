"""Changelog -> state store at the start of a shard. Imports codecs, ports and the state store."""

from __future__ import annotations

from collections.abc import Iterator

from services.codecs import state_rows
from services.predictor.ports import Changelog, Refused
from services.predictor.state_store import NO_ROW, StateStore


def restore(
    changelog: Changelog, partition: int, store: StateStore, layout: str, model: str
) -> Iterator[tuple[int, float]]:
    """Takes the partition's state rows into the store; after each piece yields its records, and the share that is read.
    Raises Refused for rows that another model or release has written.
    """
    first, end = changelog.span(partition)
    for records in changelog.read(partition):
        try:
            kept, tombstones = state_rows.decode(records, layout, model, store.row_bytes)
        except state_rows.StateRowRefused as error:
            raise Refused(str(error)) from error
        if tombstones:
            gone = store.numbers(partition, tombstones)  # which may make the arrays grow
            store.offsets[gone] = NO_ROW
        if len(kept):
            numbers = store.numbers(partition, kept.streams)
            store.keep(numbers, kept.offsets, kept.saved_ms, kept.rows)
        yield len(records), (int(records.offsets[-1]) + 1 - first) / max(1, end - first)


def check(partition: int, committed: int | None, store: StateStore) -> None:
    """Raises Refused when a state is ahead of the group's `committed` offset, which transactions rule out."""
    here = (store.offsets != NO_ROW) & (store.partitions == partition)
    ahead = int(store.offsets[here].max(initial=NO_ROW))
    if ahead >= (committed or 0):
        raise Refused(
            f"partition {partition}: the changelog holds states up to offset {ahead}, but the group's committed "
            f"offset is {committed}. Somebody moved or deleted the group's offsets, or topics.changelog belongs to "
            "another group. Put the offsets back, or start over with a new `group` and an empty changelog topic."
        )
