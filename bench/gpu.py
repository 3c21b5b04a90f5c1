"""Streams per second of an LSTM(128) on a GPU: the engine, its bare step and torch's cell, beside what memory allows.

    python bench/gpu.py                            # B = 1k .. 1M on the GPU there is
    python bench/gpu.py --device cpu --batches 64  # the same sums anywhere

Needs torch and numpy, and `rnn` of this checkout; no Kafka, no Ray. For each number B of streams, one reading each:

    engine   `Engine.run`: arrays in from the host, clocks, gather, features, cell, head, score, scatter, arrays out
    step     what of that is the network: gather the state, the input's and the recurrent product, gates, scatter
    cell     torch.nn.LSTMCell on tensors that lie ready: no gather, no scatter
    limit    the streams whose state the memory can read once and write once in a second, and nothing else done

The memory's speed is measured, by copying a tensor much larger than any cache. Times are medians; on a GPU the clock
stops when the device has done its work. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rnn.config import ModelConfig
from rnn.nn.cells import padded
from rnn.nn.cells.lstm import LSTM, LSTMInferenceCell
from rnn.nn.network import Network
from rnn.serve.engine import Engine

HIDDEN, FEATURES = 128, 7
BATCHES = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)
COPIED_BYTES = 1 << 30
FLOAT_BYTES = 4


def measure(
    device: str, batches: Sequence[int] = BATCHES, rounds: int = 30, hidden: int = HIDDEN, copied: int = COPIED_BYTES
) -> dict[str, Any]:
    """Bandwidth of the device's memory, and for each batch streams per second of all four."""
    torch.manual_seed(0)
    bytes_per_s = bandwidth(device, copied, rounds)
    state_bytes = 2 * hidden * FLOAT_BYTES  # h and c
    found = []
    for batch in batches:
        times = {
            "engine": _median_s(_engine(device, batch, hidden), device, rounds),
            "step": _median_s(_step(device, batch, hidden), device, rounds),
            "cell": _median_s(_cell(device, batch, hidden), device, rounds),
        }
        row: dict[str, Any] = {"streams": batch}
        row |= {f"{name}_streams_per_s": round(batch / seconds) for name, seconds in times.items()}
        row["limit_streams_per_s"] = round(bytes_per_s / (2 * state_bytes))
        row["step_vs_cell"] = round(times["cell"] / times["step"], 3)
        row["step_vs_limit"] = round(batch / times["step"] / row["limit_streams_per_s"], 3)
        found.append(row)
    return {"device": _name(device), "hidden": hidden, "memory_gb_per_s": round(bytes_per_s / 1e9, 1), "batches": found}


def bandwidth(device: str, copied: int, rounds: int) -> float:
    """Bytes that the memory reads and writes in a second, of a copy."""
    source = torch.ones(copied // FLOAT_BYTES, device=device)
    target = torch.empty_like(source)
    return 2 * copied / _median_s(lambda: target.copy_(source), device, rounds)


def _engine(device: str, batch: int, hidden: int) -> Callable[[], object]:
    network = Network(ModelConfig(tuple(f"f{k}" for k in range(FEATURES)), hidden=hidden))
    engine = Engine(network, batch, device)
    random = np.random.default_rng(0)
    slots, no_seq = random.permutation(batch), np.full(batch, -1)
    x = random.normal(size=(batch, FEATURES)).astype(np.float32)
    at_ms = np.zeros(batch, np.int64)

    def run() -> None:
        nonlocal at_ms
        at_ms = at_ms + 1000
        engine.run(slots, x, at_ms, no_seq)

    return run


def _step(device: str, batch: int, hidden: int) -> Callable[[], object]:
    inputs = 2 * FEATURES + 1
    step = LSTMInferenceCell(LSTM(inputs, hidden), torch.device(device))
    slots = torch.randperm(batch, device=device)
    table = [torch.zeros(batch, step.units, device=device) for _ in range(2)]
    after = tuple(torch.empty_like(part) for part in table)
    x = torch.randn(batch, padded(inputs), device=device)
    sums = torch.empty(batch, step.gates * step.units, device=device)
    spare = torch.empty(sums.numel(), device=device)

    def run() -> None:
        with torch.inference_mode():
            before = tuple(part.index_select(0, slots) for part in table)
            step.project(x, out=sums)
            step.run(sums, before, after, spare)
            for part, new in zip(table, after, strict=True):
                part.index_copy_(0, slots, new)

    return run


def _cell(device: str, batch: int, hidden: int) -> Callable[[], object]:
    inputs = 2 * FEATURES + 1
    cell = torch.nn.LSTMCell(inputs, hidden).to(device)
    x, h, c = (torch.randn(batch, width, device=device) for width in (inputs, hidden, hidden))

    def run() -> None:
        with torch.inference_mode():
            cell(x, (h, c))

    return run


def _median_s(work: Callable[[], object], device: str, rounds: int) -> float:
    def wait() -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()

    taken = []
    for number in range(rounds + 3):
        wait()
        begin = time.perf_counter()
        work()
        wait()
        if number >= 3:  # the first ones find no memory set aside and no kernels chosen
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _name(device: str) -> str:
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "CPU, one thread"


def main() -> None:
    """Measures and prints a table and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or cpu (cuda)")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="numbers of streams")
    parser.add_argument("--rounds", type=int, default=30, help="times that each is timed (30)")
    given = parser.parse_args()
    if torch.device(given.device).type == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "torch sees no GPU here; --device cpu runs the same on the processor\n")
    torch.set_num_threads(1)
    found = measure(given.device, given.batches, given.rounds)
    print(f"{found['device']}, memory {found['memory_gb_per_s']:,} GB/s, LSTM({found['hidden']}), million streams/s:")
    print(f"{'streams':>10} {'engine':>10} {'step':>10} {'cell':>10} {'limit':>10}")
    for row in found["batches"]:
        shown = [row[f"{name}_streams_per_s"] / 1e6 for name in ("engine", "step", "cell", "limit")]
        print(f"{row['streams']:>10,} " + " ".join(f"{number:>10.3f}" for number in shown))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
