"""rnn.io.torch_weights: torch's recurrent modules and our networks do the same with the same tensors, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnn.config import ModelConfig
from rnn.io.torch_weights import (
    IncompatibleWeights,
    Layout,
    find_prefix,
    layers_for_torch,
    layout_of,
    load_layers,
    load_linear,
)
from rnn.io.weights import ModelRefused, read_tensors, write_tensors
from rnn.nn.network import Network

HIDDEN, STEPS, LANES = 6, 7, 5
TORCH = {"elman": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
NOW: dict[str, Any] = {"predicts": "now", "targets": ("truth",)}


def theirs(cell: str, inputs: int = 5, **given: Any) -> nn.Module:
    torch.manual_seed(3)
    return TORCH[cell](inputs, HIDDEN, **given)


def ours(cell: str, **given: Any) -> Network:
    return Network(ModelConfig(features=("a", "b"), cell=cell, hidden=HIDDEN, **{**NOW, **given})).eval()


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", sorted(TORCH))
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("bias", [True, False], ids=["biased", "plain"])
def test_imported_layers_say_what_torchs_module_says(cell: str, layers: int, both: bool, bias: bool) -> None:
    module = theirs(cell, num_layers=layers, bidirectional=both, bias=bias)
    network = ours(cell, layers=layers, direction="concat" if both else "forward")
    found = load_layers(network, module.state_dict())
    assert found == Layout(cell, 5, HIDDEN, layers, both)
    feats = torch.randn(STEPS, LANES, 5)
    assert close(network.unroll(feats)[0], module(feats)[0])


@pytest.mark.parametrize("cell", sorted(TORCH))
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("direction", ["forward", "concat"])
def test_exported_layers_do_in_torch_what_they_do_here(cell: str, layers: int, direction: str) -> None:
    network = ours(cell, layers=layers, direction=direction)
    module = theirs(cell, num_layers=layers, bidirectional=direction == "concat")
    module.load_state_dict(layers_for_torch(network))
    feats = torch.randn(STEPS, LANES, 5)
    assert close(network.unroll(feats)[0], module(feats)[0])


def test_relu_and_summed_directions_come_over_too() -> None:
    module = theirs("elman", nonlinearity="relu")
    network = ours("elman", activation="relu")
    load_layers(network, module.state_dict())
    feats = torch.randn(STEPS, LANES, 5)
    assert close(network.unroll(feats)[0], module(feats)[0])
    module = theirs("gru", bidirectional=True)
    network = ours("gru", direction="sum")
    load_layers(network, module.state_dict())
    there, back = module(feats)[0].split(HIDDEN, -1)
    assert close(network.unroll(feats)[0], there + back)


@pytest.mark.parametrize("cell", sorted(TORCH))
def test_a_module_of_the_features_alone_looks_at_nothing_else(cell: str) -> None:
    module, network = theirs(cell, inputs=2), ours(cell)
    load_layers(network, module.state_dict())
    feats = torch.randn(STEPS, LANES, network.input_width)
    expected = module(feats[..., :2])[0]
    assert close(network.unroll(feats)[0], expected)


class Sensor(nn.Module):
    """What a user brings: a recurrent module and a head, by names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(2, HIDDEN, num_layers=2, batch_first=True)
        self.out = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(self.memory(x)[0])
        return answer


def test_a_users_whole_module_is_served_with_its_own_numbers(tmp_path: Path) -> None:
    """From a safetensors file to predictions of the pipeline: the numbers of the module itself."""
    import numpy as np

    from services.driver import StreamDriver

    torch.manual_seed(8)
    module = Sensor().eval()
    write_tensors(tmp_path / "sensor.safetensors", module.state_dict())
    tensors = read_tensors(tmp_path / "sensor.safetensors")
    assert find_prefix(tensors) == "memory."
    network = ours("lstm", layers=2, head="point", scaler_memory=0)
    load_layers(network, tensors)
    load_linear(network.head.linear, tensors, "out")
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    driver = StreamDriver(network)
    for k, row in enumerate(x):
        driver.send("pump", 1_700_000_000_000 + 1000 * k, row)
    driver.run()
    said = np.array([p.y[0] for p in driver.predictions("pump")])
    with torch.no_grad():
        expected = module(torch.from_numpy(x)[None])[0, :, 0].numpy()
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-5)


