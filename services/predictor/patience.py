"""Trying again for as long as the broker is away. Imports ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from services.predictor.ports import Unsettled

T = TypeVar("T")

RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits between attempts, the last one for ever."""


class Patience:
    """`patiently(attempt)` gives the attempt's value once it has one. Nothing is lost by waiting."""

    def __init__(
        self, pause: Callable[[float], object], notify: Callable[..., None], progress: Callable[[], None]
    ) -> None:
        self._pause, self._notify, self._progress = pause, notify, progress

    def __call__(self, attempt: Callable[[], T]) -> T:
        """Tries until the attempt does not raise Unsettled; says so, and that this is progress, each time."""
        tries = 0
        while True:
            try:
                return attempt()
            except Unsettled as error:
                wait_s = RETRY_S[min(tries, len(RETRY_S) - 1)]
                tries += 1
                self._notify("broker_away", error=str(error), retry_s=wait_s)
                self._progress()
                self._pause(wait_s)
