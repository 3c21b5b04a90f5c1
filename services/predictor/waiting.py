"""Which streams may hold predictions that wait for later readings, and which of them have been silent for too long.

Silence is measured on a clock that only goes forward (`steady_ms`, of any origin), and only up to the last moment at
which everything that the partition had was read: behind a backlog nobody is silent. Imports numpy and the state store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.predictor.state_store import NO_ROW, StateStore

if TYPE_CHECKING:
    from rnn.config import ModelConfig

LOOKS = 10
"""How often one looks within the time that a stream may be silent."""


class Waiting:
    """The streams of one shard. `after_ms`: how long a stream may be silent; None: nothing ever waits."""

    def __init__(self, store: StateStore, after_ms: int | None) -> None:
        self._store, self._after_ms = store, after_ms
        self._may = np.zeros(0, np.bool_)  # [numbers], whether something may wait in the stream
        self._since_ms = np.zeros(0, np.int64)  # [numbers], when silence began, at the earliest when this owner did
        self._read_ms: dict[int, int] = {}  # partition -> when it was last seen to hold nothing unread
        self._look_ms = 0  # when to look next

    def start(self, steady_ms: int) -> None:
        """All streams of the store may hold something; silence before now counts for nothing."""
        self._look_ms = steady_ms
        self.stepped(np.flatnonzero(self._store.offsets != NO_ROW), steady_ms)

    def stepped(self, numbers: NDArray[np.int64], steady_ms: int) -> None:
        """Streams [k] have folded readings in, in an epoch that was kept."""
        if self._after_ms is not None:
            self._cover()
            self._may[numbers], self._since_ms[numbers] = True, steady_ms

    def flushed(self, numbers: NDArray[np.int64]) -> None:
        """Nothing waits in streams [k] any more, and that is committed."""
        self._may[numbers] = False

    def without(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of streams [k] in which nothing waits."""
        if self._after_ms is None:
            return numbers
        self._cover()
        return numbers[~self._may[numbers]]

    def silent(self, lag: Mapping[int, int], steady_ms: int, most: int) -> Iterator[NDArray[np.int64]]:
        """Streams that have been silent for too long, at most `most` at a time. `lag`: what is left to read now."""
        if self._after_ms is None:
            return
        self._read_ms.update({partition: steady_ms for partition, records in lag.items() if not records})
        if steady_ms < self._look_ms:
            return
        self._look_ms = steady_ms + self._after_ms // LOOKS
        self._cover()
        numbers = np.flatnonzero(self._may)
        if not len(numbers):
            return
        partitions = self._store.partitions[numbers]
        read_ms = np.zeros(int(partitions.max()) + 1, np.int64)
        for partition, at_ms in self._read_ms.items():
            if partition < len(read_ms):
                read_ms[partition] = at_ms
        silent_ms = read_ms[partitions] - self._since_ms[numbers]
        numbers = numbers[silent_ms > self._after_ms]
        yield from (numbers[first : first + most] for first in range(0, len(numbers), most))

    def _cover(self) -> None:
        if self._store.capacity > len(self._may):
            grown = np.zeros(self._store.capacity, np.bool_)
            grown[: len(self._may)] = self._may
            since_ms = np.zeros(self._store.capacity, np.int64)
            since_ms[: len(self._may)] = self._since_ms
            self._may, self._since_ms = grown, since_ms


def flush_after_ms(config: ModelConfig, asked_ms: int | None) -> int | None:
    """How long a stream may be silent before what waits in it is sent: as asked, else ten usual intervals and 10 s at
    least. None: the model lets nothing wait.
    """
    if config.direction == "forward":
        return None
    return max(10_000, round(10_000 * config.interval_s)) if asked_ms is None else asked_ms
