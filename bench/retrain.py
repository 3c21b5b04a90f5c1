"""Retraining of the default model on a million readings: python -m bench.retrain, from the repository's root.

Household power, its first 1,000,000 minutes in retraining's parts: 800,000 to learn from, 100,000 to choose
by, 100,000 to test on. By this process, and by 1 and 2 workers on Ray Train; each time is of the whole run, Ray's
start and the report included. Says the machine's load before each. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rnn.io.card import TrainingSource
from rnn.train.dataset import LabeledSeries
from rnn.train.recipe import default_config
from services.datasets import household_power
from services.tables.table_dataset import TableDataset
from services.trainer.topic_dataset import TopicDataset
from services.trainer.training_run import Callbacks, TrainOptions, make


def main() -> None:
    """Measures, and prints as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, action="append", help="0: this process; several may be given (0 1 2)")
    given = parser.parse_args()
    found: dict[str, Any] = {"readings": given.readings, "cpus": os.cpu_count()}
    taken = _taken(given.readings)
    for workers in given.workers or [0, 1, 2]:
        load = os.getloadavg()[0]
        began_s, passes_s = time.perf_counter(), [0.0]
        ears = Callbacks(passed=lambda one, passes_s=passes_s: passes_s.__setitem__(0, one.seconds))  # type: ignore[misc]
        with tempfile.TemporaryDirectory() as folder:
            made = make(taken, Path(folder), TrainOptions(workers), seed=0, ears=ears)
        name = "here" if not workers else f"workers_{workers}"
        found[name] = {
            "seconds": round(time.perf_counter() - began_s, 1),
            "passes_seconds": round(passes_s[0], 1),
            "passes": len(made.learned.epochs),
            "load_before": round(load, 2),
            "model": made.card.model,
            "mse": made.report["scores"]["mse"],
            **{rival: made.report["rivals"][rival] for rival in ("persistence", "ridge_var8")},
        }
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    print(json.dumps(found))


def _taken(readings: int) -> TopicDataset:
    """As if they had been read from a topic."""
    series = household_power(None)
    x, at_ms = np.array(series.x[:readings]), np.array(series.at_ms[:readings])
    n = len(x)
    one = LabeledSeries(x, at_ms, np.zeros(n, np.uint8), np.zeros((n, 0), np.float32))
    config = default_config(series.features, series.interval_s, (), n)
    source = TrainingSource("household", {0: (0, n)}, {0: n}, 1, 0, 0)
    return TopicDataset(TableDataset(config, (one,), ("house",), series.digest), source, int(at_ms[0]), int(at_ms[-1]))


if __name__ == "__main__":
    main()
