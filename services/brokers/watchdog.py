"""Ends the process when a call does not return. For calls of a client library that have no timeout of their own.

The restart path is the recovery path: a process that was ended this way starts again and finds out what is true.
Imports the standard library only.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h

Expire = Callable[[str], None]


def end_process(sentence: str) -> None:
    """Says why on standard error and leaves at once: no clean-up can be trusted to return either."""
    sys.stderr.write(f"streamrnn: {sentence}\n")
    sys.stderr.flush()
    os._exit(EXIT_CODE)


class Watchdog:
    """Guards one call at a time, made by one thread. `on_expiry` gets a sentence; by default it ends the process.

    Guarding costs two attribute stores: the thread looks every quarter of `timeout_s`, so it fires up to 25 % late.
    """

    def __init__(self, timeout_s: float, on_expiry: Expire = end_process) -> None:
        self.timeout_s = timeout_s
        self._on_expiry = on_expiry
        self._guarded: tuple[float, str] | None = None  # (deadline on the monotonic clock, what is being done)
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """`with watchdog.guard("commit of epoch 7"): ...`"""
        self._guarded = (time.monotonic() + self.timeout_s, what)
        try:
            yield
        finally:
            self._guarded = None

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self.timeout_s / 4):
            guarded = self._guarded
            if guarded is not None and time.monotonic() > guarded[0]:
                self._guarded = None
                self._on_expiry(f"{guarded[1]} did not end within {self.timeout_s:g} s; leaving, to start afresh")
