"""Alarms on a folder of labelled CSV files, a model each, all of them scored together, as benchmarks do it.

    python -m bench.labelled FOLDER --time COLUMN --label COLUMN [--ignore A,B] [--first 400] [--budget 1 ...]

Every file below FOLDER that has the columns is one: its first readings are learned from, all that follow are watched.
With the files of SKAB (its repository's folder `data`): `--time datetime --label anomaly --ignore changepoint`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from services.backtest.forecast import BacktestPlan, backtest
from services.backtest.windows import Watched, figures
from services.predictor.anomaly import Surprised
from services.tables.sets import labelled_series_in
from services.tables.table_reader import WrongTable


def main() -> None:
    """Prints a line a file, then one JSON object of all, for each budget."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--time", required=True)
    asked.add_argument("--label", required=True)
    asked.add_argument("--ignore", default="")
    asked.add_argument("--first", type=int, default=400)
    asked.add_argument("--budget", type=float, nargs="+", default=[0.1, 1.0, 10.0, 50.0])
    given = asked.parse_args()
    ignored = [name for name in given.ignore.split(",") if name]
    watched: list[tuple[Watched, Surprised]] = []
    for path in sorted(given.folder.rglob("*.csv")):
        try:
            series, labels = labelled_series_in(path, given.time, None, given.label, ignored)
        except WrongTable as error:
            print(f"left out: {error}", flush=True)
            continue
        assert labels is not None
        share = given.first / len(series[0])
        plan = BacktestPlan(share, 1 - share)
        with tempfile.TemporaryDirectory() as folder:
            _, (run,) = backtest(series, plan, Path(folder) / "model", labels=labels)
        said = run.surprised
        assert said is not None
        watched.append((Watched(labels[0], len(labels[0]) - len(said.p), said.alarm(1.0)), said))
        print(path.relative_to(given.folder), json.dumps(figures([watched[-1][0]])), flush=True)
    for budget in given.budget:
        again = [Watched(one.label, one.start, said.alarm(budget)) for one, said in watched]
        print(json.dumps({"budget": budget, "files": len(again)} | figures(again)), flush=True)


if __name__ == "__main__":
    main()
