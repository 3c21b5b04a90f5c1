"""Trying again for as long as the broker is away; a commit's outcome. Imports ports, stats and records."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from services.predictor.ports import Retriable, Sink, Source
from services.predictor.stats import ShardStats
from services.records import Commit

T = TypeVar("T")

RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits between attempts, the last one for ever."""


class Patience:
    """`patiently(attempt)` gives the attempt's value once it has one. Nothing is lost by waiting."""

    def __init__(
        self, pause: Callable[[float], object], notify: Callable[..., None], progress: Callable[[], None]
    ) -> None:
        self._pause, self._notify, self._progress = pause, notify, progress
        self._since_s: float | None = None  # monotonic clock when the attempt under way first failed

    def __call__(self, attempt: Callable[..., T], *given: Any) -> T:
        """Tries until the attempt does not raise Retriable; says so, and that this is progress, each time."""
        tries = 0
        while True:
            try:
                value = attempt(*given)
                self._since_s = None
                return value
            except Retriable as error:
                if self._since_s is None:
                    self._since_s = time.monotonic()
                wait_s = RETRY_S[min(tries, len(RETRY_S) - 1)]
                tries += 1
                self._notify("broker_away", error=str(error), retry_s=wait_s)
                self._progress()
                self._pause(wait_s)

    def outlast(self, event: str, ask: Callable[[], str], wait_s: float, **fields: object) -> str:
        """Asks every second until the answer, which says what is in the way, is empty, or for `wait_s`; says each time
        what is waited for. Returns the last answer.
        """
        waited_s = 0.0
        while (why := self(ask)) and waited_s < wait_s:
            self._notify(event, reason=why, waited_s=waited_s, **fields)
            self._progress()
            self._pause(1.0)
            waited_s += 1.0
        return why

    def away_s(self, source: Source) -> float:
        """For how long the broker has not answered, an attempt or the source; 0: it answers. Waiting is progress, so
        that is how a shard that does nothing else can be told.
        """
        # A source in memory has no broker that could be away.
        since_s = (self._since_s, getattr(source, "away_since_s", None))
        away = [one for one in since_s if one is not None]
        return time.monotonic() - min(away) if away else 0.0


def settled(sink: Sink, commit: Commit, patiently: Patience, stats: ShardStats, notify: Callable[..., None]) -> bool:
    """Commits, and finds out whether that was kept, however long the broker is away. False: nothing of it happened, and
    `stats` say why. Raises Fenced, Refused or Forgotten.
    """
    try:
        sink.commit(commit)
        return True
    except Retriable as error:
        stats.dropped_for = str(error)
        notify("unsettled", error=stats.dropped_for)
    kept = patiently(sink.settle, commit)
    notify("settled", kept=kept)
    return kept
