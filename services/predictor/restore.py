"""Changelog -> state store at the start of a shard. Imports codecs, ports and the state store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from services.codecs import state_rows
from services.predictor.ports import Changelog, Refused
from services.predictor.state_store import NO_ROW, StateStore
from services.records import RECENT, Memory

Wanted = Mapping[str, tuple[str, int]]
"""Memory -> (layout, bytes) that it has here."""


def restore(changelog: Changelog, partition: int, store: StateStore, wanted: Wanted) -> Iterator[tuple[int, float]]:
    """Takes the partition's state rows into the store; after each piece yields its records, and the share that is read.
    Raises Refused for rows that another release has written, and for memories of another layout where `wanted` has none
    of latest readings, by which their streams can be brought over.
    """
    strict = {} if RECENT in wanted else wanted
    first, end = changelog.span(partition)
    for records in changelog.read(partition):
        try:
            kept, tombstones = state_rows.decode(records, strict)
        except state_rows.StateRowRefused as error:
            raise Refused(str(error)) from error
        if tombstones:
            store.drop(store.numbers(partition, tombstones))
        if len(kept):
            numbers = store.numbers(partition, kept.streams)
            memories = [memory for memory in kept.memories if _fits(memory, wanted)]
            store.keep(numbers, kept.offsets, kept.saved_ms, memories)
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


def check_memories(store: StateStore, model: str, remembers: bool) -> None:
    """Raises Refused when there are streams that `model` has no memory of, and no latest readings to give it one."""
    live = store.offsets != NO_ROW
    lost = live & ~store.held(model).has
    if remembers:
        lost &= ~store.held(RECENT).has
    if lost.any():
        number = int(np.argmax(lost))
        others = sorted(name for name in store.named() if name not in (model, RECENT))
        raise Refused(
            f"the changelog holds states of {int(lost.sum())} streams that model {model} has not made "
            f"(partition {int(store.partitions[number])}, stream {store.names(np.array([number]))[0]!r}; made by model "
            f"{', '.join(others) or 'unknown'}), and none of their latest readings to bring them over with. Serve the "
            "model that made them; set `registry` and change models there, which keeps the streams' memory; or start "
            "over with a new group and an empty changelog."
        )


def _fits(memory: Memory, wanted: Wanted) -> bool:
    """Not what cannot be read: latest readings of another number, memories of a model that adapts otherwise."""
    if memory.name not in wanted:
        return memory.name != RECENT
    layout, row_bytes = wanted[memory.name]
    return memory.rows.shape[1] == row_bytes and layout.startswith(memory.layout)
