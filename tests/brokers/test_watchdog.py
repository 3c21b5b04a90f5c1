"""The watchdog ends a process whose call does not return, and nobody else."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from services.brokers.watchdog import EXIT_CODE, Watchdog


def test_a_call_that_does_not_return_is_told_about_once() -> None:
    told: list[str] = []
    rang = threading.Event()

    def expire(sentence: str) -> None:
        told.append(sentence)
        rang.set()

    watchdog = Watchdog(0.05, expire)
    with watchdog.guard("a call"):
        assert rang.wait(300)
    watchdog.close()
    assert told == ["a call did not end within 0.05 s; leaving, to start afresh"]


def test_calls_that_return_in_time_are_left_alone() -> None:
    told: list[str] = []
    watchdog = Watchdog(30.0, told.append)
    for _ in range(1000):
        with watchdog.guard("a call"):
            pass
    with pytest.raises(ZeroDivisionError), watchdog.guard("a call"):
        raise ZeroDivisionError
    watchdog.close()
    assert told == []


def test_by_default_it_ends_the_process_and_says_why() -> None:
    program = (
        "import threading; from services.brokers.watchdog import Watchdog\n"
        "with Watchdog(0.05).guard('a commit'): threading.Event().wait()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_CODE
    assert "a commit did not end within" in ended.stderr
