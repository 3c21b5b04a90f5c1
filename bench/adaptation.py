"""What online adaptation gains on the four data sets, and what it costs.

    python -m bench.adaptation          # about ten minutes on two cores, and 120 MB to download the first time

Writes bench/results/adaptation.json: for each data set what `streamrnn backtest NAME --adapt 8 --json` prints, without
its targets, and `gain`, the share of the mean squared error that is saved. `cost` has microseconds of an engine's step
of 1,024 streams and of one, with one thread, without adaptation, with 8 directions and with the whole hidden state
(medians of alternating rounds), and bytes of a state row.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from bench.quality import NAMES
from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.adapt import Adaptation
from rnn.serve.engine import Engine

RESULTS = Path(__file__).parent / "results" / "adaptation.json"
STREAMS, HIDDEN, FEATURES = 1024, 64, 7
ROUNDS, RUNS = 30, 4


def main() -> None:
    """The cost first, then the four data sets one after the other."""
    figures: dict[str, object] = {"cost": cost()}
    print("cost", json.dumps(figures["cost"]), flush=True)
    for name in NAMES:
        command = [sys.executable, "-m", "services.cli.main", "backtest", name, "--adapt", "8", "--json"]
        one = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        del one["targets"], one["train_seconds"]
        figures[name] = one | {"gain": round(1 - one["mse"] / one["unadapted_mse"], 4)}
        print(name, json.dumps(figures[name]), flush=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")


def cost() -> dict[str, float]:
    """Of one reading of each of STREAMS streams, and of one reading of one of them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = Network(ModelConfig(tuple(f"f{k}" for k in range(FEATURES)), hidden=HIDDEN))
    kinds = {"plain": None, "adapt_8": Adaptation(8), "adapt_all": Adaptation(HIDDEN)}
    engines = {name: Engine(network, STREAMS, adapt=adapt) for name, adapt in kinds.items()}
    x = random.normal(size=(STREAMS, FEATURES)).astype(np.float32)
    found: dict[str, float] = {}
    for streams, suffix in ((STREAMS, f"{STREAMS}_us"), (1, "1_us")):
        slots, no_seq = np.arange(streams), np.full(streams, -1)
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        at_ms = np.zeros(streams, np.int64)
        for warm in (True, *[False] * ROUNDS):
            for name, engine in engines.items():
                for _ in range(RUNS):
                    at_ms = at_ms + 1000
                    begin = time.perf_counter()
                    engine.run(slots, x[:streams], at_ms, no_seq)
                    if not warm:
                        taken[name].append(time.perf_counter() - begin)
        found |= {f"{name}_{suffix}": round(1e6 * statistics.median(times), 1) for name, times in taken.items()}
    return found | {f"{name}_row_bytes": engine.table.row_bytes for name, engine in engines.items()}


if __name__ == "__main__":
    main()
