"""Processes that a benchmark starts: they say JSON lines on standard output, and end with the benchmark.

Imports the standard library only.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STOP_S = 30.0
"""How long a process may take to end in order before it is killed."""


class ChildFailed(Exception):
    """A process ended or was silent when it should not have been. The message holds the end of what it wrote."""


class Child:
    """One process. Its standard error goes to `log`, which is quoted when it fails."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        env = dict(os.environ)
        if env.pop("PYTHONDONTWRITEBYTECODE", None):  # else each process would compile torch anew
            env["PYTHONPYCACHEPREFIX"] = str(log.parent / "bytecode")
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=env, text=True
            )
        self._reader = threading.Thread(target=self._read, name=f"{name}-lines", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def expect(self, event: str, timeout_s: float) -> dict[str, Any]:
        """The next line with this `event`. Raises ChildFailed when the process ends or says nothing of the kind."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            try:
                line = self._said.get(timeout=0.1)
            except queue.Empty:
                self.check()
                continue
            if line.get("event") == event:
                return line
        raise ChildFailed(f"{self.name} did not say '{event}' within {timeout_s:g} s. {self._log_end()}")

    def check(self) -> None:
        """Raises ChildFailed when the process has ended with everything that it said read."""
        if self._process.poll() is not None and not self._reader.is_alive() and self._said.empty():
            raise ChildFailed(f"{self.name} ended with status {self._process.returncode}. {self._log_end()}")

    def memory_mib(self) -> tuple[float, float]:
        """(resident now, highest resident so far), as the kernel counts them."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        now, highest = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, highest

    def stop(self) -> None:
        """SIGTERM, then SIGKILL. Returns when the process is gone."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._reader.join(5.0)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith("{"):
                    self._said.put(json.loads(line))

    def _log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return f"The end of its log:\n{chr(10).join(lines[-12:])}"
