"""A source whose polls are bounded in readings, where the broker's are bounded in records. Imports ports and records.

A packed record of some kilobytes may hold 10,000 readings. What was polled and is too much for one epoch waits here as
it came, not decoded; how much that can be in memory is the source's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from services.predictor.ports import Source
from services.records import Records

Weigh = Callable[[Records], NDArray[np.int64]]
"""Readings in each record [n], at least 1 for each."""


class Portions:
    """`ports.Source`, but `poll` takes readings. A record is never split: one that has too many comes alone."""

    def __init__(self, source: Source, weigh: Weigh) -> None:
        self.source, self._weigh = source, weigh
        # partition -> what was not given out, its weights
        self._held: dict[int, tuple[Records, NDArray[np.int64]]] = {}

    @property
    def away_since_s(self) -> float | None:
        """Monotonic clock when the broker was first found away; None: it answers."""
        since_s: float | None = getattr(self.source, "away_since_s", None)  # a source in memory has no broker
        return since_s

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Partition whose next records cannot be read -> why; a source in memory can read all it has."""
        unreadable: Mapping[int, str] = getattr(self.source, "unreadable", {})
        return unreadable

    def overtaken(self) -> Mapping[int, int]:
        """Partition -> where reading goes on, of those that retention has overtaken since the last call."""
        found: dict[int, int] = getattr(self.source, "overtaken", {})
        taken = dict(found)
        found.clear()
        return taken

    def beginning(self) -> Mapping[int, int]:
        """See ports.Source."""
        return self.source.beginning()

    def seek(self, offsets: Mapping[int, int]) -> None:
        """See ports.Source."""
        for partition in offsets:
            self._held.pop(partition, None)
        self.source.seek(offsets)

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        """Records with so many readings at most, but one always if there is one. Asks the source when none is left."""
        if not self._held:
            for records in self.source.poll(max_records, timeout_s):
                self._held[records.partition] = records, self._weigh(records)
        given: list[Records] = []
        held: dict[int, tuple[Records, NDArray[np.int64]]] = {}
        room = max_records
        for partition, (records, weights) in self._held.items():
            n = int(np.searchsorted(np.cumsum(weights), room, side="right"))
            n = n or int(not given)
            if n:
                given.append(records.rows(0, n))
                room -= int(weights[:n].sum())
            if n < len(records):
                held[partition] = records.rows(n, len(records)), weights[n:]
        self._held = held
        return given

    def lag(self) -> Mapping[int, int]:
        """See ports.Source; with what waits here."""
        lag = dict(self.source.lag())
        for partition, (records, _) in self._held.items():
            lag[partition] = lag.get(partition, 0) + int(records.offsets[-1] + 1 - records.offsets[0])
        return lag

    def close(self) -> None:
        """See ports.Source."""
        self.source.close()
