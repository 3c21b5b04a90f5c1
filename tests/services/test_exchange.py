"""`streamrnn import` and `streamrnn export`: a torch user's module comes in, and goes out to torch and to ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from services.cli.main import _foreseen, app

RUNNER = CliRunner()
HIDDEN = 6


class Module(nn.Module):
    """A user's."""

    def __init__(self, kind: type[nn.RNNBase] = nn.GRU, inputs: int = 2, outputs: int = 1, **given: object) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.vectors = nn.Embedding(3, inputs)
        self.memory = kind(inputs, HIDDEN, **given)
        self.out = nn.Linear(self.memory.hidden_size * (2 if self.memory.bidirectional else 1), outputs)


def saved(folder: Path, module: nn.Module) -> Path:
    path = folder / "module.safetensors"
    weights.write_tensors(path, module.state_dict())
    return path


def run(*args: object) -> str:
    done = RUNNER.invoke(app, [str(one) for one in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*args: object) -> str:
    done = RUNNER.invoke(app, [str(one) for one in args])
    assert done.exit_code != 0 and done.exception is not None
    assert _foreseen(done.exception)  # by main, which prints it as one line
    return str(done.exception)


def test_features_and_a_head_make_a_model(tmp_path: Path) -> None:
    module = Module(nn.LSTM, num_layers=2)
    said = run(
        "import", saved(tmp_path, module), "--features", "a, b", "--targets", "t", "--head", "out", "-o", tmp_path / "m"
    )
    network, card = weights.load(tmp_path / "m")
    assert card.model in said and "head is untrained" not in said
    config = card.config
    assert (config.features, config.targets, config.cell, config.layers) == (("a", "b"), ("t",), "lstm", 2)
    x = torch.randn(9, 4, 2)
    feats = torch.zeros(9, 4, network.input_width)
    feats[..., :2] = x
    mean, _ = network.head(network.unroll(feats)[0])
    assert torch.allclose(mean, module.out(module.memory(x)[0]), atol=1e-6)


def test_a_bidirectional_module_without_a_head_is_said_to_lack_one(tmp_path: Path) -> None:
    path = saved(tmp_path, Module(nn.RNN, bidirectional=True, nonlinearity="relu"))
    said = run("import", path, "--features", "a,b", "--activation", "relu", "-o", tmp_path / "m")
    assert "the head is untrained" in said
    config = weights.read_card(tmp_path / "m").config
    assert (config.cell, config.direction, config.activation) == ("elman", "concat", "relu")


def test_a_config_file_makes_any_shape_of_it_symbols_too(tmp_path: Path) -> None:
    module = Module(nn.GRU, outputs=2)
    config = {"model": {"task": "many-to-one", "predicts": "now", "vocabulary": ["x", "y", "z"], "embedding": 2,
                        "head": "categorical", "labels": ["good", "bad"]}}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(config))
    run(
        "import",
        saved(tmp_path, module),
        "-c",
        tmp_path / "c.json",
        "--head",
        "out",
        "--embedding",
        "vectors",
        "-o",
        tmp_path / "m",
    )
    network, _ = weights.load(tmp_path / "m")
    words = torch.tensor([[3.0], [5.0], [4.0]])[:, None]
    logits, _ = network.head(network.unroll(network.embed_inputs(words))[0])
    assert torch.allclose(logits, module.out(module.memory(module.vectors(words[..., 0].long() - 3))[0]), atol=1e-6)
    assert not network.embedding.weight[:3].any()


