"""`streamrnn serve` as a user starts it: a process of its own, watched through its log lines and its port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forked import command
from waiting import wait_for


def python_s_own() -> dict[str, str]:
    """What of the environment is read when Python starts: PYTHONPATH and the like."""
    return {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}


PYTHON_S = python_s_own()


def write_config(folder: Path, bootstrap: str, model: Path, pipeline: str, **more: Any) -> Path:
    """A settings file for one pipeline; `more` are sections such as fleet={"shards": 1}."""
    tree: dict[str, Any] = {
        "pipeline": pipeline,
        "model": str(model),
        "kafka": {"bootstrap_servers": bootstrap},
        "topics": {"partitions": 2, "replication": 1},
        "fleet": {"shards": 1},
        "state": {"slots": 256},
        "telemetry": {"port": 0, "host": "127.0.0.1"},
    }
    for section, values in more.items():
        if isinstance(values, dict):
            tree[section] = {**tree.get(section, {}), **values}
        else:
            tree[section] = values
    path = folder / f"{pipeline}.yaml"
    path.write_text(json.dumps(tree))  # JSON is YAML
    return path


def streamrnn(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end. Python is started afresh for it where the environment says how Python starts."""
    if not env and python_s_own() == PYTHON_S:
        return command(*args)
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *args],
        capture_output=True, text=True, env={**os.environ, **env}, check=False,
    )  # fmt: skip


class Serving:
    """A running server. Use as a context manager; it is killed with everything it started, also on failure."""

    def __init__(self, config: Path) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", "serve", "--config", str(config)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.join(60)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one event so far."""
        found = []
        for line in list(self.lines):
            if line.startswith("{"):
                fields = json.loads(line)
                if fields.get("event") == name:
                    found.append(fields)
        return found

    def until(self, done: Callable[[], Any], what: str, progress: Callable[[], object] | None = None) -> Any:
        """Waits until `done()` is true, for as long as it logs something or `progress()` moves (see `wait_for`)."""

        def look() -> Any:
            ended = self.process.poll() is not None  # before the look: what it did last is still to be seen
            value = done()
            assert value or not ended, f"server ended with {self.process.returncode} before {what}:\n{self.tail()}"
            return value

        def moved() -> object:
            return len(self.lines), progress() if progress is not None else None

        return wait_for(look, what, progress=moved, said=self.tail, pause_s=0.05)

    def stepped(self) -> float:
        """Readings that it has stepped, of all shards: how far a server under load is, a `progress` for `until`."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("streamrnn_readings_total{"))

    def ready(self) -> Serving:
        """Waits until every shard has said that it is ready."""
        self.until(lambda: self.events("ready"), "ready")
        return self

    def port(self) -> int:
        """Where /metrics is."""
        return int(self.until(lambda: self.events("listening"), "listening")[0]["port"])

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the telemetry port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}{path}", timeout=300) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ended(self) -> int:
        """Waits for the end; returns the exit code."""
        wait_for(
            lambda: self.process.poll() is not None, "the server ends", progress=lambda: len(self.lines), said=self.tail
        )
        self._reader.join(60)
        return self.process.returncode

    def tail(self) -> str:
        """The last lines it printed."""
        return "\n".join(self.lines[-30:])
