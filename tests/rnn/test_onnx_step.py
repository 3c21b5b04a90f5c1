"""rnn.io.onnx_step: another runtime, given a reading and the state, says what the network says, for step after step."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from rnn.config import ModelConfig
from rnn.io.onnx_step import NoSuchGraph, onnx_step
from rnn.nn.cells import CELLS
from rnn.nn.network import Network, States

STREAMS, STEPS, HIDDEN = 5, 12, 7
WORDS = ("the", "cat", "sat", "down")


def network_of(**given: Any) -> Network:
    """Evaluated, with no weight where it begins."""
    torch.manual_seed(5)
    symbolic = "vocabulary" in given
    network = Network(ModelConfig(**{"features": () if symbolic else ("a", "b"), "hidden": HIDDEN, **given})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def session(network: Network, part: str = "step") -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        onnx_step(network, part).SerializeToString(), providers=["CPUExecutionProvider"]
    )


def run(of: onnxruntime.InferenceSession, **given: np.ndarray) -> dict[str, np.ndarray]:
    names = [one.name for one in of.get_outputs()]
    return dict(zip(names, of.run(names, given), strict=True))


def equal(theirs: np.ndarray, ours: Tensor) -> None:
    np.testing.assert_allclose(theirs, ours.detach().numpy(), rtol=1e-5, atol=1e-5)


def named(network: Network, state: States) -> dict[str, Tensor]:
    cells = network.cells or list(network.decoder)
    return {
        f"{name}{k}": part
        for k, (cell, layer) in enumerate(zip(cells, state, strict=True))
        for name, part in zip(cell.PARTS, layer, strict=True)  # type: ignore[arg-type]
    }


def heads_agree(network: Network, said: dict[str, np.ndarray], h: Tensor, extra: Tensor | float = 0.0) -> None:
    mean, scale = network.head(h)
    if network.config.labels:
        equal(said["logits"], mean)
        equal(said["probability"], torch.softmax(mean, dim=-1))
        return
    mean = mean + extra
    equal(said["mean"], mean)
    assert ("scale" in said) == (scale is not None)
    if scale is not None:
        equal(said["scale"], scale)
        band = network.head.band(mean, scale)
        assert band is not None
        equal(said["lo"], band[0])
        equal(said["hi"], band[1])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("head", ["point", "gaussian", "student", "quantile"])
def test_real_readings(cell: str, layers: int, head: str) -> None:
    network = network_of(cell=cell, layers=layers, head=head)
    graph, state = session(network), network.initial_state(STREAMS)
    carried = {name: part.numpy() for name, part in named(network, state).items()}
    for _ in range(STEPS):
        feats = torch.randn(STREAMS, network.input_width)
        state = network.step(feats, state)
        said = run(graph, feats=feats.numpy(), **carried)
        heads_agree(network, said, network.top(state))
        for name, part in named(network, state).items():
            equal(said[f"{name}_next"], part)
        carried = {name: said[f"{name}_next"] for name in carried}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_symbols(cell: str, layers: int) -> None:
    network = network_of(cell=cell, layers=layers, vocabulary=WORDS, head="categorical")
    graph, state = session(network), network.initial_state(STREAMS)
    carried = {name: part.numpy() for name, part in named(network, state).items()}
    for step in range(STEPS):
        symbol = torch.from_numpy(np.random.default_rng(step).integers(0, len(WORDS) + 3, STREAMS))
        state = network.step(network.embed_inputs(symbol[:, None].float()), state)
        said = run(graph, symbol=symbol.numpy(), **carried)
        heads_agree(network, said, network.top(state))
        carried = {name: said[f"{name}_next"] for name in carried}
    for name, part in named(network, state).items():
        equal(carried[name], part)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_activations_and_layer_norm(activation: str) -> None:
    network = network_of(cell="elman", activation=activation, layers=2, layer_norm=True)
    feats = torch.randn(STREAMS, network.input_width)
    state = network.step(feats, network.initial_state(STREAMS))
    zeros = {name: np.zeros((STREAMS, HIDDEN), np.float32) for name in ("h0", "h1")}
    heads_agree(network, run(session(network), feats=feats.numpy(), **zeros), network.top(state))


@pytest.mark.parametrize("linear", [1, 3])
def test_the_linear_paths_readings_are_part_of_the_state(linear: int) -> None:
    network = network_of(linear=linear, cell="gru")
    graph, state = session(network), network.initial_state(STREAMS)
    past = torch.zeros(STREAMS, 2 * linear)
    carried = {"h0": np.zeros((STREAMS, HIDDEN), np.float32), "past": past.numpy()}
    for _ in range(STEPS):
        feats = torch.randn(STREAMS, network.input_width)
        state = network.step(feats, state)
        past = torch.cat((feats[:, :2], past[:, :-2]), dim=1)
        said = run(graph, feats=feats.numpy(), **carried)
        assert network.linear_path is not None
        heads_agree(network, said, network.top(state), network.linear_path(past))
        carried = {name: said[f"{name}_next"] for name in carried}


@pytest.mark.parametrize("symbolic", [False, True], ids=["real", "symbolic"])
def test_without_memory_there_is_no_state(symbolic: bool) -> None:
    given = {"vocabulary": WORDS} if symbolic else {"activation": "relu"}
    network = network_of(task="one-to-one", layers=2, predicts="now", head="categorical", labels=("x", "y"), **given)
    if symbolic:
        raw = torch.tensor([[0.0], [3.0], [6.0]])
        said = run(session(network), symbol=raw[:, 0].long().numpy())
    else:
        network.scaler_mean.fill_(2.0)
        network.scaler_std.fill_(0.5)
        raw = torch.tensor([[1.0, float("nan")], [500.0, 2.0], [float("nan"), float("nan")]])
        said = run(session(network), x=raw.numpy())
    assert set(said) == {"logits", "probability"}
    heads_agree(network, said, network(network.embed_inputs(raw)))


def test_an_answer_of_many_symbols_is_spelt_with_two_graphs() -> None:
    network = network_of(task="one-to-many", predicts="now", head="categorical", labels=("e", "n", "o"), horizon=4)
    raw = torch.randn(STREAMS, 2)
    state = network.init_decoder(network.embed_inputs(raw))
    began = run(session(network), x=raw.numpy())
    decode = session(network, "decode")
    number, carried = torch.full((STREAMS,), -1), {name.removesuffix("_next"): part for name, part in began.items()}
    for _ in range(4):
        h, state = network.decode(number, state)
        said = run(decode, said=number.numpy(), **carried)
        heads_agree(network, said, h)
        number = torch.from_numpy(said["logits"].argmax(axis=1))
        carried = {name: said[f"{name}_next"] for name in carried}


@pytest.mark.parametrize("cell", CELLS)
def test_a_forecast_of_many_steps_goes_on_from_the_encoders_state(cell: str) -> None:
    network = network_of(task="encoder-decoder", cell=cell, layers=2, horizon=3)
    feats = torch.randn(STREAMS, network.input_width)
    state = network.step(feats, network.initial_state(STREAMS))
    zeros = {name: part.numpy() for name, part in named(network, network.initial_state(STREAMS)).items()}
    encoded = run(session(network), feats=feats.numpy(), **zeros)
    assert "mean" not in encoded
    mean, _ = network.rollout(state)
    carried = {name.removesuffix("_next"): part for name, part in encoded.items()}
    said = {"mean": np.zeros((STREAMS, 2), np.float32)}
    decode = session(network, "decode")
    for step in range(3):
        said = run(decode, said=said["mean"], **carried)
        equal(said["mean"], mean[:, step])
        carried = {name: said[f"{name}_next"] for name in carried}


def test_the_file_says_of_what_model_it_is() -> None:
    network = network_of(cell="gru")
    about = session(network).get_modelmeta()
    assert ModelConfig.from_json(about.custom_metadata_map["config"]) == network.config
    assert about.producer_name == "streamrnn"


@pytest.mark.parametrize(
    ("config", "part", "word"),
    [
        ({"direction": "concat", "predicts": "now", "targets": ("t",)}, "step", "window"),
        ({}, "decode", "'decode' is none"),
        ({}, "all", "'all' is none"),
    ],
)
def test_what_has_no_graph_is_refused(config: dict[str, Any], part: str, word: str) -> None:
    with pytest.raises(NoSuchGraph, match=word):
        onnx_step(network_of(**config), part)
