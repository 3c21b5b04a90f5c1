"""What the supervisor knows of one shard, and of an actor that it has replaced. Plain values; imports nothing heavy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from services.fleet.status import ModelAssignment, ShardStatus

BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits before the n-th restart in a row; an incarnation that has committed something starts the row anew."""
START_S = 600.0
"""How long an actor may take to its first progress."""
GRACE_S = 5.0
"""How long a replaced actor may live on once its replacement is ready."""
REPLACED_S = 30.0
"""How long it may live on in any case: it may hold the very resources that its replacement waits for."""
REFUSED_S = 60.0
"""After this a shard that was refused, or a model that one could not run, is tried again: somebody may have mended it.
"""
BLAMED = 2
"""After so many restarts in a row, and another death, a challenger is taken for the cause."""
YOUNG_S = 60.0
"""Who dies later than that after it was ready has another cause."""
CALM_S = 60.0
"""An incarnation that is ready for so long starts the row of deaths anew."""
DYING = 3
"""Deaths and stalls in a row after which a shard is not ready, however often it comes back."""
DROPPING = 10
"""Epochs dropped in a row after which a shard is not ready: it reads and computes, and nothing comes of it."""
HOPELESS = 6
"""Deaths in a row after which nobody expects the next incarnation to live."""


@dataclass(slots=True)
class RetiredActor:
    """A stalled actor whose shard has a newer incarnation."""

    shard: int
    incarnation: int
    actor: Any
    run: Any
    due_s: float  # monotonic, when it is killed


@dataclass(slots=True)
class ShardHandle:
    """One shard's current incarnation."""

    shard: int
    incarnation: int = -1
    actor: Any = None
    run: Any = None  # reference to the value of ShardActor.run
    asked: Any = None  # reference to an unanswered status
    asked_s: float = 0.0
    status: ShardStatus | None = None
    moved_s: float = 0.0  # monotonic, when progress was last seen
    beats: int = 0  # ShardStats.beats as they were then
    restored: float = 0.0  # share of the changelog read, when last said
    ready_s: float | None = None  # monotonic, when this incarnation was first seen ready
    refused: str = ""  # why it is set aside: going on would break a promise; empty: it is not
    failures: int = 0  # restarts in a row
    stalls: int = 0  # replacements in a row that were begun at once, for it had stalled
    died_of: str = ""  # the last line of what it died of, or that it stalled, the last time
    doubted_s: float = 0.0  # monotonic; until then a stalled predecessor may wake up and shut it out
    due_s: float | None = None  # monotonic, when to start the next incarnation
    restarts: dict[str, int] = field(default_factory=dict)  # cause -> count
    assignment: ModelAssignment = field(default_factory=ModelAssignment)  # what it was told to run
    ordered: Any = None  # reference to the answer of an order under way
    ordering: ModelAssignment | None = None  # the order under way
    served: ModelAssignment | None = None  # what it ran last, in this incarnation or an earlier one; None: nothing yet

    def next_incarnation(self) -> None:
        """Nothing is known of the actor that comes."""
        self.incarnation += 1
        self.due_s = self.status = self.asked = self.ready_s = self.ordered = self.ordering = None
        self.moved_s, self.beats, self.restored = time.monotonic(), 0, 0.0

    def count(self, cause: str) -> None:
        """A restart with that cause."""
        self.restarts[cause] = self.restarts.get(cause, 0) + 1

    def died(self, message: str) -> float:
        """Its actor has ended with a failure. Returns the seconds until the next incarnation is due."""
        self.count("died")
        wait_s = BACKOFF_S[min(self.failures, len(BACKOFF_S) - 1)]
        self.failures += 1
        self.died_of = message.strip().rpartition("\n")[2][:200]
        self.due_s = time.monotonic() + wait_s
        return wait_s

    def retired(self, patience_s: float) -> RetiredActor:
        """Its actor, which has made no progress for so long. A replacement is due at once, no challenger to blame."""
        self.count("stalled")
        self.stalls += 1
        self.died_of = f"no progress for {patience_s:g} s"
        due_s = time.monotonic() + REPLACED_S
        self.doubted_s = due_s + REPLACED_S
        return RetiredActor(self.shard, self.incarnation, self.actor, self.run, due_s)

    def lasted(self) -> None:
        """This incarnation has outlived what the ones before it died of: the row begins anew."""
        self.failures = self.stalls = 0

    def set_aside(self, why: str) -> None:
        """Going on would break a promise; it is tried again after REFUSED_S."""
        self.refused, self.status, self.due_s = why, None, time.monotonic() + REFUSED_S

    def suspect(self) -> str:
        """The challenger that may be what kills this shard: it sat in each life, and none lasted. Empty: nobody."""
        young = self.ready_s is None or time.monotonic() < self.ready_s + YOUNG_S
        return self.assignment.challenger if young and self.failures >= BLAMED else ""

    def calm(self) -> bool:
        """Whether it has outlived what others died of, though it may have committed nothing: one that stalls goes on
        telling its status, so only progress counts.
        """
        return self.ready_s is not None and self.moved_s - self.ready_s > CALM_S

    def unready(self, now_s: float, patience_s: float) -> list[str]:
        """What keeps it from serving all its streams, a sentence each; without progress it is for `patience_s`."""
        why = []
        if self.status is None or self.run is None:
            why.append(f"shard {self.shard} is starting")
        elif not self.status.stats.ready:
            why.append(f"shard {self.shard} is restoring state: {self.status.stats.restore_done:.0%}")
        elif now_s - self.moved_s > patience_s:
            why.append(f"shard {self.shard} has made no progress for {now_s - self.moved_s:.0f} s")
        if (times := self.failures + self.stalls) >= DYING:
            failed = "died or stalled" if self.stalls else "died"
            why.append(f"shard {self.shard} has {failed} {times} times in a row, the last time of: {self.died_of}")
        if self.status is not None and (epochs := self.status.stats.dropped_in_row) >= DROPPING:
            why.append(
                f"shard {self.shard} has dropped its last {epochs} epochs, the last one because "
                f"{self.status.stats.dropped_for}"
            )
        if self.status is not None and (streams := self.status.stats.unreadable_streams):
            what = "the state row of 1 stream" if streams == 1 else f"the state rows of {streams} streams"
            why.append(f"shard {self.shard} cannot read {what}; see the alert StreamrnnInternalError")
        return why
