"""What was measured, for people and for the file that the README quotes. Imports the standard library and rich."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results" / "latest.json"
PACKAGES = ("torch", "ray", "kafka-python", "numpy", "orjson")


class Number(NamedTuple):
    """One number of the file and what it should reach."""

    key: str
    meaning: str
    unit: str = ""
    least: float | None = None
    most: float | None = None


NUMBERS = (
    Number("pipeline_vs_quix", "pipeline's readings/s over Quix Streams', JSON, LSTM(64), exactly once", "x", least=6),
    Number("pipeline_readings_per_s", "the pipeline in one process", "readings/s"),
    Number("quix_readings_per_s", "Quix Streams in one process", "readings/s"),
    Number("engine_vs_torch", "engine's step with gather and scatter over a bare LSTMCell's", "x", least=0.8),
    Number("backlog_vs_single", "1,000 streams x 64 readings in one run over a run for each reading", "x", least=5),
    Number("rnn_import_s", "importing every module of rnn", "s", most=2),
    Number("p50_ms_exactly_once_2k", "Kafka to Kafka at 2,000 readings/s, exactly once, median", "ms"),
    Number("p99_ms_exactly_once_2k", "the same, 99 %", "ms", most=60),
    Number("rss_mib_100k_streams", "resident with 100,000 live LSTM(64) streams", "MiB", most=1200),
    Number("swap_pause_ms_p99", "champion and challenger change places, 100,000 streams, 99 %", "ms", most=500),
    Number(
        "swap_gap_ms_max", "longest turn while a challenger for 100,000 streams is built and deployed", "ms", most=500
    ),
    Number("shadow_vs_step", "step with a challenger of the same size over one without", "x", most=1.6),
    Number("outcomes_vs_turn", "turn in memory that counts figures and drift over one that does not", "x", most=1.05),
    Number("brought_over_per_s", "streams brought over to a model by replay of 16 readings", "streams/s"),
    Number("scrape_kb", "/metrics of 200 shards, two models of 24 steps", "KB", most=500),
    Number("scrape_ms", "the same, from asking to the last byte, median", "ms", most=50),
    Number("telemetry_share", "of a shard's time that counting takes, without a broker", "", most=0.02),
)


def versions() -> dict[str, Any]:
    """Of what was measured; names no place."""
    from services.brokers.devbroker import KAFKA_VERSION

    found = {"python": platform.python_version(), "kafka": KAFKA_VERSION}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """The processor and how busy it was with other things before."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
    }


def write(measured: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any], path: Path = RESULTS) -> dict[str, Any]:
    """Puts the numbers of the parts that were measured into the file; those of other parts stay as they were, with the
    time of their own measurement. `about` says what the newest were measured on.
    """
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    details = results.pop("parts", {})
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for part, found in measured.items():
        details[part] = {"measured_at": now, **found.get("detail", {})}
        results |= {key: value for key, value in found.items() if key != "detail"}
    order = {number.key: results[number.key] for number in NUMBERS if number.key in results}
    results = {**order, **results, **about, "parts": details}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(results, indent=2) + "\n")
    fresh.replace(path)
    return results


def table(results: Mapping[str, Any], measured: set[str]) -> None:
    """Prints the numbers just measured beside what they should be."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="measured", title_justify="left")
    for name, side in (("number", "left"), ("value", "right"), ("goal", "right"), ("", "left"), ("meaning", "left")):
        shown.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    for number in NUMBERS:
        if number.key in measured:
            value = results[number.key]
            goal, reached = _goal(number, value)
            shown.add_row(number.key, f"{value:,} {number.unit}", goal, reached, number.meaning)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140).print(shown)


def _goal(number: Number, value: float) -> tuple[str, str]:
    if number.least is not None:
        return f">= {number.least:g}", "yes" if value >= number.least else "NO"
    if number.most is not None:
        return f"<= {number.most:g}", "yes" if value <= number.most else "NO"
    return "", ""
