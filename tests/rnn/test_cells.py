"""The cells are the lecture's, to the last digit that torch's own have; the serving form follows them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rnn.config import ModelConfig
from rnn.nn.cells import CELLS, LSTM, MinGRU, padded
from rnn.nn.network import Network

STEPS, STREAMS, INPUTS, HIDDEN = 48, 6, 5, 16
TORCH_CELLS = {name: getattr(nn, f"{cell.TORCH}Cell") for name, cell in CELLS.items() if cell.TORCH}
TORCH_LOOPS = {name: getattr(nn, cell.TORCH) for name, cell in CELLS.items() if cell.TORCH}


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.fixture(params=sorted(CELLS))
def kind(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(3)
    return str(request.param)


@pytest.fixture(params=sorted(TORCH_CELLS))
def torchs(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(3)
    return str(request.param)


def test_step_equals_torchs_cell_on_the_same_weights(torchs: str) -> None:
    theirs = TORCH_CELLS[torchs](INPUTS, HIDDEN)
    ours = CELLS[torchs](INPUTS, HIDDEN)
    ours.load_state_dict(theirs.state_dict())
    state = ours.initial_state(STREAMS)
    carried = state if torchs == "lstm" else state[0]
    for _ in range(STEPS):
        x = torch.randn(STREAMS, INPUTS)
        y, state = ours.step(x, state)
        carried = theirs(x, carried)
        parts = carried if torchs == "lstm" else (carried,)
        assert all(close(a, b) for a, b in zip(state, parts, strict=True))
        assert close(y, parts[0])


def test_unroll_equals_torchs_single_layer_module(torchs: str) -> None:
    theirs = TORCH_LOOPS[torchs](INPUTS, HIDDEN)
    ours = CELLS[torchs](INPUTS, HIDDEN)
    ours.load_state_dict({name.removesuffix("_l0"): value for name, value in theirs.state_dict().items()})
    xs = torch.randn(STEPS, STREAMS, INPUTS)
    ys, state = ours.unroll(xs, ours.initial_state(STREAMS))
    expected, last = theirs(xs)
    assert close(ys, expected)
    parts = last if torchs == "lstm" else (last,)
    assert all(close(a, b[0]) for a, b in zip(state, parts, strict=True))


def test_stacked_network_equals_torchs_stacked_module(torchs: str) -> None:
    network = Network(ModelConfig(("a", "b"), cell=torchs, hidden=HIDDEN, layers=3))
    theirs = TORCH_LOOPS[torchs](5, HIDDEN, num_layers=3)
    ours = {f"{name}_l{k}": value for k, cell in enumerate(network.cells) for name, value in cell.state_dict().items()}
    theirs.load_state_dict(ours)
    xs = torch.randn(STEPS, STREAMS, 5)
    assert close(network.unroll(xs)[0], theirs(xs)[0])


def test_unroll_in_two_halves_equals_one(kind: str) -> None:
    cell = CELLS[kind](INPUTS, HIDDEN)
    xs = torch.randn(STEPS, STREAMS, INPUTS)
    whole, end = cell.unroll(xs, cell.initial_state(STREAMS))
    first, middle = cell.unroll(xs[:20], cell.initial_state(STREAMS))
    second, last = cell.unroll(xs[20:], middle)
    assert torch.equal(torch.cat((first, second)), whole)
    assert all(torch.equal(a, b) for a, b in zip(last, end, strict=True))


def test_unroll_is_the_loop_in_its_docstring(kind: str) -> None:
    cell = CELLS[kind](INPUTS, HIDDEN)
    xs = torch.randn(STEPS, STREAMS, INPUTS)
    lengths = torch.tensor([0, 1, 7, 20, STEPS - 1, STEPS])
    reset = torch.rand(STEPS, STREAMS) < 0.1
    start = tuple(torch.randn(STREAMS, HIDDEN) for _ in cell.PARTS)
    ys, state = cell.unroll(xs, start, lengths, reset)
    for lane in range(STREAMS):
        carried = tuple(part[lane : lane + 1] for part in start)
        for t in range(STEPS):
            if t < lengths[lane]:
                if reset[t, lane]:
                    carried = cell.initial_state(1)
                y, carried = cell.step(xs[t, lane : lane + 1], carried)
                assert close(ys[t, lane], y[0])
            else:
                assert not ys[t, lane].any()
        assert all(close(a[lane], b[0]) for a, b in zip(state, carried, strict=True))


def test_a_lane_that_has_ended_keeps_its_state_bit_for_bit(kind: str) -> None:
    cell = CELLS[kind](INPUTS, HIDDEN)
    xs = torch.randn(10, STREAMS, INPUTS)
    start = tuple(torch.randn(STREAMS, HIDDEN) for _ in cell.PARTS)
    _, end = cell.unroll(xs, start, torch.zeros(STREAMS), torch.ones(10, STREAMS, dtype=torch.bool))
    assert all(torch.equal(a, b) for a, b in zip(start, end, strict=True))


def test_no_steps_leave_the_state(kind: str) -> None:
    cell = CELLS[kind](INPUTS, HIDDEN)
    ys, state = cell.unroll(torch.empty(0, STREAMS, INPUTS), cell.initial_state(STREAMS))
    assert ys.shape == (0, STREAMS, HIDDEN)
    assert not any(part.any() for part in state)


def test_gradients_reach_every_parameter(kind: str) -> None:
    cell = CELLS[kind](INPUTS, HIDDEN)
    ys, _ = cell.unroll(torch.randn(8, STREAMS, INPUTS), cell.initial_state(STREAMS))
    ys.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in cell.parameters())


def test_recurrent_weights_begin_orthogonal_and_an_lstm_remembers(torchs: str) -> None:
    cell = CELLS[torchs](INPUTS, HIDDEN)
    for gate in cell.weight_hh.view(-1, HIDDEN, HIDDEN):
        assert torch.allclose(gate @ gate.t(), torch.eye(HIDDEN), atol=1e-5)
    if isinstance(cell, LSTM):
        bias = (cell.bias_ih + cell.bias_hh).view(4, HIDDEN)
        assert (bias[1] == 1).all() and not bias[[0, 2, 3]].any()


@pytest.mark.parametrize("hidden", [1, 3, 8, 13, 64])
def test_serving_form_equals_the_cell(kind: str, hidden: int) -> None:
    cell = CELLS[kind](INPUTS, hidden)
    with torch.no_grad():
        for parameter in cell.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)  # torch's default: not chaotic
    form = CELLS[kind].inference_of(ModelConfig(("a",), cell=kind, hidden=hidden))
    assert form is not None
    step, m = form(cell, torch.device("cpu")), 8
    parts = tuple(torch.zeros(STEPS + 1, m, step.units) for _ in cell.PARTS)
    state = cell.initial_state(m)
    sums, spare = torch.empty(m, step.gates * step.units), torch.empty(m * step.gates * step.units)
    with torch.no_grad():
        for t in range(STEPS):
            x = torch.randn(m, INPUTS)
            _, state = cell.step(x, state)
            step.project(nn.functional.pad(x, (0, padded(INPUTS) - INPUTS)), out=sums)
            step.run(sums, tuple(p[t] for p in parts), tuple(p[t + 1] for p in parts), spare)
            for ours, theirs in zip(parts, state, strict=True):
                assert torch.allclose(ours[t + 1, :, :hidden], theirs, rtol=0, atol=2e-6)
                assert not ours[t + 1, :, hidden:].any()  # padding stays zero


def test_min_gru_is_the_papers_sum_over_all_readings() -> None:
    """h_T = sum over t of z_t n_t times what all later gates let stand; no loop over time."""
    torch.manual_seed(3)
    cell = MinGRU(INPUTS, HIDDEN)
    nn.init.normal_(cell.bias_ih)
    xs, h = torch.randn(STEPS, STREAMS, INPUTS), torch.randn(STREAMS, HIDDEN)
    with torch.no_grad():
        z, n = (xs.double() @ cell.weight_ih.double().t() + cell.bias_ih.double()).chunk(2, dim=2)
        kept = (1 - z.sigmoid()).flip(0).cumprod(0).flip(0)  # from t to the end
        later = torch.cat((kept[1:], torch.ones_like(kept[:1])))
        expected = kept[0] * h + (z.sigmoid() * n * later).sum(0)
        for made in (cell.unroll(xs, (h,)), cell.scan(xs, (h,))):
            assert close(made[1][0], expected.float())


@pytest.mark.parametrize("steps", [0, 1, 2, 33])
def test_scan_is_unroll_to_the_last_digits_with_its_gradients(kind: str, steps: int) -> None:
    cell = CELLS[kind](INPUTS, HIDDEN)
    start = tuple(torch.randn(STREAMS, HIDDEN) for _ in cell.PARTS)
    xs, weight = torch.randn(steps, STREAMS, INPUTS), torch.randn(steps, STREAMS, HIDDEN)
    found = []
    for way in (cell.unroll, cell.scan) if steps or cell.TORCH is None else (cell.unroll, cell.unroll):
        before = tuple(part.clone().requires_grad_() for part in start)
        seen = xs.clone().requires_grad_()
        ys, after = way(seen, before)
        cell.zero_grad()
        ((ys * weight).sum() + sum(part.square().sum() for part in after)).backward()
        grads = [seen.grad, *(part.grad for part in before), *(one.grad for one in cell.parameters())]
        found.append([ys, *after, *(one for one in grads if one is not None)])
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
