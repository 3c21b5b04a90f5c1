"""Where the in-memory sink can be made to fail, step by step. Standard library and ports only."""

from __future__ import annotations

import enum
from collections.abc import Callable

from services.predictor.ports import Retriable


class Crash(BaseException):
    """The process dies here. Not an Exception, so that no `except Exception` on the way can survive it.

    The broker keeps what it has; whoever owns the shard next settles it by `fence`.
    """


class FaultPoint(enum.StrEnum):
    """A boundary between two things that a sink asks of the broker."""

    FENCE = "fence"  # before the transactional id is initialised
    COMMITTED = "committed"  # before the group's offsets are read
    BEFORE_BEGIN = "before_begin"
    AFTER_BEGIN = "after_begin"
    AFTER_APPEND = "after_append"  # after each Encoded of the commit
    BEFORE_OFFSETS = "before_offsets"
    BEFORE_END = "before_end"
    AFTER_END = "after_end"  # the broker has decided to commit; markers are not written, the client has no reply
    READ_BACK = "read_back"  # markers are written, the offsets are not compared yet
    SETTLE = "settle"  # before the connection is made anew


COMMIT_STEPS = (
    FaultPoint.BEFORE_BEGIN,
    FaultPoint.AFTER_BEGIN,
    FaultPoint.AFTER_APPEND,
    FaultPoint.BEFORE_OFFSETS,
    FaultPoint.BEFORE_END,
    FaultPoint.AFTER_END,
    FaultPoint.READ_BACK,
)
"""What one commit passes, in this order (AFTER_APPEND once for each Encoded)."""


class InjectedFault(enum.StrEnum):
    """What can happen at a step."""

    CRASH = "crash"  # the process dies
    LOST = "lost"  # the connection is lost: Retriable


class Faults:
    """Asked at every step; `choose(step)` says what happens there, None for nothing."""

    def __init__(self, choose: Callable[[FaultPoint], InjectedFault | None] = lambda step: None) -> None:
        self._choose = choose
        self.passed: list[FaultPoint] = []  # every step that was reached, for tests to look at

    @classmethod
    def once(cls, step: FaultPoint, fault: InjectedFault, nth: int = 1) -> Faults:
        """One fault, the `nth` time that `step` is reached."""
        faults = cls(lambda at: fault if at is step and faults.passed.count(step) == nth else None)
        return faults

    def at(self, step: FaultPoint) -> None:
        """Raises Crash or Retriable when this step is to fail."""
        self.passed.append(step)
        fault = self._choose(step)
        if fault is InjectedFault.CRASH:
            raise Crash(f"at {step}")
        if fault is InjectedFault.LOST:
            raise Retriable(f"connection lost at {step}")
