"""`broker.json`: which process serves a broker's folder and on which ports, for whoever opens the folder next.

Imports the standard library and its siblings.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from services.brokers.devbroker.errors import DevBrokerError
from services.brokers.devbroker.os_process import ProcessId
from services.brokers.devbroker.server_settings import Ports


class Identity:
    """Read anew at every question: another process may have started or stopped the broker."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "broker.json"

    def read(self) -> dict[str, int | None]:
        """Fields of Ports and ProcessId; empty where no broker has been started yet."""
        try:
            known: dict[str, int | None] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        return known

    def write(self, ports: Ports, process: ProcessId) -> None:
        """Replaces the file as a whole, so that a reader never sees half of it."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(ports) | asdict(process), indent=2) + "\n")
        fresh.replace(self._file)

    def process(self) -> ProcessId | None:
        """The broker's process, None when it does not run."""
        known = self.read()
        pid, ticks = known.get("pid"), known.get("started_ticks")
        if pid is None or ticks is None:
            return None
        process = ProcessId(pid, ticks)
        return process if process.alive() else None

    def ports(self) -> Ports:
        """The folder's ports, whether the broker runs or not. Raises DevBrokerError before its first start."""
        known = self.read()
        clients, controller, proxied = known.get("clients"), known.get("controller"), known.get("proxied")
        if clients is None or controller is None or proxied is None:
            raise DevBrokerError(f"no broker has been started in {self._file.parent}: start it first")
        return Ports(clients, controller, proxied, known.get("advertised"))
