"""Which streams have been silent for longer than their time to live. Imports numpy and the state store.

Any clock may be wrong by years: this machine's, a producer's, the broker's that stamps for it. So a stream's silence
begins at the latest that any of them said when it was read, and it ends by the readings' time alone: the latest Kafka
timestamp of its partition, of those that do not lie ahead of this machine's clock. A clock that is wrong can only
prolong a stream's life; only a machine's that lay behind by more than FUTURE times to live can also end one too early,
once it is set right. Nobody is silent behind a backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from services.predictor.state_store import NO_ROW, StateStore
from services.records import Records

LOOKS = 100
"""How often one looks within a time to live."""
AHEAD = 10
"""A timestamp may be ahead of this machine's clock by that part of a time to live."""
FUTURE = 3
"""Times to live by which a timestamp that is ahead of this machine's clock may prolong a life: it may be right."""
NEVER_MS = np.iinfo(np.int64).min


class Idle:
    """The streams of one shard. `ttl_ms`: how long a stream may be silent; None: for ever."""

    def __init__(self, store: StateStore, ttl_ms: int | None) -> None:
        self._store, self._ttl_ms = store, ttl_ms
        self._time_ms: dict[int, int] = {}  # partition -> the readings' time
        self._seen_ms: dict[int, int] = {}  # partition -> when its streams were seen that were polled last
        self._look_ms: dict[int, int] = {}  # partition -> its time when to look next

    def read(self, polled: Sequence[Records], now_ms: int) -> None:
        """Moves the times on. `now_ms`: this machine's clock."""
        for records in polled:
            partition, said_ms = records.partition, records.timestamps_ms
            before_ms = self._time_ms.get(partition, NEVER_MS)
            # One stamp of a far future may not keep its poll's streams for ever.
            latest_ms = min(int(said_ms.max()), now_ms + FUTURE * (self._ttl_ms or 0))
            self._seen_ms[partition] = max(before_ms, now_ms, latest_ms)
            credible_ms = said_ms[said_ms <= now_ms + (self._ttl_ms or 0) // AHEAD]
            if len(credible_ms):
                self._time_ms[partition] = max(before_ms, min(int(credible_ms.max()), now_ms))

    def seen_ms(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """When streams [k] of the last poll were seen."""
        partitions = self._store.partitions[numbers]
        seen_ms = np.empty(len(numbers), np.int64)
        for partition in np.unique(partitions).tolist():
            seen_ms[partitions == partition] = self._seen_ms[partition]
        return seen_ms

    def found(self, lag: Callable[[], Mapping[int, int]], busy: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        """At most so many idle streams, but none of the `busy` ones, which were polled. `lag`: what is left to read."""
        if self._ttl_ms is None:
            return np.zeros(0, np.int64)
        due = [partition for partition, ms in self._time_ms.items() if ms >= self._look_ms.get(partition, ms)]
        if not due:
            return np.zeros(0, np.int64)
        unread = lag()
        if not (due := [partition for partition in due if unread.get(partition, 1) == 0]):
            return np.zeros(0, np.int64)
        since_ms = np.full(max(due) + 1, NEVER_MS)
        for partition in due:
            since_ms[partition] = self._time_ms[partition] - self._ttl_ms
        live = np.flatnonzero((self._store.offsets != NO_ROW) & (self._store.partitions < len(since_ms)))
        idle = live[self._store.seen_ms[live] < since_ms[self._store.partitions[live]]]
        idle = np.setdiff1d(idle, busy)
        if len(idle) <= most:
            self._look_ms |= {partition: self._time_ms[partition] + self._ttl_ms // LOOKS for partition in due}
        return idle[:most]
