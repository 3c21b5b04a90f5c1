"""Two processes that share the lanes come to what one process comes to, and to the same thing as each other."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rnn.io.weights import read_tensors
from rnn.train.process_group import SINGLE_PROCESS, ProcessGroupLost, _total, joined

ALL, FEW = 7, 2
"""Lanes of an update; the series have 6."""
RANKS = ("0-of-1", "0-of-2", "1-of-2")
RANK = """
import sys
from pathlib import Path
import numpy as np
import torch
from torch import distributed
from rnn.config import ModelConfig
from rnn.train.fit import fit
from rnn.train.recipe import Recipe
from rnn.train.process_group import SINGLE_PROCESS, joined
from rnn.io.weights import write_tensors

folder, rank, size, lanes = Path(sys.argv[1]), *map(int, sys.argv[2:])
if size > 1:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet-{lanes}", rank=rank, world_size=size)
team = joined() if size > 1 else SINGLE_PROCESS
random = np.random.default_rng(0)
x = np.cumsum(random.normal(size=(3000, 2)), axis=0).astype(np.float32)
x[random.random(x.shape) < 0.02] = np.nan
config = ModelConfig(features=("a", "b"), interval_s=1.0, hidden=8, linear=2)
told = []
fitted = fit(config, [x[:2000], x[2000:]], [np.arange(2000) * 1000, np.arange(1000) * 1000],
             Recipe(updates=60, lanes=lanes, lane_steps=128, window=32, burn_in=16), told.append, team=team)
write_tensors(folder / f"{rank}-of-{size}-{lanes}", fitted.network.state_dict())
losses = torch.tensor([[one.train_mse, one.validation_mse, one.persistence_mse] for one in told], dtype=torch.float64)
write_tensors(folder / f"{rank}-of-{size}-{lanes}-losses", {"losses": losses})
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "rank.py").write_text(RANK)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    started = [
        subprocess.Popen([sys.executable, folder / "rank.py", folder, *map(str, given)], env=environment)
        for given in ((0, 1, ALL), (0, 2, ALL), (1, 2, ALL), (0, 2, FEW), (1, 2, FEW))
    ]
    assert [one.wait() for one in started] == [0] * 5
    return folder


def test_losses_are_those_of_one_process(ranks: Path) -> None:
    alone, first, second = (read_tensors(ranks / f"{name}-{ALL}-losses")["losses"] for name in RANKS)
    assert torch.equal(first, second)  # the two are of one mind about every epoch
    torch.testing.assert_close(first, alone, rtol=1e-3, atol=1e-6)


def test_the_first_process_has_the_network_of_one_process(ranks: Path) -> None:
    alone, shared = read_tensors(ranks / f"0-of-1-{ALL}"), read_tensors(ranks / f"0-of-2-{ALL}")
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name], weight, rtol=0.02, atol=0.02, msg=name)


def test_they_stay_of_one_mind_where_an_update_takes_a_few_of_the_lanes(ranks: Path) -> None:
    first, second = (read_tensors(ranks / f"{name}-{FEW}-losses")["losses"] for name in RANKS[1:])
    assert torch.equal(first, second) and first.isfinite().all()
    whole = read_tensors(ranks / f"0-of-2-{ALL}-losses")["losses"]
    assert len(first) == (len(whole) + 2) // 3  # three groups make one epoch


def test_a_team_whose_group_is_gone_is_broken_and_not_a_wrong_argument(tmp_path: Path) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    team = dataclasses.replace(joined(), size=2, total=_total)
    distributed.destroy_process_group()
    with pytest.raises(ProcessGroupLost, match="process group"):
        team.all_reduce([torch.ones(3)])


def test_one_process_is_a_team_by_itself() -> None:
    assert (
        SINGLE_PROCESS.first
        and SINGLE_PROCESS.share(5) == slice(0, 5, 1)
        and SINGLE_PROCESS.broadcast_scalar(2.5) == 2.5
    )
    with pytest.raises(ValueError, match="belongs to no group"):
        joined()
