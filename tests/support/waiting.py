"""Waiting for something to happen: for as long as anything moves, not for a number of seconds.

A machine half as fast, or with other work beside it, takes its time and is waited for; what hangs is found all the
same. The bound of a whole test is pytest-timeout's (`timeout` in pyproject.toml), for what nobody foresaw.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

STILL_S = 120.0
"""How long nothing may move. Not a second of it is spent where something does happen."""


def wait_for(
    done: Callable[[], Value],
    what: str,
    *,
    progress: Callable[[], object] | None = None,
    still_s: float = STILL_S,
    said: Callable[[], str] | None = None,
    pause_s: float = 0.02,
) -> Value:
    """Looks until `done()` is true and returns its value; what it raises ends the wait.

    `progress()` says how far things are: a count of lines or commits, an offset, several of them as a tuple. Any change
    starts the clock anew, so it must not move by itself, as the time of day does. Without it what `done()` returns is
    what must move. `said()` is what to show when all is in vain: the tail of a log. Between two looks it pauses for
    `pause_s`, and at least as long as a look takes, so that looking leaves a core for what is looked at.

    Raises AssertionError when nothing has moved for `still_s` seconds, with `what`, what was last seen, and `said()`.
    """
    began_s = moved_s = time.monotonic()
    seen: object = None
    while True:
        looked_s = time.monotonic()
        if value := done():
            return value
        now_seen = progress() if progress is not None else value
        now_s = time.monotonic()
        if now_seen != seen:
            seen, moved_s = now_seen, now_s
        elif now_s - moved_s > still_s:
            told = f"\n{said()}" if said is not None else ""
            raise AssertionError(
                f"not within {now_s - began_s:.0f} s, and nothing has moved for {still_s:g} s: {what}; "
                f"last seen: {seen!r}{told}"
            )
        time.sleep(max(pause_s, now_s - looked_s))
