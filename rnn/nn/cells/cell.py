"""What every cell has, and what it may have. State in, state out, never an attribute.

Parameter names, shapes and gate order are those of torch's RNNCell, LSTMCell and GRUCell where torch has the cell, so
state dicts copy over. Imports torch only.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from rnn.config import ModelConfig
from rnn.nn.cells.inference import InferenceCell
from rnn.nn.linear import product

State = tuple[Tensor, ...]
"""The parts of a cell's state, each [n, hidden]; the first one, h, is also the cell's output."""


class Graph(Protocol):
    """What of `rnn.io.onnx_step` a cell spells its equations with; values go by their names."""

    def add(self, operator: str, *inputs: str) -> str:
        """A node's value."""

    def matrix(self, value: str, weight: Tensor, bias: Tensor | None) -> str:
        """value @ weight^T + bias."""

    def split(self, value: str, parts: int) -> list[str]:
        """A value's columns in equal parts."""


class Cell(nn.Module):
    """Parameters, `step` and `unroll`. A cell adds its equations twice: `recur`, and as `onnx_nodes`."""

    GATES = 1
    PARTS: tuple[str, ...] = ("h",)
    RECURRENT_WEIGHTS = True  # whether gates look at h
    TORCH: str | None = None  # the module of torch.nn that has the same tensors

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.hidden = hidden
        rows = self.GATES * hidden
        self.weight_ih = nn.Parameter(torch.empty(rows, inputs))
        if self.RECURRENT_WEIGHTS:
            self.weight_hh = nn.Parameter(torch.empty(rows, hidden))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        if self.RECURRENT_WEIGHTS:
            self.bias_hh = nn.Parameter(torch.empty(rows))
        self.reset_parameters()

    @classmethod
    def of(cls, config: ModelConfig, inputs: int) -> Cell:
        """A layer of `inputs` inputs as the config describes it."""
        return cls(inputs, config.hidden)

    @classmethod
    def inference_of(cls, config: ModelConfig) -> type[InferenceCell] | None:
        """The serving form of such a layer; None: there is none, and the general engine steps the cell itself."""
        return None

    def reset_parameters(self) -> None:
        """Glorot uniform input weights, orthogonal recurrent weights (Saxe et al. 2014), zero biases; gate by gate.

        Does nothing on the meta device: drawing numbers there makes torch import its compiler, six seconds of it.
        """
        if self.weight_ih.is_meta:
            return
        for gate in range(self.GATES):
            rows = slice(gate * self.hidden, (gate + 1) * self.hidden)
            nn.init.uniform_(self.weight_ih.data[rows], -(bound := math.sqrt(6 / (self.inputs + self.hidden))), bound)
            if self.RECURRENT_WEIGHTS:
                nn.init.orthogonal_(self.weight_hh.data[rows])
        nn.init.zeros_(self.bias_ih)
        if self.RECURRENT_WEIGHTS:
            nn.init.zeros_(self.bias_hh)

    def chrono_init(self, longest: int) -> None:
        """Chrono initialisation (Tallec and Ollivier 2018): unit by unit another memory, from 1 to `longest` - 1
        readings. Leaves a cell that has no gate for what is kept as it is, and all cells where `longest` <= 2.
        """

    def initial_state(self, n: int, device: torch.device | str | None = None) -> State:
        """Zeros: the state of `n` streams that have seen nothing."""
        return tuple(self.weight_ih.new_zeros(n, self.hidden, device=device) for _ in self.PARTS)

    def project(self, x: Tensor) -> Tensor:
        """The sums that need no state, for all time steps at once: [..., inputs] -> [..., gates * hidden]."""
        return product(x, self.weight_ih, self.bias_ih + self.bias_hh)

    def recur(self, projected: Tensor, state: State) -> State:
        """State after one reading, from `project(x)` [n, gates * hidden] and the state before it."""
        raise NotImplementedError

    def onnx_nodes(self, graph: Graph, x: str, state: list[str]) -> list[str]:
        """`step` in ONNX's operators: the state's parts after x [n, inputs]."""
        raise NotImplementedError

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One reading of each of n streams: x [n, inputs] -> (y [n, hidden], state'). Pure: `state` is not changed."""
        state = self.recur(self.project(x), state)
        return state[0], state

    def unroll(
        self, xs: Tensor, state: State, lengths: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Steps over time; equal to this loop, only faster:

            for t in range(T):
                state = where(reset[t], 0, state)                     # a lane whose reset is set starts anew at t
                y, after = step(xs[t], state)
                state = where(t < lengths, after, state)              # a lane that has ended keeps its state
                ys[t] = where(t < lengths, y, 0)

        xs [T, n, inputs]; lengths [n] readings of each lane (all T where None); reset [T, n] bool (never where None; a
        reset after a lane's end has no effect). Returns (ys [T, n, hidden], state of each lane after its last reading).
        """
        projected = self.project(xs)
        ys: list[Tensor] = []
        for t in range(len(xs)):
            before = state
            if reset is not None:
                state = tuple(part.masked_fill(reset[t].unsqueeze(1), 0) for part in state)
            state = self.recur(projected[t], state)
            y = state[0]
            if lengths is not None:
                live = (t < lengths).unsqueeze(1)  # [n, 1]
                state = tuple(torch.where(live, new, old) for new, old in zip(state, before, strict=True))
                y = torch.where(live, y, torch.zeros_like(y))
            ys.append(y)
        return torch.stack(ys) if ys else xs.new_empty(0, xs.shape[1], self.hidden), state

    def scan(self, xs: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """As `unroll` without reset, sooner, for training: the last bits may differ. lengths [n] >= 1."""
        return self.unroll(xs, state, lengths)
