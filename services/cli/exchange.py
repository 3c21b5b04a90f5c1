"""`streamrnn import` and `streamrnn export`: models from and for torch, and for any runtime that reads ONNX."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rnn.config import ModelConfig


class Impossible(Exception):
    """What was asked for contradicts itself. The message says what to give instead."""


def import_model(
    file: Annotated[
        Path, typer.Argument(help="safetensors file of a module with one torch.nn.RNN, LSTM or GRU in it.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to save the model in.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="YAML with a section model, as of `streamrnn train`; it need not say the size."
        ),
    ] = None,
    features: Annotated[
        str, typer.Option(help="Without a config: names of the module's inputs, A,B,... in order.")
    ] = "",
    targets: Annotated[str, typer.Option(help="Without a config: names of what the head says, A,B,...")] = "",
    head: Annotated[str, typer.Option(help="Name of the torch.nn.Linear on top, as in `NAME.weight`.")] = "",
    embedding: Annotated[str, typer.Option(help="Name of the torch.nn.Embedding below, of a model of symbols.")] = "",
    prefix: Annotated[str | None, typer.Option(help="What the recurrent module's names begin with, as `rnn.`.")] = None,
    activation: Annotated[str, typer.Option(help="Of a torch.nn.RNN: tanh or relu. The file does not say.")] = "tanh",
) -> None:
    """Makes a model of weights that were trained in torch; never unpickles.

    Save them with safetensors.torch.save_file(module.state_dict(), FILE). Without a config the model says what the
    module says: NAME.weight and NAME.bias become a head that tells the targets' values, and nothing is scaled. A module
    that takes the features alone gives no weight to missing marks and elapsed time.
    """
    import dataclasses

    from rnn.config import ModelConfig
    from rnn.io import weights
    from rnn.io.torch_weights import layout_of, load_embedding, load_layers, load_linear
    from rnn.nn.network import Network

    tensors = weights.read_tensors(file)
    layout = layout_of(tensors, prefix)
    if config is not None and (features or targets):
        raise Impossible(f"--{'features' if features else 'targets'}: {config} says that; leave it out")
    if config is not None:
        given = model_section(config)
    elif features:
        try:
            given = ModelConfig(
                features=_names(features), targets=_names(targets or features), predicts="now", head="point",
                direction="concat" if layout.both else "forward", scaler_memory=0, activation=activation,
            )  # fmt: skip
        except ValueError as error:  # it begins with the field, which is named as the option is
            raise Impossible(f"--{error}") from None
    else:
        raise Impossible("name the module's inputs with --features A,B, or give --config FILE")
    sized = dataclasses.replace(given, cell=layout.cell, hidden=layout.hidden, layers=layout.layers)
    network = Network(sized).eval()
    load_layers(network, tensors, layout.prefix)
    taken = ["layers"]
    if head:
        load_linear(network.head.linear, tensors, head)
        taken.append("head")
    if embedding:
        if not network.config.symbolic:
            raise Impossible("--embedding: this model's readings are numbers; give a --config with a vocabulary")
        load_embedding(network.embedding, tensors, embedding)
        taken.append("embedding")
    card = weights.save(out, network, created_ms=time.time_ns() // 1_000_000)
    typer.echo(f"model     {card.model} in {out}")
    typer.echo(f"taken     {', '.join(taken)} of a {layout.cell}, {layout.layers} x {layout.hidden}")
    if not head:
        typer.echo("left      the head is untrained: name the torch.nn.Linear on top with --head")


def export_model(
    model: Annotated[Path, typer.Option("--model", "-m", help="Folder of a model.")],
    onnx: Annotated[Path | None, typer.Option(help="File to write one step to, state in and state out.")] = None,
    torch: Annotated[Path | None, typer.Option(help="File to write the recurrent layers to, for torch.nn.")] = None,
) -> None:
    """Writes a model for others: one step as an ONNX graph, or its layers as safetensors for torch.nn.RNN, LSTM or GRU.

    A model that decodes has two graphs: FILE, and FILE with .decode before its ending. Rows of both are streams.
    """
    if onnx is None and torch is None:
        raise Impossible("say what to write: --onnx FILE, --torch FILE, or both")
    from rnn.io import weights

    network, card = weights.load(model)
    if onnx is not None:
        from rnn.io.onnx_step import onnx_step

        files = {onnx: "step"}
        if card.config.decodes:
            files[onnx.with_suffix(f".decode{onnx.suffix}")] = "decode"
        for file, part in files.items():
            graph = onnx_step(network, part)
            file.write_bytes(graph.SerializeToString())
            ports = [", ".join(port.name for port in side) for side in (graph.graph.input, graph.graph.output)]
            typer.echo(f"{part:<9} {file}: {ports[0]} -> {ports[1]}")
    if torch is not None:
        from rnn.io.torch_weights import layers_for_torch

        weights.write_tensors(torch, layers_for_torch(network))
        typer.echo(
            f"layers    {torch}: state dict of a {card.config.cell}, {card.config.layers} x {card.config.hidden}"
        )


def model_section(path: Path) -> ModelConfig:
    """The section `model` of a YAML file. Raises Impossible or WrongSettings, naming the file."""
    from rnn.config import ModelConfig
    from services.settings.training import training_file

    tree = training_file(path).model
    try:
        return ModelConfig.from_tree(tree)
    except (ValueError, TypeError) as error:
        raise Impossible(f"{path}: {error}") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
