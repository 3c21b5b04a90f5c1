"""rnn.nn.network: whatever the shape, a network unrolled is the same one stepped, and torch's where torch has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnn.config import ModelConfig
from rnn.nn.cells import CELLS, LSTM
from rnn.nn.network import Network, reverse_index

STEPS, LANES, HIDDEN = 9, 10, 8
LENGTHS = torch.arange(LANES)  # every length from none to all
TORCH = {name: getattr(nn, cell.TORCH) for name, cell in CELLS.items() if cell.TORCH}
NOW: dict[str, Any] = {"predicts": "now", "targets": ("truth",)}


@pytest.fixture(params=sorted(CELLS))
def cell(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(11)
    return str(request.param)


@pytest.fixture(params=sorted(TORCH))
def torchs(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(11)
    return str(request.param)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def network_of(cell: str, **given: Any) -> Network:
    """Evaluated, with weights that no symmetry hides: biases and norms are not where they begin."""
    made = Network(ModelConfig(features=("a", "b"), cell=cell, hidden=HIDDEN, **given)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def readings(network: Network, steps: int = STEPS) -> Tensor:
    return torch.randn(steps, LANES, network.input_width)


# ---- one way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "normed"])
def test_unroll_is_a_loop_of_steps(cell: str, layers: int, norm: bool) -> None:
    network = network_of(cell, layers=layers, layer_norm=norm)
    feats = readings(network)
    reset = torch.rand(STEPS, LANES) < 0.2
    h, end = network.unroll(feats, None, reset, LENGTHS)
    state = network.initial_state(LANES)
    for t in range(STEPS):
        anew = tuple(tuple(part.masked_fill(reset[t, :, None], 0) for part in layer) for layer in state)
        after = network.step(feats[t], anew)
        live = t < LENGTHS
        assert close(h[t][live], network.top(after)[live])
        state = tuple(
            tuple(torch.where(live[:, None], new, old) for new, old in zip(*pair, strict=True))
            for pair in zip(after, state, strict=True)
        )
    for ours, stepped in zip(end, state, strict=True):
        assert all(close(a, b) for a, b in zip(ours, stepped, strict=True))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_an_elman_network_is_torchs_with_the_same_activation(activation: str) -> None:
    torch.manual_seed(4)
    network = network_of("elman", layers=2, activation=activation)
    theirs = nn.RNN(network.input_width, HIDDEN, 2, nonlinearity=activation)
    theirs.load_state_dict({f"{n}_l{k}": v for k, one in enumerate(network.cells) for n, v in one.state_dict().items()})
    feats = readings(network)
    assert close(network.unroll(feats)[0], theirs(feats)[0])


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_an_elman_step_is_the_lectures_equation(activation: str) -> None:
    torch.manual_seed(4)
    network = network_of("elman", activation=activation)
    (one,) = network.cells
    f = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}[activation]
    x, h = torch.randn(LANES, network.input_width), torch.randn(LANES, HIDDEN)
    expected = f(x @ one.weight_ih.t() + h @ one.weight_hh.t() + one.bias_ih + one.bias_hh)
    assert close(network.top(network.step(x, ((h,),))), expected)


def test_layer_norm_normalises_what_the_next_layer_and_the_head_see(cell: str) -> None:
    network = Network(ModelConfig(("a",), cell=cell, hidden=HIDDEN, layers=2, layer_norm=True)).eval()
    h, _ = network.unroll(torch.randn(STEPS, LANES, network.input_width))
    assert torch.allclose(h.mean(-1), torch.zeros(STEPS, LANES), atol=1e-5)
    spread = h[-1].var(-1, unbiased=False)  # the first steps of an untrained cell are too small to be stretched to 1
    assert torch.allclose(spread, torch.ones(LANES), atol=0.1)


def test_dropout_acts_between_layers_in_training_only(cell: str) -> None:
    network = network_of(cell, layers=2, dropout=0.5)
    feats = readings(network)
    assert torch.equal(network.unroll(feats)[0], network.unroll(feats)[0])
    network.train()
    assert not torch.equal(network.unroll(feats)[0], network.unroll(feats)[0])
    _, (first, _) = network.unroll(feats)
    _, (again, _) = network.unroll(feats)
    assert torch.equal(first[0], again[0])  # nothing is hidden from the lowest layer
    alone = network_of(cell, layers=1, dropout=0.5).train()
    assert torch.equal(alone.unroll(feats)[0], alone.unroll(feats)[0])  # nor from the head


# ---- both ways ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["concat", "sum"])
def test_one_layer_both_ways_is_two_of_torchs_networks_for_every_length(torchs: str, direction: str) -> None:
    network = network_of(torchs, direction=direction, **NOW)
    forward, backward = (TORCH[torchs](network.input_width, HIDDEN) for _ in range(2))
    forward.load_state_dict({f"{n}_l0": v for n, v in network.layers[0].state_dict().items()})
    backward.load_state_dict({f"{n}_l0": v for n, v in network.back[0].state_dict().items()})
    feats = readings(network)
    h, _ = network.unroll(feats, lengths=LENGTHS)
    for lane, length in enumerate(LENGTHS.tolist()):
        if not length:
            continue
        known = feats[:length, lane : lane + 1]
        there, back = forward(known)[0], backward(known.flip(0))[0].flip(0)
        expected = torch.cat((there, back), -1) if direction == "concat" else there + back
        assert close(h[:length, lane : lane + 1], expected)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_concat_is_torchs_bidirectional_module(torchs: str, layers: int) -> None:
    network = network_of(torchs, direction="concat", layers=layers, **NOW)
    theirs = TORCH[torchs](network.input_width, HIDDEN, layers, bidirectional=True)
    weights = {}
    for k in range(layers):
        weights |= {f"{name}_l{k}": value for name, value in network.layers[k].state_dict().items()}
        weights |= {f"{name}_l{k}_reverse": value for name, value in network.back[k].state_dict().items()}
    theirs.load_state_dict(weights)
    feats = readings(network)
    assert close(network.unroll(feats)[0], theirs(feats)[0])


@pytest.mark.parametrize("direction", ["concat", "sum"])
@pytest.mark.parametrize("layers", [1, 2])
def test_what_a_lane_says_does_not_depend_on_longer_ones_beside_it(cell: str, direction: str, layers: int) -> None:
    network = network_of(cell, direction=direction, layers=layers, layer_norm=True, **NOW)
    feats = readings(network)
    h, end = network.unroll(feats, lengths=LENGTHS)
    for lane, length in enumerate(LENGTHS.tolist()):
        alone, its_end = network.unroll(feats[:length, lane : lane + 1])
        assert close(h[:length, lane : lane + 1], alone)
        for ours, its in zip(end, its_end, strict=True):
            assert all(close(a[lane], b[0]) for a, b in zip(ours, its, strict=True))


@pytest.mark.parametrize("direction", ["concat", "sum"])
@pytest.mark.parametrize("layers", [1, 2])
def test_look_is_unroll_on_the_window(cell: str, direction: str, layers: int) -> None:
    """Reading by reading with a view of what comes = offline on exactly what was known at that reading."""
    network = network_of(cell, direction=direction, layers=layers, **NOW)
    feats = readings(network)
    _, state = network.unroll(feats[:3])
    lengths = 1 + LENGTHS % (STEPS - 3)
    h, after = network.bidirectional_window(feats[3:], lengths, state)
    expected, _ = network.unroll(feats[3:], state, lengths=lengths)
    assert close(h, expected[0])
    first, stepped = network.unroll(feats[3:4], state)
    if layers == 1:
        for ours, its in zip(after, stepped, strict=True):
            assert all(close(a, b) for a, b in zip(ours, its, strict=True))
    assert first.shape == expected[:1].shape


def test_look_with_nothing_to_come_is_one_step_each_way(cell: str) -> None:
    network = network_of(cell, direction="sum", layers=2, **NOW)
    feats = readings(network, 1)
    h, after = network.bidirectional_window(feats, torch.ones(LANES, dtype=torch.int64), network.initial_state(LANES))
    expected, end = network.unroll(feats)
    assert close(h, expected[0])
    assert all(close(a, b) for ours, its in zip(after, end, strict=True) for a, b in zip(ours, its, strict=True))


def test_mirrored_turns_each_lane_round_and_leaves_what_lies_beyond() -> None:
    assert reverse_index(4, torch.tensor([0, 1, 3, 4])).t().tolist() == [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [2, 1, 0, 3],
        [3, 2, 1, 0],
    ]


# ---- decoders and layers without time -------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("head", ["point", "gaussian", "student", "quantile"])
def test_a_forecast_has_all_its_steps_each_fed_with_the_one_before(cell: str, head: str, layers: int) -> None:
    network = network_of(cell, layers=layers, head=head, task="encoder-decoder", horizon=5)
    _, state = network.unroll(readings(network))
    mean, scale = network.rollout(state)
    assert mean.shape == (LANES, 5, 2)
    assert (scale is None) == (head == "point")
    if scale is not None:
        assert scale.shape == (LANES, 5, 4 if head == "quantile" else 2)
    said = torch.zeros(LANES, 2)
    for step in range(5):
        h, state = network.decode(said, state)
        said, _ = network.head(h)
        assert h.shape == (LANES, HIDDEN)
        assert close(said, mean[:, step])


@pytest.mark.parametrize("layers", [1, 2])
def test_an_image_begins_a_decoder_that_speaks_symbols(cell: str, layers: int) -> None:
    labels = ("e", "n", "o")
    network = network_of(
        cell, layers=layers, task="one-to-many", head="categorical", labels=labels, horizon=4, predicts="now"
    )
    raw = torch.tensor([[1.0, float("nan")]]).expand(LANES, 2)
    state = network.init_decoder(network.embed_inputs(raw))
    assert len(state) == layers and all(part.shape == (LANES, HIDDEN) for layer in state for part in layer)
    assert all((part.abs() <= 1).all() for layer in state for part in layer)
    nothing = torch.full((LANES,), -1)
    h, after = network.decode(nothing, state)
    logits, _ = network.head(h)
    assert logits.shape == (LANES, len(labels) + 1)  # the end is a class
    assert len(after) == layers
    other, _ = network.decode(torch.zeros(LANES, dtype=torch.int64), state)
    assert not torch.equal(other, h)  # "nothing yet" is not a symbol


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_without_time_each_layer_is_f_of_a_matrix(activation: str) -> None:
    torch.manual_seed(2)
    network = network_of("elman", layers=2, activation=activation, task="one-to-one", **NOW)
    feats = torch.randn(LANES, network.input_width)
    f = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}[activation]
    expected = feats
    for dense in network.dense:
        assert isinstance(dense, nn.Linear)
        expected = f(expected @ dense.weight.t() + dense.bias)
    assert close(network(feats), expected)
    assert network.state_parts() == {}


def test_symbols_are_seen_as_their_vectors_and_a_missing_one_as_the_unknown() -> None:
    network = Network(ModelConfig(vocabulary=("a", "b"), head="categorical", hidden=HIDDEN, embedding=5))
    seen = network.embed_inputs(torch.tensor([[3.0], [float("nan")], [0.0], [4.0]]))
    weight = network.embedding.weight
    assert torch.equal(seen, weight[[3, 0, 0, 4]])
    assert weight.shape == (5, 5)


@pytest.mark.parametrize("direction", ["forward", "concat", "sum"])
def test_gradients_reach_every_parameter_that_the_loss_depends_on(cell: str, direction: str) -> None:
    network = network_of(cell, layers=2, direction=direction, layer_norm=True, **NOW).train()
    h, _ = network.unroll(readings(network), lengths=LENGTHS)
    mean, scale = network.head(h)
    network.head.loss(mean, scale, torch.randn_like(mean)).backward()  # type: ignore[no-untyped-call]
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


# ---- how it begins --------------------------------------------------------------------------------------------------


def test_a_stacked_lstm_begins_orthogonal_and_remembers_in_every_layer() -> None:
    network = Network(ModelConfig(("a",), hidden=HIDDEN, layers=4))
    assert len(network.cells) == 4
    for one in network.cells:
        assert isinstance(one, LSTM)
        for gate in one.weight_hh.view(4, HIDDEN, HIDDEN):
            assert torch.allclose(gate @ gate.t(), torch.eye(HIDDEN), atol=1e-5)
        assert (one.bias_ih[HIDDEN : 2 * HIDDEN] == 1).all()


@pytest.mark.parametrize("longest", [3, 50])
def test_where_a_whole_sequence_is_answered_gates_begin_with_memories_up_to_its_length(longest: int) -> None:
    """Chrono initialisation: half-lives from one reading to the longest sequence, input gates the other way round."""
    torch.manual_seed(0)
    whole = {"task": "many-to-one", "max_length": longest, **NOW}
    bias = Network(ModelConfig(("a",), hidden=400, **whole)).cells[0].bias_ih.detach().view(4, 400)
    assert torch.equal(bias[0], -bias[1]) and not bias[2:].any()
    memory = bias[1].exp()  # 1 / (1 - sigmoid(b)) - 1
    assert memory.min() >= 1 and memory.max() <= longest - 1 + 1e-4
    assert abs(float(memory.mean()) - longest / 2) < 0.1 * longest
    keep = Network(ModelConfig(("a",), hidden=400, cell="gru", **whole)).cells[0].bias_ih.detach().view(3, 400)[1]
    assert keep.min() >= 0 and keep.exp().max() <= longest - 1 + 1e-4
    take = Network(ModelConfig(("a",), hidden=400, cell="mingru", **whole)).cells[0].bias_ih.detach().view(2, 400)[0]
    assert take.max() <= 0 and (-take).exp().max() <= longest - 1 + 1e-4
    for other in ({"answer": "each"}, {"max_length": 0}, {"max_length": 2}):
        bias = Network(ModelConfig(("a",), hidden=8, **{**whole, **other})).cells[0].bias_ih.detach().view(4, 8)
        assert (bias[1] == 1).all() and not bias[[0, 2, 3]].any()
