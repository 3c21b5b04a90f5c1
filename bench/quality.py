"""How good forecasts are: `streamrnn backtest` on the four data sets, with the default configuration family.

    make quality          # about ten minutes, and 120 MB to download the first time

Writes bench/results/quality.json: for each data set what `streamrnn backtest NAME --json` prints, without its targets,
and as `mingru` the same with that cell in the LSTM's place.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rnn.train.recipe import default_config
from services.datasets.catalogue import DATA_SETS

NAMES = ("household-power", "appliances", "beijing-pm25", "simbench-res")
RESULTS = Path(__file__).parent / "results" / "quality.json"


def backtest(name: str, *more: str) -> dict[str, Any]:
    """What the command says of the set."""
    command = [sys.executable, "-m", "services.cli.main", "backtest", name, "--json", *more]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    del figures["targets"]
    return figures


def with_cell(cell: str, name: str, readings: int) -> dict[str, Any]:
    """The same for the default config with another cell. A file's model takes the place of the whole default."""
    data = DATA_SETS[name]
    default = default_config([str(channel) for channel in range(data.channels)], data.interval_s, readings=readings)
    model = {field: getattr(default, field) for field in ("scaler_memory", "linear", "dropout")} | {"cell": cell}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"model": model}, file)  # JSON is YAML
        file.flush()
        return backtest(name, "--config", file.name)


def main() -> None:
    """Runs the four, one after the other."""
    figures = {}
    for name in NAMES:
        figures[name] = of_default = backtest(name)
        of_default["mingru"] = with_cell("mingru", name, of_default["train_readings"])
        print(name, json.dumps(of_default), flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
