"""Fences the registration that a killed broker has left behind, before the broker is started again.

A broker that comes back within its former self's session takes itself for the leader of its partitions, until the
session runs out and they have no leader for a moment. A transaction that had been decided when the broker was killed
can meet that moment: Kafka 4.4 then takes the partitions that its markers are for as deleted, and the transaction as
done. What was written in it stays undecided for ever; nobody reads past it and the group's offsets cannot be read
(ADR 9). So a controller alone, for which the broker is merely silent, fences it first.

Imports the standard library and its siblings.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from services.brokers.devbroker import os_process
from services.brokers.devbroker.errors import StartFailed

SESSION_MS = 100
_REGISTERED = re.compile(r"Replayed RegisterBrokerRecord|Replayed BrokerRegistrationChangeRecord.*?fenced=(-?\d)")
_ACTIVE = "Becoming the active controller"

CONTROLLER_ALONE: Mapping[str, str] = {
    "process.roles": "controller",
    "broker.session.timeout.ms": str(SESSION_MS),
    "broker.heartbeat.interval.ms": str(SESSION_MS // 5),
}


def fence(start: Callable[[Path], subprocess.Popen[bytes]], log: Path, timeout_s: float = 60.0) -> None:
    """Runs the controller that `start(log)` starts until it has fenced the broker. Raises StartFailed."""
    log.unlink(missing_ok=True)
    controller = start(log)
    guard = os_process.guard(controller.pid)
    try:
        deadline = time.monotonic() + timeout_s
        while not is_fenced(log.read_text(errors="replace") if log.exists() else ""):
            if controller.poll() is not None or time.monotonic() > deadline:
                raise StartFailed(f"the controller did not fence the killed broker; its log is {log}")
            time.sleep(0.02)
        controller.terminate()  # in order, so that what it has decided is on the disk
        controller.wait(20.0)
    finally:
        os_process.call_off(guard)
        controller.kill()
        controller.wait()


def is_fenced(log: str) -> bool:
    """Whether the controller of this log is in charge and no broker is registered that it takes for a running one."""
    said = [change[1] or "1" for change in _REGISTERED.finditer(log)]
    decided = [fenced for fenced in said if fenced != "-1"]  # -1: the change was about something else
    return _ACTIVE in log and (not decided or decided[-1] == "1")
