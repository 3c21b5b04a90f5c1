"""rnn.train.unroll: torch's kernels say what the network's own loops say, and both ways what is served."""

from __future__ import annotations

import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn.cells import CELLS
from rnn.nn.network import Network
from rnn.train import unroll

LENGTHS = torch.tensor([9, 3, 1, 5])


@pytest.mark.parametrize(
    ("cell", "activation"),
    [("elman", "tanh"), ("elman", "relu"), ("elman", "sigmoid"), ("lstm", "tanh"), ("gru", "tanh"), ("mingru", "tanh")],
)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_unroll_is_the_networks_own(cell: str, activation: str, norm: bool, lengths: torch.Tensor | None):
    torch.manual_seed(0)
    config = ModelConfig(features=("a",), cell=cell, activation=activation, layers=2, layer_norm=norm, hidden=8)
    network, feats = Network(config).eval(), torch.randn(9, 4, 3)
    with torch.no_grad():
        wanted, end = network.unroll(feats, None, None, lengths)
        got, after = unroll.unroll(network, feats, None, lengths)
    counts = torch.ones(9, 4, dtype=torch.bool) if lengths is None else torch.arange(9).unsqueeze(1) < lengths
    torch.testing.assert_close(got[counts], wanted[counts], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after, end, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("layers", "lag"), [(1, 0), (1, 1), (1, 3), (1, 20), (2, 8), (2, 20)])
@pytest.mark.parametrize("direction", ["concat", "sum"])
@pytest.mark.parametrize("cell", CELLS)
def test_both_ways_are_as_they_are_served(layers: int, lag: int, direction: str, cell: str):
    torch.manual_seed(0)
    config = ModelConfig(features=("a",), targets=("b",), predicts="now", direction=direction, lag=lag, cell=cell,
                         layers=layers, hidden=8)  # fmt: skip
    network, feats = Network(config).eval(), torch.randn(9, 4, 3)
    with torch.no_grad():
        got = unroll.both_ways(network, feats, LENGTHS)
        for lane, length in enumerate(LENGTHS.tolist()):
            state = network.initial_state(1)
            for t in range(length):
                window = feats[t : min(t + lag + 1, length), lane : lane + 1]
                h, state = network.bidirectional_window(window, torch.tensor([len(window)]), state)
                torch.testing.assert_close(h[0], got[t, lane], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [0, 3])
def test_shared_backward_passes_begin_where_they_say(shift: int):
    """Two layers and long sequences: a step's view ends with its run of 2 lag + 1 readings, whatever comes then."""
    torch.manual_seed(0)
    config = ModelConfig(features=("a",), targets=("b",), predicts="now", direction="concat", lag=2, layers=2, hidden=8)
    network, feats = Network(config).eval(), torch.randn(12, 1, 3)
    later = feats.clone()
    end = 5 - shift
    later[end:] += 1
    with torch.no_grad():
        one, other = (unroll.both_ways(network, each, torch.tensor([12]), shift) for each in (feats, later))
    assert torch.equal(one[:end], other[:end])
    assert not torch.equal(one[end:], other[end:])


def test_a_decoder_told_the_truth_says_what_it_says_step_by_step():
    torch.manual_seed(0)
    config = ModelConfig(features=("a",), labels=("p", "q"), head="categorical", predicts="now", task="one-to-many",
                         horizon=4, layers=2, hidden=8, layer_norm=True)  # fmt: skip
    network = Network(config).eval()
    said = torch.tensor([[-1, -1], [0, 1], [1, 1], [2, 0]])
    with torch.no_grad():
        state = network.init_decoder(torch.randn(2, 2))
        got = unroll.decode(network, said, state)
        for t in range(4):
            h, state = network.decode(said[t], state)
            torch.testing.assert_close(h, got[t], atol=1e-5, rtol=1e-5)
