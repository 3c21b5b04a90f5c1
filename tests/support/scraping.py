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


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class NotPromQL(AssertionError):
    """The expression does not parse, or cannot be evaluated."""


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
        self.port, self._folder = free_port(), folder

    def __enter__(self) -> Scraping:
        self._log = (self._folder / "said.log").open("wb")
        self._process = subprocess.Popen(
            [
                str(prometheus()), f"--config.file={self._folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self._folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
            ],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.until(lambda: self._answers("/-/ready"), "Prometheus is ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()

    def ask(self, path: str, **parameters: Any) -> Any:
        """`data` of an answer of /api/v1. Raises NotPromQL."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
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

    def until(self, done: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
        """Polls until `done()` is true; Prometheus's log is in the error when it never is."""
        end_s = time.monotonic() + timeout_s
        while not (value := done()):
            said = (self._folder / "said.log").read_text()[-2000:]
            assert self._process.poll() is None and time.monotonic() < end_s, f"not: {what}\n{said}"
            time.sleep(0.2)
        return value

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
