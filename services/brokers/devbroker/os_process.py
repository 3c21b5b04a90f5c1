"""One operating system process that may be a child of ours or of another shell: is it there, end it, guard it.

Lives here: everything that knows Linux' /proc. Imports the standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, named so that another one with a recycled number is not taken for it."""

    pid: int
    started_ticks: int  # clock ticks from the machine's boot to the process's start

    @staticmethod
    def of(pid: int) -> ProcessId | None:
        """None: no such process, or it has ended and only waits to be reaped."""
        process = Path("/proc", str(pid))
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            # A killed process whose first thread has gone may still hold its ports and locks through the others.
            gone = fields[0] in "ZX" and len(list((process / "task").iterdir())) <= 1
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if gone else ProcessId(pid, int(fields[19]))

    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Does nothing when the process has ended."""
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


def ended(process: ProcessId, child: subprocess.Popen[bytes] | None, timeout_s: float) -> bool:
    """Waits for the process to end; False: it has not within `timeout_s`. A child of ours is reaped."""
    if child is not None and child.pid == process.pid:
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True
    deadline = time.monotonic() + timeout_s
    while process.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def guard(pid: int) -> subprocess.Popen[bytes]:
    """A small shell that kills `pid` when this process ends, however it ends: it waits for the end of a pipe that
    only we hold open. (PR_SET_PDEATHSIG would fire when the starting *thread* ends.) Kill the guard to call it off.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -9 "$1"', "guard", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def call_off(guarding: subprocess.Popen[bytes] | None) -> None:
    """Ends a guard without its shot."""
    if guarding is None:
        return
    guarding.kill()
    guarding.wait()
    if guarding.stdin is not None:
        guarding.stdin.close()
