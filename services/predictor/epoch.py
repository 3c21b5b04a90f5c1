"""The open epoch: what a batch gave, gathered until it is sealed into a Commit. A value; does no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.codecs import dead_letters, predictions, state_rows
from services.predictor.batcher import Batch
from services.predictor.state_store import StateStore
from services.records import Commit, Encoded, Predictions, Role, StateRows

if TYPE_CHECKING:
    from rnn.engine import Result


@dataclass(frozen=True, slots=True)
class Origin:
    """Who writes: named in predictions, state rows and dead letters."""

    model: str  # model id
    group: str
    readings_topic: str
    max_bytes: int = 900_000  # largest value that may be written as one record


class Epoch:
    """One batch's outputs. Call the `add_` methods once each, then `seal`."""

    def __init__(self, batch: Batch, origin: Origin, now_ms: int) -> None:
        self.batch, self.origin, self.now_ms = batch, origin, now_ms
        self.flags: NDArray[np.uint8] = np.zeros(0, np.uint8)  # [readings]
        self._writes: list[Encoded] = []
        self._states: list[Encoded] = []
        for part in batch.parts:
            if len(part.rejected):
                self._writes.append(
                    dead_letters.encode(
                        part.rejected, origin.readings_topic, origin.group, now_ms, max_bytes=origin.max_bytes
                    )
                )

    def add_predictions(self, result: Result) -> None:
        """Encodes the result of all parts' readings, in their order."""
        self.flags = result.flags
        row = 0
        for part in self.batch.parts:
            readings = part.readings
            rows = slice(row, row + len(readings))
            row += len(readings)
            if not len(readings):
                continue
            made = Predictions(
                model=self.origin.model,
                partition=part.partition,
                offsets=readings.offsets,
                rows=readings.rows,
                streams=readings.streams,
                at_ms=readings.at_ms,
                y=result.y[rows],
                lo=None if result.lo is None else result.lo[rows],
                hi=None if result.hi is None else result.hi[rows],
                score=result.score[rows],
                flags=result.flags[rows],
            )
            keys, values = predictions.encode(made, max_bytes=self.origin.max_bytes)
            self._writes.append(Encoded(Role.PREDICTIONS, part.partition, keys, values, self.now_ms))

    def add_states(
        self,
        store: StateStore,
        numbers: NDArray[np.int64],
        offsets: NDArray[np.int64],
        rows: NDArray[np.uint8],
        layout: str,
    ) -> None:
        """Encodes the dirty streams' rows: numbers [k], last offsets [k], rows [k, row_bytes]."""
        owner = store.partitions[numbers]
        for partition in np.unique(owner).tolist():
            mine = np.flatnonzero(owner == partition)
            saved_ms = np.full(len(mine), self.now_ms, np.int64)
            dirty = StateRows(partition, store.names(numbers[mine]), offsets[mine], saved_ms, rows[mine])
            keys, values = state_rows.encode(dirty, self.origin.model, layout)
            self._states.append(Encoded(Role.CHANGELOG, partition, keys, values, self.now_ms))

    def add_tombstones(self, store: StateStore, numbers: NDArray[np.int64]) -> None:
        """Forgets streams [k] that were idle for longer than their time to live."""
        owner = store.partitions[numbers]
        for partition in np.unique(owner).tolist():
            keys: list[bytes | None] = [*store.names(numbers[owner == partition])]
            self._states.append(Encoded(Role.CHANGELOG, partition, keys, [None] * len(keys), self.now_ms))

    def seal(self) -> Commit:
        """All of it as one value. State rows come last: without transactions they must not overtake predictions."""
        return Commit(
            started={part.partition: part.started for part in self.batch.parts},
            offsets={part.partition: part.next_offset for part in self.batch.parts},
            writes=(*self._writes, *self._states),
        )
