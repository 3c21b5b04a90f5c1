"""Weights from and for `torch.nn.RNN`, `LSTM` and `GRU`: their state dicts are the ones of our layers by other names.

    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0        layer 0, forward
    weight_ih_l0_reverse, ...                                 layer 0, backward
    weight_ih_l1, ...                                         layer 1

Shapes and gate order are equal on both sides. A module of one's own usually has more in it: a prefix names the
recurrent one among its tensors. Files are safetensors, never pickles. Imports torch, and of ours what builds networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnn.config import SPECIALS
from rnn.nn.cells import CELLS, Cell
from rnn.nn.network import Network

GATES = {cell.GATES: name for name, cell in CELLS.items() if cell.TORCH}
_WEIGHT = re.compile(r"weight_ih_l(\d+)(_reverse)?$")
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class IncompatibleWeights(Exception):
    """The tensors are not those of a recurrent module, or not of one that fits. The message names the tensor."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a recurrent module's tensors say of it. Whether an Elman cell has tanh or relu they do not say."""

    cell: str  # "elman" | "gru" | "lstm"
    inputs: int
    hidden: int
    layers: int
    both: bool  # bidirectional
    prefix: str = ""  # what the tensors' names begin with


def find_prefix(tensors: Mapping[str, Tensor]) -> str:
    """What the names of the one recurrent module among `tensors` begin with.

    Raises IncompatibleWeights for none or two.
    """
    found = sorted(name.removesuffix("weight_ih_l0") for name in tensors if name.endswith("weight_ih_l0"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise IncompatibleWeights("weight_ih_l0 is missing: these are not the tensors of torch.nn.RNN, LSTM or GRU")
    raise IncompatibleWeights(
        f"there are {len(found)} recurrent modules, {', '.join(map(repr, found))}: name one as prefix"
    )


def layout_of(tensors: Mapping[str, Tensor], prefix: str | None = None) -> Layout:
    """The layout of the recurrent module whose tensors begin with `prefix`; where None, of the only one there is.

    Raises IncompatibleWeights, naming the tensor, where one is missing, superfluous, of another shape than the rest
    says or not finite. A module without biases is fine.
    """
    prefix = find_prefix(tensors) if prefix is None else prefix
    mine = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
    found = [match for name in mine if (match := _WEIGHT.match(name))]
    if not found:
        raise IncompatibleWeights(f"{prefix}weight_ih_l0 is missing")
    layers, both = 1 + max(int(match[1]) for match in found), any(match[2] for match in found)
    if "weight_hh_l0" not in mine:
        raise IncompatibleWeights(f"{prefix}weight_hh_l0 is missing")
    rows, hidden = _matrix(prefix, mine, "weight_hh_l0")
    if rows % hidden or rows // hidden not in GATES:
        raise IncompatibleWeights(
            f"{prefix}weight_hh_l0 has shape {[rows, hidden]}; of a cell it is [gates * hidden, hidden] with 1, 3 or 4 "
            "gates (an LSTM with proj_size has no place here)"
        )
    inputs = _matrix(prefix, mine, "weight_ih_l0")[1]
    expected = _shapes(inputs, rows, hidden, layers, both, biases=any(name.startswith("bias_") for name in mine))
    for name, shape in expected.items():
        if name not in mine:
            raise IncompatibleWeights(f"{prefix}{name} is missing")
        if tuple(mine[name].shape) != shape:
            raise IncompatibleWeights(f"{prefix}{name} has shape {list(mine[name].shape)}; it should be {list(shape)}")
        if not bool(torch.isfinite(mine[name]).all()):
            raise IncompatibleWeights(f"{prefix}{name} holds numbers that are not finite")
    for name in mine:
        if name not in expected and (prefix or re.match(r"(weight|bias)_(ih|hh|hr)_l\d", name)):
            raise IncompatibleWeights(f"{prefix}{name} has no place in a {GATES[rows // hidden]} of {layers} layers")
    return Layout(GATES[rows // hidden], inputs, hidden, layers, both, prefix)


def load_layers(network: Network, tensors: Mapping[str, Tensor], prefix: str | None = None) -> Layout:
    """Copies a recurrent module's weights into the layers of `network`, whose config must be of that cell, size, number
    of layers and direction. Raises IncompatibleWeights; the network is then as it was.

    A module that was trained on the features alone, [.., features], fits too: its first layer then gives no weight to
    what else our networks see of a reading (which values are missing, how much time has passed).
    """
    layout, config = layout_of(tensors, prefix), network.config
    ours = (config.cell, config.hidden, config.layers, config.direction != "forward")
    theirs = (layout.cell, layout.hidden, layout.layers, layout.both)
    if not config.recurrent:
        raise IncompatibleWeights(f"task {config.task!r} has no recurrent layers that weights could go to")
    if ours != theirs:
        raise IncompatibleWeights(f"the model is a {_words(*ours)}, but the weights are of a {_words(*theirs)}")
    if config.direction == "sum" and config.layers > 1:
        raise IncompatibleWeights(
            "torch's stacked bidirectional modules concatenate: direction 'sum' has one layer only"
        )
    narrow = not config.symbolic and layout.inputs == len(config.features)
    if layout.inputs != network.input_width and not narrow:
        raise IncompatibleWeights(
            f"{layout.prefix}weight_ih_l0 takes {layout.inputs} inputs; this model's first layer sees "
            f"{network.input_width}" + ("" if config.symbolic else f", {len(config.features)} of them features")
        )
    with torch.no_grad():
        for name, parameter in _parameters(network).items():
            given = tensors.get(layout.prefix + name)
            parameter.zero_()
            if given is not None:  # else a module without biases
                parameter[tuple(slice(size) for size in given.shape)] = given
    return layout


def load_linear(linear: torch.nn.Linear, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copies the tensors `name`.weight and, where it has one, `name`.bias of a torch.nn.Linear, as of a head. Raises
    IncompatibleWeights; the layer is then as it was.
    """
    weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
    if weight is None:
        raise IncompatibleWeights(f"{name}.weight is missing")
    for key, given, wanted in ((f"{name}.weight", weight, linear.weight), (f"{name}.bias", bias, linear.bias)):
        if given is not None and given.shape != wanted.shape:
            raise IncompatibleWeights(f"{key} has shape {list(given.shape)}; it should be {list(wanted.shape)}")
        if given is not None and not bool(torch.isfinite(given).all()):
            raise IncompatibleWeights(f"{key} holds numbers that are not finite")
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is None:
            linear.bias.zero_()
        else:
            linear.bias.copy_(bias)


def load_embedding(vectors: torch.nn.Embedding, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copies `name`.weight of a torch.nn.Embedding: [3 + vocabulary, width], the first three rows for `rnn.config`'s
    special symbols; or [vocabulary, width], and the special ones are zero. Raises IncompatibleWeights.
    """
    given, own = tensors.get(f"{name}.weight"), vectors.weight
    if given is None:
        raise IncompatibleWeights(f"{name}.weight is missing")
    rows = own.shape[0] - len(SPECIALS)
    if given.dim() != 2 or given.shape[1] != own.shape[1] or given.shape[0] not in (rows, own.shape[0]):
        raise IncompatibleWeights(
            f"{name}.weight has shape {list(given.shape)}; it should be {list(own.shape)}, or {[rows, own.shape[1]]}"
        )
    if not bool(torch.isfinite(given).all()):
        raise IncompatibleWeights(f"{name}.weight holds numbers that are not finite")
    with torch.no_grad():
        own.zero_()
        own[-given.shape[0] :] = given


def layers_for_torch(network: Network) -> dict[str, Tensor]:
    """The state dict with which torch.nn.RNN, LSTM or GRU does what the layers of `network` do; copies.

    Raises IncompatibleWeights where torch has no such module: no recurrent layers, layer norm, Elman with sigmoid, or a
    stacked network whose directions are added.
    """
    config = network.config
    if not config.recurrent:
        raise IncompatibleWeights(f"task {config.task!r} has no recurrent layers")
    if CELLS[config.cell].TORCH is None:
        raise IncompatibleWeights(f"cell: torch has no module for {config.cell}")
    if config.layer_norm:
        raise IncompatibleWeights("layer_norm: torch's recurrent modules have none between their layers")
    if config.cell == "elman" and config.activation == "sigmoid":
        raise IncompatibleWeights("activation: torch.nn.RNN knows tanh and relu only")
    if config.direction == "sum" and config.layers > 1:
        raise IncompatibleWeights("direction: torch's stacked bidirectional modules concatenate")
    return {name: parameter.detach().clone() for name, parameter in _parameters(network).items()}


def _parameters(network: Network) -> dict[str, Tensor]:
    """The layers' parameters by torch's names."""
    named: dict[str, Tensor] = {}
    for layers, suffix in ((network.layers, ""), (network.back, "_reverse")):
        for number, layer in enumerate(layers):
            assert isinstance(layer, Cell)
            named |= {f"{name}_l{number}{suffix}": getattr(layer, name) for name in _NAMES}
    return named


def _shapes(inputs: int, rows: int, hidden: int, layers: int, both: bool, biases: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        width = inputs if not layer else hidden * (2 if both else 1)
        for suffix in ("", "_reverse") if both else ("",):
            end = f"_l{layer}{suffix}"
            shapes |= {"weight_ih" + end: (rows, width), "weight_hh" + end: (rows, hidden)}
            if biases:
                shapes |= {"bias_ih" + end: (rows,), "bias_hh" + end: (rows,)}
    return shapes


def _matrix(prefix: str, tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    one = tensors.get(name)
    if one is None:
        raise IncompatibleWeights(f"{prefix}{name} is missing")
    if one.dim() != 2 or not one.numel():
        raise IncompatibleWeights(f"{prefix}{name} has shape {list(one.shape)}; it should be a matrix")
    return int(one.shape[0]), int(one.shape[1])


def _words(cell: str, hidden: int, layers: int, both: bool) -> str:
    return f"{'bidirectional ' if both else ''}{cell} of {layers} {'layer' if layers == 1 else 'layers'} x {hidden}"
