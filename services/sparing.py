"""How many lines one repeated event is worth: some a minute, then one that counts the rest. Standard library only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REPEATED = "repeated"
"""The event that counts others; never kept back."""
MOST_KEYS = 1000
"""Events that are told apart at once; beyond them those that went quiet are forgotten."""

Later = Callable[[float, Callable[[], None]], None]


@dataclass(slots=True)
class _Window:
    began_s: float
    seen: int = 0
    kept_back: int = 0


class Sparing:
    """Admits `most` lines of one event of one shard in `window_s`. When a window in which lines were kept back is over,
    `say(REPEATED, of=..., shard=..., times=..., seconds=...)` tells how many. Safe to use from several threads.
    """

    def __init__(
        self,
        most: int,
        window_s: float = 60.0,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        later: Later | None = None,
    ) -> None:
        self.say: Callable[..., Any] = lambda event, **fields: None
        self._most, self._window_s, self._clock_s = most, window_s, clock_s
        self._later = later or _on_a_timer
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, Any], _Window] = {}

    def admits(self, event: str, shard: Any) -> bool:
        """Whether this line is to be written."""
        if event == REPEATED:
            return True
        key, now_s = (event, shard), self._clock_s()
        with self._lock:
            window = self._windows.get(key)
            fresh = window is None or (now_s - window.began_s >= self._window_s and not window.kept_back)
            if window is None or fresh:
                self._forget(now_s)
                window = self._windows[key] = _Window(now_s)
            window.seen += 1
            if window.seen <= self._most:
                return True
            window.kept_back += 1
            first = window.kept_back == 1
        if first:
            self._later(max(0.0, window.began_s + self._window_s - now_s), lambda: self._count(key))
        return False

    def close(self) -> None:
        """Counts at once what was kept back."""
        with self._lock:
            keys = list(self._windows)
        for key in keys:
            self._count(key)

    def _count(self, key: tuple[str, Any]) -> None:
        with self._lock:
            window = self._windows.pop(key, None)
        if window is not None and window.kept_back:
            event, shard = key
            where = {} if shard is None else {"shard": shard}
            seconds = round(self._clock_s() - window.began_s, 1)
            self.say(REPEATED, of=event, **where, times=window.kept_back, seconds=seconds)

    def _forget(self, now_s: float) -> None:
        if len(self._windows) >= MOST_KEYS:
            self._windows = {
                key: window
                for key, window in self._windows.items()
                if window.kept_back or now_s - window.began_s < self._window_s
            }


def _on_a_timer(seconds: float, then: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, then)
    timer.daemon = True
    timer.start()