def test_wrong_weights_are_refused_by_name_and_leave_the_network_alone() -> None:
    good = {f"rnn.{name}": one for name, one in theirs("lstm", num_layers=2).state_dict().items()}
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({k: v for k, v in good.items() if k != "rnn.bias_hh_l1"}, "rnn.bias_hh_l1 is missing"),
        ({k: v for k, v in good.items() if "weight_hh_l0" not in k}, "rnn.weight_hh_l0 is missing"),
        ({k: v for k, v in good.items() if "weight_ih_l0" not in k}, "weight_ih_l0 is missing"),
        ({**good, "rnn.weight_hh_l1": torch.zeros(24, 7)}, "rnn.weight_hh_l1 has shape [24, 7]; it should be [24, 6]"),
        ({**good, "rnn.weight_hh_l0": torch.zeros(12, 6)}, "rnn.weight_hh_l0 has shape [12, 6]"),
        ({**good, "rnn.weight_hh_l0": torch.zeros(12)}, "rnn.weight_hh_l0 has shape [12]"),
        ({**good, "rnn.bias_ih_l0": torch.full((24,), torch.nan)}, "rnn.bias_ih_l0 holds numbers that are not finite"),
        ({**good, "rnn.weight_hr_l0": torch.zeros(3, 6)}, "rnn.weight_hr_l0 has no place"),
        ({**good, "other.weight_ih_l0": torch.zeros(24, 5)}, "2 recurrent modules, 'other.', 'rnn.'"),
    ]
    network = ours("lstm", layers=2)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    for tensors, message in cases:
        with pytest.raises(IncompatibleWeights) as refused:
            load_layers(network, tensors)
        assert message in str(refused.value)
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layers": 3}, "the model is a lstm of 3 layers x 6, but the weights are of a lstm of 2 layers x 6"),
        ({"cell": "gru"}, "the model is a gru"),
        ({"direction": "concat"}, "the model is a bidirectional lstm"),
        ({"features": ("a", "b", "c")}, "weight_ih_l0 takes 5 inputs; this model's first layer sees 7, 3 of them"),
        ({"task": "one-to-one"}, "task 'one-to-one' has no recurrent layers"),
    ],
)
def test_a_model_that_does_not_fit_says_in_what(config: dict[str, Any], message: str) -> None:
    given = {"features": ("a", "b"), "cell": "lstm", "hidden": HIDDEN, "layers": 2, **NOW, **config}
    with pytest.raises(IncompatibleWeights) as refused:
        load_layers(Network(ModelConfig(**given)), theirs("lstm", num_layers=2).state_dict())
    assert message in str(refused.value)


def test_a_head_that_does_not_fit_is_refused_by_name() -> None:
    head = ours("lstm").head.linear
    for tensors, message in (
        ({}, "out.weight is missing"),
        ({"out.weight": torch.zeros(3, 6)}, "out.weight has shape [3, 6]; it should be [2, 6]"),
        ({"out.weight": torch.full((2, 6), torch.inf)}, "out.weight holds numbers that are not finite"),
    ):
        with pytest.raises(IncompatibleWeights) as refused:
            load_linear(head, tensors, "out")
        assert message in str(refused.value)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"layer_norm": True}, "layer_norm"),
        ({"cell": "elman", "activation": "sigmoid"}, "activation"),
        ({"direction": "sum", "layers": 2}, "direction"),
        ({"task": "one-to-one"}, "task"),
    ],
)
def test_what_torch_has_no_module_for_is_not_exported(config: dict[str, Any], word: str) -> None:
    with pytest.raises(IncompatibleWeights, match=word):
        layers_for_torch(ours(**{"cell": "lstm", **config}))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(theirs("gru").state_dict(), path)
    with pytest.raises(ModelRefused, match="not a safetensors file"):
        read_tensors(path)
    with pytest.raises(ModelRefused, match="cannot be read"):
        read_tensors(tmp_path / "absent.safetensors")


def test_layout_needs_no_network() -> None:
    assert layout_of(theirs("gru", inputs=9, num_layers=4).state_dict()) == Layout("gru", 9, HIDDEN, 4, False)
