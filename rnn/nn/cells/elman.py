"""Elman's cell, the lecture's first. Imports torch only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rnn.config import ModelConfig
from rnn.nn.cells import torch_kernels
from rnn.nn.cells.cell import Cell, Graph, State
from rnn.nn.cells.inference import TANH, InferenceCell
from rnn.nn.linear import added

ONNX = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu"}
KERNELS = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}  # torch has none for sigmoid


class Elman(Cell):
    """Elman 1990:  h_t = f(W_hh h_{t-1} + W_ih x_t + b); f is the lecture's: tanh, sigmoid or relu."""

    TORCH = "RNN"

    def __init__(self, inputs: int, hidden: int, activation: str = "tanh") -> None:
        super().__init__(inputs, hidden)
        self.activation = activation
        self._squash: Callable[[Tensor], Tensor] = getattr(torch, activation)

    @classmethod
    def of(cls, config: ModelConfig, inputs: int) -> Cell:
        return cls(inputs, config.hidden, config.activation)

    @classmethod
    def inference_of(cls, config: ModelConfig) -> type[InferenceCell] | None:
        return ElmanInferenceCell if config.activation == "tanh" else None

    def recur(self, projected: Tensor, state: State) -> State:
        return (self._squash(added(projected, state[0], self.weight_hh)),)

    def scan(self, xs: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        if self.activation not in KERNELS:
            return self.unroll(xs, state, lengths)
        return torch_kernels.scan(KERNELS[self.activation], self, xs, state, lengths)

    def onnx_nodes(self, graph: Graph, x: str, state: list[str]) -> list[str]:
        sums = graph.matrix(state[0], self.weight_hh, None)
        sums = graph.add("Add", graph.matrix(x, self.weight_ih, self.bias_ih + self.bias_hh), sums)
        return [graph.add(ONNX[self.activation], sums)]


class ElmanInferenceCell(InferenceCell):
    """h = 1 - 2 / (1 + 2^sums)."""

    SCALES = (TANH,)

    def run(self, sums: Tensor, before: State, after: State, spare: Tensor) -> None:
        y = self._squash(sums.addmm_(before[0], self.weight_h))
        torch.sub(self._one, y, alpha=2, out=after[0])
