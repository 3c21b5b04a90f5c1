"""What a check says, and what it is told. Imports settings only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from services.settings import Settings

Level = Literal["ok", "warn", "fail", "unknown"]
"""fail: `serve` would not start, or a promise would be broken. warn: worth a look. unknown: it could not be seen."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at. `fix` is a sentence; empty where nothing is to be done."""

    check: str
    level: Level
    said: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The pipeline that is looked at. One check takes `limit_s` at most; clocks and ports are this machine's."""

    settings: Settings
    limit_s: float = 10.0
    clock_s: Callable[[], float] = time.time


Look = Callable[[Target], Iterable[CheckResult]]


@dataclass(frozen=True, slots=True)
class Check:
    """One look. Where one of the checks that it `needs` has failed, it is not made."""

    name: str
    look: Look
    needs: tuple[str, ...] = ()


def days(ms: float) -> str:
    """A length of time for people."""
    for unit, size_ms in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if ms >= size_ms:
            return f"{ms / size_ms:.3g} {unit}"
    return f"{ms / 1000:.3g} s"


def size(count: float) -> str:
    """Bytes for people."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count:.0f} bytes"
