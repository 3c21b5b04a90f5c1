"""How many readings the next epoch may have. Imports the standard library only.

A reading takes a microsecond where thousands of streams are stepped together, and a millisecond where a backlog is of
one stream; so the limit follows what epochs have taken. It bounds how long a stop waits and how much a crash repeats:
nobody is replaced for a long epoch, because progress is told between waves.
"""

from __future__ import annotations

FIRST = 10_000
"""Readings of an epoch before anything is known."""


class Pace:
    """At most `most` readings, and as many as are stepped within `within_s` seconds."""

    def __init__(self, most: int, within_s: float) -> None:
        self._most, self._within_s = most, within_s
        self.readings = min(most, FIRST)

    def took(self, readings: int, seconds: float) -> None:
        """An epoch's readings were stepped in so many seconds."""
        if seconds > self._within_s:
            self.readings = max(1, min(self.readings, int(readings * self._within_s / seconds)))
        elif 2 * seconds <= self._within_s and 2 * readings >= self.readings:
            self.readings = min(self._most, 2 * self.readings)
