"""How good forecasts are: `streamrnn backtest` on the four data sets, with the default configuration family.

    make quality          # about three minutes on two cores, and 120 MB to download the first time

Writes bench/results/quality.json: for each data set what `streamrnn backtest NAME --json` prints, without its targets.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

NAMES = ("household-power", "appliances", "beijing-pm25", "simbench-res")
RESULTS = Path(__file__).parent / "results" / "quality.json"


def main() -> None:
    """Runs the four, one after the other."""
    figures = {}
    for name in NAMES:
        command = [sys.executable, "-m", "services.cli.main", "backtest", name, "--json"]
        figures[name] = one = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        del one["targets"]
        print(name, json.dumps(one), flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
