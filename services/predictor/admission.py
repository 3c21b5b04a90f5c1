"""Whose readings are let in: a partition has no more streams than `state.max_streams`, however many keys are written.

Each stream costs memory for as long as it is not silent for `state.ttl_days`, so random keys would take all there is.
Imports numpy, records, this room's state store and the decoder's refusals.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from services.codecs.readings import rejected_of
from services.codecs.refusal import Why
from services.predictor.batcher import select
from services.predictor.state_store import StateStore
from services.records import Readings, Reason, Records, Rejected


class Admission:
    """At most `most` streams in each partition of one shard. `notify`: who is told that one is full."""

    def __init__(self, store: StateStore, most: int, notify: Callable[..., None]) -> None:
        self._store, self._most, self._notify = store, most, notify
        self._full: set[int] = set()  # partitions that have turned somebody away

    @property
    def used(self) -> float:
        """Of the streams that a partition may have, the share that the fullest one has."""
        return self._store.most / self._most

    def admitted(self, records: Records, readings: Readings, rejected: Rejected) -> tuple[Readings, Rejected]:
        """What was decoded of a partition's `records`, without the records of new streams for which there is no room. A
        packed record with such a row is refused as a whole.
        """
        partition = records.partition
        room = self._most - self._store.count(partition)
        if len(readings) <= room:  # most of the time, without a look at the streams
            self._full.discard(partition)
            return readings, rejected
        unknown = np.flatnonzero(np.array(self._store.find(partition, readings.streams)) < 0)
        refused: dict[int, Why] = {}
        new: set[bytes] = set()
        offsets = readings.offsets[unknown]
        for rows in np.split(unknown, np.flatnonzero(np.diff(offsets)) + 1) if len(unknown) else []:
            its = {readings.streams[row] for row in rows.tolist()} - new
            if len(new) + len(its) <= room:
                new |= its
            else:
                refused[int(readings.offsets[rows[0]])] = self._why(partition, readings.streams[rows[0]])
        if not refused:
            return readings, rejected
        kept = np.flatnonzero(~np.isin(readings.offsets, list(refused)))
        for reason, detail, offset in zip(rejected.reasons, rejected.details, rejected.records.offsets, strict=True):
            refused[int(offset)] = Why(reason, detail)
        places = np.searchsorted(records.offsets, list(refused)).tolist()
        return select(readings, kept), rejected_of(
            records, dict(zip(places, refused.values(), strict=True)), rejected.faults
        )

    def _why(self, partition: int, stream: bytes) -> Why:
        if partition not in self._full:
            self._full.add(partition)
            self._notify("streams_full", partition=partition, most=self._most, stream=stream)
        return Why(
            Reason.TOO_MANY_STREAMS,
            f"Its stream is new, and partition {partition} has its {self._most} streams already (state.max_streams). "
            "Look at the keys: each should be a sensor's id. If they are, raise the setting; silent streams make room "
            "after state.ttl_days.",
        )
