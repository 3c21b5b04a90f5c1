"""What a model takes of memory is known from its card, near enough, before anything of it is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.io.card import Card, ModelRefused
from rnn.nn.network import Network
from rnn.serve.adapt import Adaptation
from rnn.serve.build import engine_of
from rnn.serve.footprint import footprint

CONFIGS = {
    "forecasts": ModelConfig(("a", "b", "c"), hidden=20),
    "layers": ModelConfig(("a", "b"), cell="gru", hidden=12, layers=2, linear=5),
    "symbols": ModelConfig(vocabulary=("a", "b"), head="categorical", hidden=10),
    "both ways": ModelConfig(("a", "b"), ("t",), predicts="now", direction="concat", lag=3, hidden=9),
}


def card_of(config: ModelConfig, shapes: int = 99) -> Card:
    return Card("0" * 12, "0" * 64, config, 0, shapes={str(number): () for number in range(shapes)})


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("adapt", [None, Adaptation(4)])
def test_the_table_is_told_to_the_byte(name: str, adapt: Adaptation | None) -> None:
    config, network = CONFIGS[name], Network(CONFIGS[name]).eval()
    adapt = adapt if name in ("forecasts", "layers") else None
    table = engine_of(network, 1000, "cpu", adapt).table
    told = footprint(card_of(config), 1000, "cpu", adapt)
    assert told.table == table.clock.nbytes + sum(part.numel() * 4 for part in table.parts.values())
    assert told.weights == sum(tensor.numel() * 4 for tensor in network.state_dict().values())


TAKES = """
import json, sys
from pathlib import Path
import numpy as np, torch
from rnn.io import weights
from rnn.config import ModelConfig
from rnn.serve.footprint import footprint
from rnn.nn.network import Network
from rnn.serve.build import engine_of

def held(what):
    return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith(what)).split()[1])

def steps(engine, rows=10_000):
    n = len(engine.config.features)
    engine.run(np.arange(rows) % engine.table.slots, np.zeros((rows, n), np.float32), np.arange(rows),
               np.full(rows, -1))

folder, slots = Path(sys.argv[1]), int(sys.argv[2])
small = engine_of(Network(ModelConfig(("a", "b"), hidden=8)).eval(), 16)  # what torch itself takes
small.check(), steps(small)
open("/proc/self/clear_refs", "w").write("5")
before = held("VmRSS")
told = footprint(weights.read_card(folder), slots, "cpu")
engine = engine_of(weights.load(folder)[0], slots)
engine.check(), steps(engine)
print(json.dumps([told.host, held("VmHWM") - before]))
"""


@pytest.mark.parametrize(("hidden", "slots"), [(1200, 500), (64, 200_000)])
def test_what_is_told_is_what_an_engine_takes(tmp_path: Path, hidden: int, slots: int) -> None:
    weights.save(tmp_path / "model", Network(ModelConfig(("a", "b"), hidden=hidden)).eval(), created_ms=0)
    done = subprocess.run(
        [sys.executable, "-c", TAKES, str(tmp_path / "model"), str(slots)], capture_output=True, text=True, check=True
    )
    told, taken = json.loads(done.stdout)
    assert 0.5 * taken < told < 2 * taken


@pytest.mark.parametrize("config", [{"hidden": 10**12}, {"layers": 10**9}])
def test_a_card_of_no_possible_network_is_refused_at_once(config: dict[str, int]) -> None:
    with pytest.raises(ModelRefused, match="The card of 000000000000"):
        footprint(card_of(ModelConfig(("a",), **config)), 8, "cpu")  # type: ignore[arg-type]


def test_a_file_that_is_larger_than_its_card_says_is_not_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights.save(tmp_path / "model", Network(ModelConfig(("a",), hidden=4)).eval(), created_ms=0)
    with (tmp_path / "model" / weights.WEIGHTS).open("r+b") as file:
        file.truncate(1 << 42)  # sparse: 4 TiB that take no room on the disk
    with pytest.raises(ModelRefused, match=f"has {1 << 42} bytes"):
        weights.load(tmp_path / "model")
