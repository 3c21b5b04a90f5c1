"""The network of each task shape, as the lecture draws them: inputs, stacked recurrent layers, decoder, head.

    one-to-one        y = head(f(W x))                                            no state
    one-to-many       decoder state = tanh(W x), then y_1 .. y_H one from another  no state
    many-to-one       y = head(h_T), or head(h_t) at each reading so far           state h
    many-to-many      y_t = head(h_t); both ways: head([forward h_t, backward h_t])
    encoder-decoder   decoder state = encoder's state after x_t, then y_1 .. y_H   state h of the encoder

Everything is a pure function of tensors with gradients: state in, state out. Imports torch only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnn.config import SPECIALS, ModelConfig
from rnn.nn.cells import CELLS, Cell, State
from rnn.nn.heads import HEADS, Point
from rnn.nn.inputs import CLIP, Inputs, outputs_of
from rnn.nn.linear import Linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}
"""The f of each name that `ModelConfig.activation` may have."""

States = tuple[State, ...]
"""A cell's state for each layer, bottom first."""


class Network(nn.Module):
    """Weights of one model. Its buffers scaler_mean and scaler_std [features] hold the global scaler (0 and 1 until
    training sets them), target_mean and target_std [targets] that of targets which are not features.
    """

    scaler_mean: Tensor
    scaler_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    head: Point  # or what extends it

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        features, targets = len(config.features), len(config.targets)
        if config.symbolic:
            self.embedding = embedding(len(SPECIALS) + len(config.vocabulary), config.embedding)
        else:
            self.register_buffer("scaler_mean", torch.zeros(features))
            self.register_buffer("scaler_std", torch.ones(features))
        if targets and not config.residual:
            self.register_buffer("target_mean", torch.zeros(targets))
            self.register_buffer("target_std", torch.ones(targets))
        cell, both = CELLS[config.cell], config.direction != "forward"
        out = config.hidden * (2 if config.direction == "concat" else 1)
        widths = [self.input_width] + [out] * (config.layers - 1)
        self.layers, self.back, self.dense = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        if config.task == "one-to-one":
            self.dense.extend(Linear(width, config.hidden) for width in widths)
        elif config.recurrent:
            self.layers.extend(cell.of(config, width) for width in widths)
            self.back.extend(cell.of(config, width) for width in widths if both)
            for layer in self.cells if config.at_end else ():  # what counts may lie a whole sequence back
                layer.chrono_init(config.max_length)
        else:
            self.start = Linear(self.input_width, config.layers * len(cell.PARTS) * config.hidden)
        if config.decodes:
            said = config.embedding if config.labels else targets
            self.decoder = nn.ModuleList(cell.of(config, width) for width in [said, *widths[1:]])
            if config.labels:  # the last one stands before the first symbol
                self.said = embedding(len(config.classes) + 1, config.embedding)
        self.norms = nn.ModuleList(nn.LayerNorm(out) for _ in range(config.layers if config.layer_norm else 0))
        self.head = HEADS[config.head](out, targets or len(config.classes), config.band)
        self.linear_path: Linear | None = None
        if config.linear:
            self.linear_path = Linear(config.linear * features, targets, bias=False)
            if not self.linear_path.weight.is_meta:
                nn.init.zeros_(self.linear_path.weight)

    # ---- inputs -----------------------------------------------------------------------------------------------------

    @property
    def cells(self) -> list[Cell]:
        """The recurrent layers that carry state from reading to reading, bottom first."""
        return _cells(self.layers)

    @property
    def inputs(self) -> Inputs:
        """The input side as the scaler buffers stand now; take it anew after they change. Real-valued readings only."""
        return Inputs(self.config, self.scaler_mean, self.scaler_std)

    @property
    def input_width(self) -> int:
        """Width of what the first layer sees."""
        if self.config.symbolic:
            return self.config.embedding
        return outputs_of(self.config) if self.config.recurrent else 2 * len(self.config.features)

    @property
    def raw_width(self) -> int:
        """Width of what `embed_inputs` takes."""
        if self.config.symbolic or not self.config.recurrent:
            return len(self.config.features)
        return outputs_of(self.config)

    def state_parts(self) -> dict[str, Tensor]:
        """The initial row, [width], of each part of a stream's state besides its clock.

        "x": `rnn.nn.inputs`; "past": what the linear path sees, the latest reading first; "h0", "c0", ...: the layers,
        bottom first; "window": readings [lag + 1, raw_width] that a both-ways network has not answered yet, the oldest
        first.
        """
        config, parts = self.config, dict[str, Tensor]()
        if not config.recurrent:
            return parts
        if not config.symbolic:
            parts["x"] = self.inputs.initial(1)[0][0]
        if config.linear:
            parts["past"] = torch.zeros(config.linear * len(config.features))
        for layer, cell in enumerate(self.cells):
            parts |= {f"{name}{layer}": torch.zeros(config.hidden) for name in cell.PARTS}
        if config.direction != "forward":
            parts["window"] = torch.zeros((config.lag + 1) * self.raw_width)
        return parts

    def embed_inputs(self, raw: Tensor) -> Tensor:
        """What the first layer sees [..., input_width]. raw [..., 1] symbol numbers, or [..., inputs.outputs] features
        of `Inputs.advance`; without recurrence [..., features] in raw units, NaN = missing.
        """
        if self.config.symbolic:
            vectors: Tensor = self.embedding(torch.nan_to_num(raw[..., 0]).long())
            return vectors
        if self.config.recurrent:
            return raw
        scaled = ((raw - self.scaler_mean) / self.scaler_std).clamp(-CLIP, CLIP)
        return torch.cat((torch.nan_to_num(scaled), raw.isnan().to(raw.dtype)), dim=-1)

    # ---- layers -----------------------------------------------------------------------------------------------------

    def initial_state(self, n: int, device: torch.device | str | None = None) -> States:
        """Zero state of n streams, a cell's state for each layer."""
        return tuple(cell.initial_state(n, device) for cell in self.cells)

    def normed(self, layer: int, y: Tensor) -> Tensor:
        """Output of a layer as the next one sees it: normalised where the config asks for it, else as it is."""
        return self.norms[layer](y) if self.norms else y

    def step(self, feats: Tensor, state: Sequence[State]) -> States:
        """State after one reading of each of n streams; feats [n, input_width]."""
        after: list[State] = []
        for layer, (cell, before) in enumerate(zip(self.cells, state, strict=True)):
            y, end = cell.step(feats, before)
            feats = self.normed(layer, y)
            after.append(end)
        return tuple(after)

    def top(self, state: Sequence[State]) -> Tensor:
        """What the head sees of a state, [n, hidden]; one way only."""
        return self.normed(self.config.layers - 1, state[-1][0])

    def forward(self, feats: Tensor) -> Tensor:
        """Feed-forward layers: feats [..., input_width] -> [..., hidden]. One-to-one only."""
        for layer, dense in enumerate(self.dense):
            feats = self.normed(layer, ACTIVATIONS[self.config.activation](dense(feats)))
        return feats

    def unroll(
        self,
        feats: Tensor,
        state: Sequence[State] | None = None,
        reset: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, States]:
        """Runs all layers over time, with gradients.

        feats [T, n, input_width]; `state` as returned (None: zeros); reset [T, n] bool and lengths [n] as in
        `Cell.unroll`. Returns (h_top [T, n, out], forward state of each layer after each lane's last reading). The head
        takes h_top as it is. Both ways, the backward layers start at each lane's end with nothing known; reset is for
        one way only. Between layers dropout acts in training mode.
        """
        if state is None:
            state = self.initial_state(feats.shape[1], feats.device)
        after: list[State] = []
        ys = feats
        for layer, (cell, before) in enumerate(zip(self.cells, state, strict=True)):
            if layer:
                ys = functional.dropout(ys, self.config.dropout, self.training)
            out, end = cell.unroll(ys, before, lengths, reset)
            if self.back:
                out = self._joined(out, self._backward(layer, ys, lengths))
            ys = self.normed(layer, out)
            after.append(end)
        return ys, tuple(after)

    def bidirectional_window(self, window: Tensor, lengths: Tensor, state: Sequence[State]) -> tuple[Tensor, States]:
        """Both ways with a view of what comes: the head's input for the first reading of each window, and the forward
        state after that reading. window [W, n, input_width], of lane i the first lengths[i] >= 1 readings are known;
        `state` is the forward state before the first one.
        """
        after: list[State] = []
        ys = window
        for layer, (cell, before) in enumerate(zip(self.cells, state, strict=True)):
            first, end = cell.step(ys[0], before)
            rest, _ = cell.unroll(ys[1:], end, lengths - 1)
            out = torch.cat((first.unsqueeze(0), rest))
            ys = self.normed(layer, self._joined(out, self._backward(layer, ys, lengths)))
            after.append(end)
        return ys[0], tuple(after)

    def _backward(self, layer: int, ys: Tensor, lengths: Tensor | None) -> Tensor:
        cell = _cells(self.back)[layer]
        if lengths is None:
            out, _ = cell.unroll(ys.flip(0), cell.initial_state(ys.shape[1], ys.device))
            return out.flip(0)
        index = reverse_index(len(ys), lengths)
        out, _ = cell.unroll(_taken(ys, index), cell.initial_state(ys.shape[1], ys.device), lengths)
        return _taken(out, index)

    def _joined(self, forward: Tensor, backward: Tensor) -> Tensor:
        return torch.cat((forward, backward), dim=-1) if self.config.direction == "concat" else forward + backward

    # ---- decoder ----------------------------------------------------------------------------------------------------

    def init_decoder(self, feats: Tensor) -> States:
        """One-to-many: the decoder's state before its first step, from feats [n, input_width]."""
        config, parts = self.config, len(CELLS[self.config.cell].PARTS)
        made = torch.tanh(self.start(feats)).view(len(feats), config.layers, parts, config.hidden)
        return tuple(tuple(made[:, layer, part] for part in range(parts)) for layer in range(config.layers))

    def decode(self, said: Tensor, state: Sequence[State]) -> tuple[Tensor, States]:
        """One step of the decoder: what was said last, [n, targets] scaled or [n] class numbers (-1 = nothing yet) ->
        (what the head sees [n, hidden], state').
        """
        ys = said
        if self.config.labels:
            ys = self.said(torch.where(said < 0, len(self.config.classes), said))
        after: list[State] = []
        for layer, (cell, before) in enumerate(zip(_cells(self.decoder), state, strict=True)):
            y, end = cell.step(ys, before)
            ys = self.normed(layer, y)
            after.append(end)
        return ys, tuple(after)

    def rollout(self, state: Sequence[State]) -> tuple[Tensor, Tensor | None]:
        """All steps of a real-valued answer, each fed with the mean before it: (mean [n, horizon, targets], scale
        [n, horizon, ..] or None), in the head's units.
        """
        n, means, scales = len(state[0][0]), [], []
        said = state[0][0].new_zeros(n, len(self.config.targets))
        for _ in range(self.config.horizon):
            h, state = self.decode(said, state)
            said, scale = self.head(h)
            means.append(said)
            scales.append(scale)
        known = [scale for scale in scales if scale is not None]
        return torch.stack(means, dim=1), torch.stack(known, dim=1) if known else None


def embedding(symbols: int, width: int) -> nn.Embedding:
    """Vectors of `symbols` symbols, standard normal / sqrt(width); none are drawn on the meta device."""
    weight = torch.empty(symbols, width)
    if not weight.is_meta:
        nn.init.normal_(weight, std=1 / math.sqrt(width))
    return nn.Embedding(symbols, width, _weight=weight)


def reverse_index(steps: int, lengths: Tensor) -> Tensor:
    """For each step of each lane the step from the lane's other end; beyond its end the step itself. [steps, n]"""
    t = torch.arange(steps, device=lengths.device).unsqueeze(1)
    return torch.where(t < lengths, lengths - 1 - t, t)


def _taken(xs: Tensor, index: Tensor) -> Tensor:
    return xs.gather(0, index.unsqueeze(2).expand(-1, -1, xs.shape[2]))


def _cells(layers: nn.ModuleList) -> list[Cell]:
    return [layer for layer in layers if isinstance(layer, Cell)]
