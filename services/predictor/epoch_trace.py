"""What one epoch took, phase by phase, for those who trace it. Imports records, stats and the epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.predictor.epoch import Epoch
from services.predictor.stats import ShardStats
from services.records import Commit


@dataclass(frozen=True, slots=True)
class EpochTrace:
    """An epoch that was settled. Times are wall clock, ns since 1970."""

    epoch: int  # how many this life of the shard had settled with it
    model: str
    phases: tuple[tuple[str, int, int], ...]  # name, began, ended; poll and decode stand in the poll's first epoch
    position: Mapping[int, int]  # partition -> offset up to which all is folded in; of the batch's partitions
    readings: int
    predictions: int
    rejected: int
    kept: bool


Tracer = Callable[[EpochTrace], None]


class PhaseTimer:
    """Times the phases of the loop's turns. Laps are kept only where somebody traces."""

    def __init__(self, stats: ShardStats, tracer: Tracer | None) -> None:
        self._stats, self.tracer = stats, tracer
        self._laps: list[tuple[str, float, float]] = []

    def __call__(self, phase: str, began: float) -> None:
        """A phase that began at `began` (time.perf_counter) is over."""
        now = time.perf_counter()
        self._stats.phase_s[phase].observe(now - began)
        if self.tracer is not None:
            self._laps.append((phase, began, now))

    def laps(self) -> tuple[tuple[str, int, int], ...]:
        """Phases since the last call, in wall-clock ns."""
        laps, self._laps = self._laps, []
        to_wall = time.time_ns() - round(time.perf_counter() * 1e9)
        return tuple((name, round(began * 1e9) + to_wall, round(ended * 1e9) + to_wall) for name, began, ended in laps)


def traced(stats: ShardStats, stopwatch: PhaseTimer, epoch: Epoch, commit: Commit, kept: bool) -> EpochTrace:
    """The epoch that has just been settled."""
    return EpochTrace(
        epoch=sum(stats.epochs.values()),
        model=epoch.origin.model,
        phases=stopwatch.laps(),
        position=commit.offsets if kept else commit.started,
        readings=epoch.batch.readings,
        predictions=len(epoch.flags),
        rejected=sum(len(part.rejected) for part in epoch.batch.parts),
        kept=kept,
    )