def test_a_yaml_config_is_read_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, Module())
    config = tmp_path / "c.yaml"
    config.write_text("model:\n  features: [a, b]\nrecipe: {updates: 20}\n")  # a file of training
    run("import", path, "-c", config, "-o", tmp_path / "m")
    assert weights.read_card(tmp_path / "m").config.predicts == "next"
    for text, message in (
        ("model: {features: [a, b], hiden: 3}", "c.yaml: unknown key 'hiden'"),
        ("model: {features: [a, a]}", "c.yaml: features: wants names, none empty, none twice"),
        ("modell: {features: [a, b]}", "the nearest is 'model'"),
        ("model: [a, b]", "model: Input should be a valid dictionary"),
        ("model: {", "is not valid YAML"),
    ):
        config.write_text(text)
        assert message in refused("import", path, "-c", config, "-o", tmp_path / "n")
    assert "cannot be read" in refused("import", path, "-c", tmp_path / "d.yaml", "-o", tmp_path / "n")
    assert "--features:" in refused("import", path, "-c", config, "--features", "a,b", "-o", tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_a_folder_of_other_things_is_not_imported_over(tmp_path: Path) -> None:
    path = saved(tmp_path, Module())
    assert "holds files but no card.json" in refused("import", path, "--features", "a,b", "-o", tmp_path)
    assert "is a file" in refused("import", path, "--features", "a,b", "-o", path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--features"),
        (("--features", "a,b,c"), "weight_ih_l0 takes 2 inputs"),
        (("--features", "a,b", "--head", "outs"), "outs.weight is missing"),
        (("--features", "a,b", "--head", "out", "--targets", "s,t"), "out.weight has shape [1, 6]"),
        (("--features", "a,b", "--prefix", "other."), "other.weight_ih_l0 is missing"),
        (("--features", "a,b", "--embedding", "vectors"), "--embedding"),
        (("--features", "a,a"), "--features: wants names, none empty, none twice"),
        (("--features", "a,b", "--targets", "t,t"), "--targets: wants names, none empty, none twice"),
        (("--features", "a,b", "--activation", "sin"), "--activation: 'sin' is not one of"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    said = refused("import", saved(tmp_path, Module()), *options, "-o", tmp_path / "m")
    assert message in said
    assert not (tmp_path / "m").exists()


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save(Module().state_dict(), tmp_path / "module.pt")
    assert "not a safetensors file" in refused(
        "import", tmp_path / "module.pt", "--features", "a,b", "-o", tmp_path / "m"
    )


def test_export_to_torch_and_back_is_the_same(tmp_path: Path) -> None:
    torch.manual_seed(2)
    weights.save(tmp_path / "m", Network(ModelConfig(("a",), cell="gru", hidden=HIDDEN, layers=2)), created_ms=0)
    run("export", "-m", tmp_path / "m", "--torch", tmp_path / "layers.safetensors")
    network, _ = weights.load(tmp_path / "m")
    module = nn.GRU(3, HIDDEN, 2)
    module.load_state_dict(weights.read_tensors(tmp_path / "layers.safetensors"))
    feats = torch.randn(7, 2, 3)
    assert torch.allclose(module(feats)[0], network.unroll(feats)[0], atol=1e-6)


def test_export_to_onnx_says_what_goes_in_and_out(tmp_path: Path) -> None:
    weights.save(tmp_path / "m", Network(ModelConfig(("a",), hidden=HIDDEN)), created_ms=0)
    said = run("export", "--model", tmp_path / "m", "--onnx", tmp_path / "m.onnx")
    assert "feats, h0, c0 -> h0_next, c0_next, mean, scale, lo, hi" in said
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    zeros = np.zeros((1, HIDDEN), np.float32)
    (mean,) = session.run(["mean"], {"feats": np.zeros((1, 3), np.float32), "h0": zeros, "c0": zeros})
    assert mean.shape == (1, 1)


def test_a_model_that_decodes_gives_two_graphs(tmp_path: Path) -> None:
    weights.save(
        tmp_path / "m", Network(ModelConfig(("a",), hidden=4, task="encoder-decoder", horizon=3)), created_ms=0
    )
    run("export", "--model", tmp_path / "m", "--onnx", tmp_path / "m.onnx")
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["m.decode.onnx", "m.onnx"]


def test_export_of_nothing_and_of_no_model_are_refused(tmp_path: Path) -> None:
    assert "--onnx FILE, --torch FILE" in refused("export", "--model", tmp_path / "m")
    assert "cannot be read" in refused("export", "--model", tmp_path / "m", "--onnx", tmp_path / "m.onnx")
