"""Engine.run beside a bare torch LSTMCell: 1,024 streams, 64 units, 7 features, one CPU thread.

    python bench/engine.py

The engine's time is all of it: arrays in, clocks, gather, features, cell, head, band, score, finite check, scatter,
arrays out. The cell's is the cell alone on tensors that lie ready. Rounds of the two alternate and medians are taken,
so that other work on the machine meets both; the C library is told to keep freed memory, for else the cell's time
doubles with the pages it gets anew each time. The last line is one JSON object; `engine_vs_torch` is torch's time over
the engine's, so higher is better and 1 means that everything around the cell costs nothing.

`backlog_vs_single`: 1,000 streams left 64 readings each on average, no two the same number; the time of one run that
takes them all, beside that of a run for each reading (a sample of them, scaled up). `rnn_import_s`: what a new Python
needs to import every module of `rnn`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.engine import Engine

STREAMS, HIDDEN, FEATURES = 1024, 64, 7
ROUNDS, RUNS = 60, 8  # a round is so many runs of the one, then as many of the other
LEFT, BACKLOG = 1000, 64  # streams, and readings that each has left on average
SINGLES = 500  # readings of the backlog that are run one by one in a round
ROOT = Path(__file__).resolve().parent.parent


def measure() -> dict[str, float]:
    """Median microseconds of each, and their ratio."""
    with contextlib.suppress(OSError, AttributeError):  # glibc: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30), libc.mallopt(-1, 1 << 30)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = Network(ModelConfig(tuple(f"f{k}" for k in range(FEATURES)), hidden=HIDDEN))
    engine = Engine(network, STREAMS)
    slots = random.permutation(STREAMS)
    x = random.normal(size=(STREAMS, FEATURES)).astype(np.float32)
    no_seq = np.full(STREAMS, -1)
    at_ms = np.zeros(STREAMS, dtype=np.int64)

    def step_engine() -> None:
        nonlocal at_ms
        at_ms = at_ms + 1000
        engine.run(slots, x, at_ms, no_seq)

    cell = torch.nn.LSTMCell(2 * FEATURES + 1, HIDDEN)
    seen, state = torch.randn(STREAMS, 2 * FEATURES + 1), (torch.randn(STREAMS, HIDDEN), torch.randn(STREAMS, HIDDEN))

    def step_cell() -> None:
        with torch.inference_mode():
            cell(seen, state)

    engine_s: list[float] = []
    torch_s: list[float] = []
    gc.disable()
    for warm in (True, *[False] * ROUNDS):
        for step, times in ((step_engine, engine_s), (step_cell, torch_s)):
            taken = _times(step)
            if not warm:
                times += taken
    engine_us, torch_us = statistics.median(engine_s) * 1e6, statistics.median(torch_s) * 1e6
    return {
        "engine_us": round(engine_us, 1),
        "torch_cell_us": round(torch_us, 1),
        "engine_vs_torch": round(torch_us / engine_us, 3),
    }


def _times(step: Callable[[], None]) -> list[float]:
    taken = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begin)
    return taken


def backlog(streams: int = LEFT, mean: int = BACKLOG, rounds: int = 5) -> dict[str, float]:
    """Readings per second of one run over a ragged backlog, of runs of single readings, and the ratio."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = Network(ModelConfig(tuple(f"f{k}" for k in range(FEATURES)), hidden=HIDDEN))
    lengths = random.integers(1, 2 * mean, size=streams)  # mean on average
    place = np.concatenate([np.arange(length) for length in lengths])
    slots = np.repeat(np.arange(streams), lengths)
    order = np.argsort(place + random.random(len(place)), kind="stable")  # streams take turns, each in its own order
    slots, at_ms = slots[order], (place[order] + 1) * 1000
    x = random.normal(size=(len(slots), FEATURES)).astype(np.float32)
    no_seq = np.full(len(slots), -1)
    whole, single = Engine(network, streams), Engine(network, streams)
    some = np.arange(min(SINGLES, len(slots)))
    whole_s, single_s = [], []
    gc.disable()
    for warm in (True, *[False] * rounds):
        whole.clear(np.arange(streams)), single.clear(np.arange(streams))
        begin = time.perf_counter()
        whole.run(slots, x, at_ms, no_seq)
        middle = time.perf_counter()
        for k in some:
            single.run(slots[k : k + 1], x[k : k + 1], at_ms[k : k + 1], no_seq[k : k + 1])
        if not warm:
            whole_s.append(middle - begin)
            single_s.append(time.perf_counter() - middle)
    at_once, one_by_one = len(slots) / statistics.median(whole_s), len(some) / statistics.median(single_s)
    return {
        "backlog_readings": len(slots),
        "backlog_readings_per_s": round(at_once),
        "single_readings_per_s": round(one_by_one),
        "backlog_vs_single": round(at_once / one_by_one, 1),
    }


def import_s(rounds: int = 5) -> float:
    """Median seconds that a new Python needs to import every module of rnn, less those that it needs for nothing."""
    files = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / "rnn").rglob("*.py"))
    modules = ", ".join(".".join(path.parts) for path in files if path.name != "__init__")
    taken: dict[str, list[float]] = {"pass": [], f"import {modules}": []}
    for _ in range(rounds):
        for code, times in taken.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
            times.append(time.perf_counter() - begin)
    nothing, all_of_it = (statistics.median(times) for times in taken.values())
    return round(all_of_it - nothing, 2)


if __name__ == "__main__":
    print(json.dumps(measure() | backlog() | {"rnn_import_s": import_s()}))
