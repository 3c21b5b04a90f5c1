"""A real Prometheus over targets of ours, asked through its HTTP interface."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from binaries import prometheus
from waiting import wait_for


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class NotPromQL(AssertionError):
    """The expression does not parse, or cannot be evaluated."""


class Server:
    """A Prometheus of a folder's prometheus.yaml, while its `with` lasts. `command` makes of it what starts it."""

    def __init__(
        self,
        folder: Path,
        port: int,
        command: Callable[..., list[str]] = lambda *words: [str(word) for word in words],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self._folder, self._command, self._env = port, folder, command, env

    def start(self) -> None:
        """Does not wait until it answers."""
        self._log = (self._folder / "said.log").open("wb")
        words = self._command(
            prometheus(), f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        )  # fmt: skip
        self._process = subprocess.Popen(
            words, env=self._env, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    def stop(self) -> None:
        """Gone when this returns."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def check(self) -> None:
        """Raises AssertionError with the end of its log when it has ended."""
        assert self._process.poll() is None, self.said()

    def said(self) -> str:
        """The end of its log."""
        return (self._folder / "said.log").read_text()[-2000:]


class Scraping:
    """Prometheus with `rules`, scraping every second. Use as a context manager; `targets`: job -> addresses."""

    def __init__(
        self, folder: Path, rules: Path, targets: Mapping[str, Sequence[str]], labels: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rules.yaml").write_text(re.sub(r"interval: \d+s", "interval: 1s", rules.read_text()))
        scrapes = [
            {"job_name": job, "static_configs": [{"targets": list(at), "labels": dict(labels)}]}
            for job, at in targets.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": scrapes,
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        self._server = Server(folder, self.port)

    def __enter__(self) -> Scraping:
        self._server.start()
        try:
            self.until(lambda: self._answers("/-/ready"), "Prometheus is ready")
        except BaseException:
            self._server.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def ask(self, path: str, **parameters: Any) -> Any:
        """`data` of an answer of /api/v1. Raises NotPromQL."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise NotPromQL(f"{parameters}: {json.load(error)['error']}") from None

    def now(self, query: str) -> list[Any]:
        """Samples of the query at this moment."""
        found: list[Any] = self.ask("query", query=query)["result"]
        return found

    def over(self, query: str, began_s: float, step_s: float) -> list[list[float]]:
        """The values of each series from `began_s` until now."""
        series = self.ask("query_range", query=query, start=began_s, end=time.time(), step=step_s)["result"]
        return [[float(value) for _, value in one["values"]] for one in series]

    def until(self, done: Callable[[], Any], what: str, progress: str = "") -> Any:
        """Waits until `done()` is true, for as long as what the query `progress` finds moves (see `wait_for`)."""

        def look() -> Any:
            self._server.check()
            return done()

        def moved() -> object:
            return [sample["value"][1] for sample in self.now(progress)] if progress else None

        return wait_for(look, what, progress=moved, said=self._server.said, pause_s=0.2)

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
