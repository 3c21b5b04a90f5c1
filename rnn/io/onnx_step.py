"""One step of a network as an ONNX graph: state in, state out. The only module that imports onnx, and only when called.

The graph is spelt out from the cells' equations, operator by operator, with torch's exporter left aside: it needs two
more packages, and a traced graph has no names that a reader would know. Rows are streams; their number n is free.

    part "step"      a reading and the layers' state -> what the head says, the state after it
    part "decode"    what was said last and the decoder's state -> what the head says, the decoder's state after it

    in   feats [n, width] float32     the reading by `rnn.nn.inputs`: scaled values, missing marks, elapsed time; or
         symbol [n] int64             its number in the vocabulary; or
         x [n, features] float32      networks without memory: the reading itself, NaN = missing
         said [n, targets] | [n]      decode: the mean said last, zeros at first; or the class number, -1 at first
         h0, c0, h1, ... [n, hidden]  the state, zeros at first; past [n, linear * features] of a linear path
    out  mean, scale, lo, hi          in the head's units; or
         logits, probability          [n, classes]
         h0_next, c0_next, ...        the state, under its name with _next

Where a network decodes, "step" says nothing yet: its states are those that "decode" begins with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from rnn.nn.cells import Cell
from rnn.nn.heads import SCALE_FLOOR, Gaussian, Quantile
from rnn.nn.inputs import CLIP
from rnn.nn.network import Network

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # of 2022: any runtime from then on reads it
PARTS = ("step", "decode")


class NoSuchGraph(Exception):
    """This network has no such graph, or onnx is not installed. The message says why and what to do."""


def onnx_step(network: Network, part: str = "step") -> onnx.ModelProto:
    """The graph of one part; `SerializeToString()` gives the file's bytes. Its metadata holds the model's config.

    Raises NoSuchGraph for a network that reads both ways (its answer needs a window, not a step), for "decode" of one
    that does not decode, and where onnx is not installed.
    """
    config = network.config
    if config.direction != "forward":
        raise NoSuchGraph("direction: a network that reads both ways answers from a window; there is no single step")
    if part not in PARTS or (part == "decode" and not config.decodes):
        raise NoSuchGraph(f"part: {part!r} is none of a network with task {config.task!r}")
    try:
        import onnx
    except ImportError:
        raise NoSuchGraph("onnx is not installed: pip install 'streamrnn[onnx]'") from None
    graph = _Graph(network)
    if part == "decode":
        graph.decode()
    elif not config.recurrent and not config.decodes:
        graph.feed_forward()
    elif not config.recurrent:
        graph.begin()
    else:
        graph.step()
    made = graph.finished(f"{config.task}-{part}")
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "streamrnn"
    onnx.helper.set_model_props(model, {"config": config.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """An ONNX graph that grows node by node. Values are known by name; `add` makes one."""

    def __init__(self, network: Network) -> None:
        import onnx

        self.onnx = onnx
        self.network, self.config = network, network.config
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}

    # ---- the parts --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Recurrent layers, and the head on top unless the network decodes."""
        config = self.config
        if config.symbolic:
            seen = self.add("Gather", self.weight("embedding", self.network.embedding.weight),
                            self.take("symbol", [], np.int64))  # fmt: skip
        else:
            seen = self.take("feats", [self.network.input_width])
        top = self.stack(self.network.cells, seen)
        if not config.decodes:
            self.head(top, seen)
        elif config.linear:
            self.past(seen)

    def decode(self) -> None:
        """One step of the decoder."""
        if self.config.labels:
            number = self.take("said", [], np.int64)
            nothing = self.constant(np.array(len(self.config.classes), np.int64))
            number = self.add("Where", self.add("Less", number, self.constant(np.array(0, np.int64))), nothing, number)
            seen = self.add("Gather", self.weight("said_vectors", self.network.said.weight), number)
        else:
            seen = self.take("said", [len(self.config.targets)])
        self.head(self.stack([one for one in self.network.decoder if isinstance(one, Cell)], seen), None)

    def begin(self) -> None:
        """One-to-many: the decoder's first state."""
        made = self.add("Tanh", self.linear(self.first_seen(), self.network.start))
        names = [f"{part}{layer}" for layer, cell in enumerate(self.network.decoder) for part in _parts(cell)]
        for name, value in zip(names, self.split(made, len(names)), strict=True):
            self.give(f"{name}_next", value, self.config.hidden)

    def feed_forward(self) -> None:
        """One-to-one."""
        ys = self.first_seen()
        f = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu"}[self.config.activation]
        for layer, dense in enumerate(self.network.dense):
            assert isinstance(dense, nn.Linear)
            ys = self.normed(layer, self.add(f, self.linear(ys, dense)))
        self.head(ys, None)

    def first_seen(self) -> str:
        """What a network without memory sees: its symbol's vector, or the reading by the global scaler."""
        if self.config.symbolic:
            return self.add("Gather", self.weight("embedding", self.network.embedding.weight),
                            self.take("symbol", [], np.int64))  # fmt: skip
        x = self.take("x", [len(self.config.features)])
        missing = self.add("IsNaN", x)
        off = self.add("Sub", x, self.weight("scaler_mean", self.network.scaler_mean))
        scaled = self.add("Div", off, self.weight("scaler_std", self.network.scaler_std))
        least, most = (self.constant(np.array(edge, np.float32)) for edge in (-CLIP, CLIP))
        known = self.add(
            "Where", missing, self.constant(np.zeros(1, np.float32)), self.add("Clip", scaled, least, most)
        )
        return self.add("Concat", known, self.add("Cast", missing, to=self.onnx.TensorProto.FLOAT), axis=1)

    # ---- layers -----------------------------------------------------------------------------------------------------

    def stack(self, cells: list[Cell], ys: str) -> str:
        """Layers on one another, with their states as inputs and outputs; what the head sees."""
        for layer, cell in enumerate(cells):
            before = [self.take(f"{part}{layer}", [cell.hidden]) for part in cell.PARTS]
            after = cell.onnx_nodes(self, ys, before)
            for part, value in zip(cell.PARTS, after, strict=True):
                self.give(f"{part}{layer}_next", value, cell.hidden)
            ys = self.normed(layer, after[0])
        return ys

    def normed(self, layer: int, ys: str) -> str:
        """As `Network.normed`."""
        if not self.network.norms:
            return ys
        norm = self.network.norms[layer]
        assert isinstance(norm, nn.LayerNorm)
        scale, bias = self.weight(f"norm{layer}.weight", norm.weight), self.weight(f"norm{layer}.bias", norm.bias)
        return self.add("LayerNormalization", ys, scale, bias, epsilon=norm.eps)

    def past(self, seen: str) -> str:
        """The linear path's readings with the newest in front."""
        features = len(self.config.features)
        width = self.config.linear * features
        before = self.take("past", [width])
        newest = self.cut(seen, 0, features)
        kept = [newest] if self.config.linear == 1 else [newest, self.cut(before, 0, width - features)]
        return self.give("past_next", self.add("Concat", *kept, axis=1), width)

    def head(self, h: str, seen: str | None) -> None:
        """What the head says of h; with the linear path where it looks at `seen`."""
        head, config = self.network.head, self.config
        raw = self.linear(h, head.linear)
        if config.labels:
            self.give("logits", raw, head.targets)
            self.give("probability", self.add("Softmax", raw, axis=1), head.targets)
            return
        mean = self.cut(raw, 0, head.targets) if head.OUTPUTS > 1 else raw
        if self.network.linear_path is not None and seen is not None:
            mean = self.add("Add", mean, self.matrix(self.past(seen), self.network.linear_path.weight, None))
        self.give("mean", mean, head.targets)
        if not head.BANDED:
            return
        width = (head.OUTPUTS - 1) * head.targets
        floor = self.constant(np.array(SCALE_FLOOR, np.float32))
        scale = self.add("Add", self.add("Softplus", self.cut(raw, head.targets, head.targets + width)), floor)
        self.give("scale", scale, width)
        if isinstance(head, Quantile):
            factor = self.weight("calibration", head.calibration)
            below, above = (self.add("Mul", part, factor) for part in self.split(scale, 2))
        else:
            assert isinstance(head, Gaussian)
            below = above = self.add("Mul", scale, self.weight("half_width", head.half_width()))
        self.give("lo", self.add("Sub", mean, below), head.targets)
        self.give("hi", self.add("Add", mean, above), head.targets)

    # ---- nodes ------------------------------------------------------------------------------------------------------

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Adds a node; the name of its value, or of its first one: the others' names end in .1, .2, ..."""
        name = f"{operator.lower()}{len(self.nodes)}"
        names = [name, *(f"{name}.{k}" for k in range(1, outputs))]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), names, **attributes))
        return name

    def split(self, value: str, parts: int) -> list[str]:
        """A value's columns in equal parts."""
        if parts == 1:
            return [value]
        name = self.add("Split", value, outputs=parts, axis=1)
        return [name, *(f"{name}.{k}" for k in range(1, parts))]

    def cut(self, value: str, start: int, stop: int) -> str:
        """Some columns of a value."""
        edges = [self.constant(np.array([edge], np.int64)) for edge in (start, stop, 1)]
        return self.add("Slice", value, *edges)

    def matrix(self, value: str, weight: Tensor, bias: Tensor | None) -> str:
        """value @ weight^T + bias."""
        given = [self.constant(weight.detach().cpu().numpy())]
        given += [] if bias is None else [self.constant(bias.detach().cpu().numpy())]
        return self.add("Gemm", value, *given, transB=1)

    def linear(self, value: str, layer: nn.Linear) -> str:
        """What a torch.nn.Linear does."""
        return self.matrix(value, layer.weight, layer.bias)

    def weight(self, name: str, value: Tensor) -> str:
        """A constant under a name of its own."""
        self.constants[name] = value.detach().cpu().numpy()
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """A constant under any name."""
        name = f"constant{len(self.constants)}"
        self.constants[name] = value
        return name

    def take(self, name: str, shape: list[int], dtype: type = np.float32) -> str:
        """An input [n, *shape]."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, ["n", *shape]))
        return name

    def give(self, name: str, value: str, width: int) -> str:
        """Makes a value an output [n, width], under this name."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name]))
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, ["n", width]))
        return name

    def finished(self, name: str) -> Any:
        """The graph."""
        arrays = [
            self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in self.constants.items()
        ]
        return self.onnx.helper.make_graph(self.nodes, name, self.inputs, self.outputs, arrays)


def _parts(cell: nn.Module) -> tuple[str, ...]:
    assert isinstance(cell, Cell)
    return cell.PARTS
