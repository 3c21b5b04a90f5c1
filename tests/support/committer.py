"""commit_loop as a process that comes back, and the look at what it has left in the topics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

from commit_loop import names, offset, texts
from waiting import wait_for

from services.brokers.kafka_client import group_offsets, read_topic
from services.brokers.watchdog import EXIT_CODE
from services.records import Role

ROOT = Path(__file__).parents[2]


class Committer:
    """The program of commit_loop in a process, started again each time the watchdog or a kill ended it."""

    def __init__(self, bootstrap: str, pipeline: str, epochs: int, way: str, log: Path, timeout_s: float) -> None:
        script = str(ROOT / "tests" / "support" / "commit_loop.py")
        self.command = [sys.executable, script, bootstrap, pipeline, str(epochs), str(timeout_s), way]
        self.log = log
        self.exits: list[int] = []
        self.process = self._start()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            return subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)

    def _watch(self) -> None:
        while True:
            self.exits.append(self.process.wait())
            if self.exits[-1] not in (EXIT_CODE, -signal.SIGKILL):
                return
            self.process = self._start()

    def reached(self) -> int:
        """How many epochs it has said that it kept, of all its lives."""
        return self.log.read_text().count("reached")

    def progress(self, epochs: int = 1) -> None:
        """Returns when it has kept so many epochs more, or has ended."""
        goal = self.reached() + epochs
        wait_for(lambda: self.reached() >= goal or self.ended(0), f"epoch {goal} is kept", progress=self.reached)

    def pauses_s(self) -> list[float]:
        """Of the epochs that it has kept: how long after the one before, in order."""
        at = [float(line.split()[0]) for line in self.log.read_text().splitlines() if " reached " in line]
        return [later - earlier for earlier, later in pairwise(at)]

    def ended(self, within_s: float) -> bool:
        self.thread.join(within_s)
        return not self.thread.is_alive()

    def end(self) -> None:
        """Returns when it has ended by itself."""
        wait_for(lambda: self.ended(0), "all epochs are kept", progress=self.reached)
        assert self.exits[-1] == 0, self.log.read_text()[-3000:]

    def stop(self) -> None:
        self.process.terminate()
        self.thread.join(60)


def check(bootstrap: str, pipeline: str, epochs: int) -> None:
    """Each epoch once, in order, everywhere."""
    options = {"bootstrap_servers": bootstrap}
    assert group_offsets(options, pipeline, names(pipeline)[Role.READINGS])[0] == offset(epochs)
    for role in (Role.PREDICTIONS, Role.DEAD_LETTERS, Role.CHANGELOG):
        found = read_topic(options, names(pipeline)[role])
        for partition in (0, 1):
            expected = [text for epoch in range(partition, epochs, 2) for text in texts(role, epoch)]
            assert found[partition].values == expected, (role, partition)
