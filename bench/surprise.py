"""Whether "1 in 10,000" means that, and what alarms are worth: `streamrnn backtest` with labels, on real data.

    python -m bench.surprise [NAME ...]   # about ten minutes on two cores, most of them for household-power

For each data set the model of `streamrnn backtest NAME`; of the last fifth, which nothing was learned from, the share
of readings that are as improbable as `p` says, beside what it should be. Then the same fifth with faults put in, with a
seed: spikes of a sensor, a sensor that is stuck, one that is noisy for 100 readings and one that drifts away.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.backtest.forecast import BacktestPlan, backtest
from services.datasets.catalogue import series_of
from services.datasets.series import Series

NAMES = ("appliances", "beijing-pm25", "simbench-res", "household-power")
LEVELS = (1e-2, 1e-3, 1e-4)
RESULTS = Path(__file__).parent / "results" / "surprise.json"
SEED = 20_261_125
FAULTS, LENGTH = 12, 100
MOST = 100_000  # readings of a series that faults are put into


def with_faults(series: Series, seed: int) -> tuple[Series, NDArray[np.bool_]]:
    """Faults in the last fifth, far apart, each of one channel; kinds take turns. And which readings they are in."""
    random, n = np.random.default_rng(seed), len(series)
    x, label = np.array(series.x), np.zeros(n, np.bool_)
    std = np.nanstd(x[: int(0.7 * n)], axis=0)
    places = n - int(0.2 * n) + (np.arange(FAULTS) + random.uniform(0.2, 0.6, FAULTS)) * int(0.2 * n) / FAULTS
    for kind, place in enumerate(places.astype(int).tolist()):
        channel, last = int(random.integers(x.shape[1])), place + (1 if kind % 4 == 0 else LENGTH)
        part = x[place:last, channel]
        t = np.arange(len(part))
        if kind % 4 == 0:
            part += 4 * std[channel] * random.choice((-1, 1))
        elif kind % 4 == 1:
            part[:] = part[0]
        elif kind % 4 == 2:
            part += random.normal(0, std[channel], len(part)).astype(np.float32)
        else:
            part += (3 * std[channel] * t / LENGTH).astype(np.float32)
        label[place:last] = True
    return replace(series, x=x), label


def main(names: list[str]) -> None:
    """Runs the sets named, or all of them."""
    found: dict[str, object] = {}
    for name in names or NAMES:
        (series,) = series_of(name)
        with tempfile.TemporaryDirectory() as folder:
            _, (run,) = backtest(
                [series], BacktestPlan(), Path(folder) / "model", labels=[np.zeros(len(series), np.bool_)]
            )
        said = run.surprised
        assert said is not None
        shares = {str(level): float((said.p <= level).mean()) for level in LEVELS}
        lasting = {str(level): float((said.lasting <= level).mean()) for level in LEVELS}
        one: dict[str, object] = {"readings": len(said.p), "share_of_p": shares, "share_of_lasting": lasting}
        one["alarms_per_1000_at_budget_1"] = round(1000 * float(said.alarm(1.0).mean()), 3)
        short = replace(series, x=series.x[-MOST:], at_ms=series.at_ms[-MOST:])
        faulty, label = with_faults(short, SEED)
        with tempfile.TemporaryDirectory() as folder:
            figures, _ = backtest([faulty], BacktestPlan(), Path(folder) / "model", labels=[label])
        keys = ("precision", "recall", "f1", "nab_score", "detections", "alarms_per_1000")
        one["faults"] = {key: figures[key] for key in keys}
        found[name] = one
        print(name, json.dumps(one), flush=True)
    if not names:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
