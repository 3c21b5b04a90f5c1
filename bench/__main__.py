"""`python -m bench`: the benchmarks, one after the other, into bench/results/latest.json.

Run from the repository's root. Starts a broker of its own and everything else it needs, and stops all of it.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench import report

PARTS = ("pipeline", "latency", "memory", "engine", "swap", "scrape")
QUOTED = {
    "engine": ("engine_vs_torch", "backlog_vs_single", "rnn_import_s"),
    "swap": ("swap_pause_ms_p99", "swap_gap_ms_max", "shadow_vs_step", "outcomes_vs_turn", "brought_over_per_s"),
    "scrape": ("scrape_kb", "scrape_ms", "telemetry_share"),
}  # of parts that need no broker and run in a process of their own

EVERY_S = 2.0


class Line:
    """Says how far a part has come: one line that is rewritten on a terminal, a line every other second elsewhere."""

    def __init__(self, part: str) -> None:
        self.part, self._began_s, self._last_s, self._last = part, time.monotonic(), 0.0, ""
        self._live = sys.stdout.isatty()

    def __call__(self, share: float, text: str) -> None:
        now_s = time.monotonic()
        if text == self._last or (now_s - self._last_s < (0.2 if self._live else EVERY_S) and 0 < share < 1):
            return
        self._last_s, self._last = now_s, text
        filled = round(20 * min(1.0, share))
        line = f"{self.part:9} {now_s - self._began_s:5.0f} s  {'#' * filled}{'.' * (20 - filled)}  {text}"
        print(f"\r\033[K{line}" if self._live else line, end="" if self._live else "\n", flush=True)

    def done(self) -> None:
        """Ends the line."""
        if self._live:
            print()


def alone(part: str, progress: Line) -> dict[str, Any]:
    """A part's own module, which prints one JSON object as its last line."""
    progress(0.0, "one CPU thread, alternating runs")
    command = [sys.executable, "-m", f"bench.{part}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"bench.{part} ended with status {done.returncode}: {done.stderr.strip()[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    detail = {key: value for key, value in found.items() if key not in QUOTED[part]}
    return {**{key: found[key] for key in QUOTED[part]}, "detail": detail}


def run(chosen: list[str], pairs: int, quix: bool) -> dict[str, dict[str, Any]]:
    """What each chosen part found."""
    measured: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamrnn-bench-")))
        parts: dict[str, Callable[[Line], dict[str, Any]]] = {part: partial(alone, part) for part in QUOTED}
        if set(chosen) - set(QUOTED):
            from bench import latency, memory, pipeline
            from bench.stage import Stage
            from services.brokers.devbroker import DevBroker

            broker = DevBroker(work / "broker", owned=True)
            stack.callback(broker.stop)
            print("starting Apache Kafka ...", end=" ", flush=True)
            broker.start()
            print("ready")
            stage = Stage(work, broker.bootstrap)
            stage.save_model()
            parts |= {
                "pipeline": lambda line: pipeline.measure(stage, line, pairs=pairs, quix=quix),
                "latency": lambda line: latency.measure(stage, line),
                "memory": lambda line: memory.measure(stage, line),
            }
        for part in chosen:
            line = Line(part)
            try:
                measured[part] = parts[part](line)
            finally:
                line.done()
    return measured


def main() -> None:
    """Measures, prints and writes. Ends with status 1 when a reading was lost or doubled or a process failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given several times")
    parser.add_argument("--pairs", type=int, default=3, help="alternating runs of ours and Quix Streams (3)")
    parser.add_argument("--no-quix", action="store_true", help="leave Quix Streams out, and with it the ratio")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="the file to write")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is stopped
    chosen = [part for part in PARTS if not given.only or part in given.only]
    about: dict[str, Any] = {"versions": report.versions(), "machine": report.machine()}
    measured = run(chosen, given.pairs, not given.no_quix)
    if "pipeline" in measured and not given.no_quix:
        from bench import quix_environment

        about["versions"] |= {name: found for name, found in quix_environment.versions().items() if name != "torch"}
    results = report.write(measured, about, given.out)
    print()
    report.table(results, {key for found in measured.values() for key in found})
    print(f"written to {given.out.name}")


if __name__ == "__main__":
    main()
