"""The long short-term memory. Imports torch only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnn.config import ModelConfig
from rnn.nn.cells import torch_kernels
from rnn.nn.cells.cell import Cell, Graph, State
from rnn.nn.cells.inference import SIGMOID, TANH, InferenceCell
from rnn.nn.linear import added


class LSTM(Cell):
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates in the order i, f, g, o.

        i = sigmoid(W_ii x + W_hi h + b_i)        f = sigmoid(W_if x + W_hf h + b_f)
        g = tanh   (W_ig x + W_hg h + b_g)        o = sigmoid(W_io x + W_ho h + b_o)
        c' = f * c + i * g                        h' = o * tanh(c')

    The forget gate's bias starts at 1 (Jozefowicz et al. 2015), so that a new network remembers.
    """

    GATES = 4
    PARTS = ("h", "c")
    TORCH = "LSTM"

    @classmethod
    def inference_of(cls, config: ModelConfig) -> type[InferenceCell]:
        return LSTMInferenceCell

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.bias_ih.is_meta:
            return
        nn.init.ones_(self.bias_ih.data[self.hidden : 2 * self.hidden])

    def chrono_init(self, longest: int) -> None:
        """The forget gate's bias is log U(1, longest - 1), the input gate's the negative of it."""
        if longest <= 2 or self.bias_ih.is_meta:
            return
        keep = torch.empty(self.hidden).uniform_(1, longest - 1).log()
        self.bias_ih.data[self.hidden : 2 * self.hidden] = keep
        self.bias_ih.data[: self.hidden] = -keep

    def recur(self, projected: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = added(projected, h, self.weight_hh).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def scan(self, xs: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        return torch_kernels.scan(torch.lstm, self, xs, state, lengths)

    def onnx_nodes(self, graph: Graph, x: str, state: list[str]) -> list[str]:
        sums = graph.matrix(state[0], self.weight_hh, None)
        sums = graph.add("Add", graph.matrix(x, self.weight_ih, self.bias_ih + self.bias_hh), sums)
        i, f, g, o = graph.split(sums, 4)
        kept = graph.add("Mul", graph.add("Sigmoid", f), state[1])
        c = graph.add("Add", kept, graph.add("Mul", graph.add("Sigmoid", i), graph.add("Tanh", g)))
        return [graph.add("Mul", graph.add("Sigmoid", o), graph.add("Tanh", c)), c]


class LSTMInferenceCell(InferenceCell):
    """All gates by one run of exp2 over the sums."""

    SCALES = (SIGMOID, SIGMOID, TANH, SIGMOID)

    def run(self, sums: Tensor, before: State, after: State, spare: Tensor) -> None:
        h, c = after
        m = len(sums)
        i, f, g, o = self._squash(sums.addmm_(before[0], self.weight_h)).view(m, 4, self.units).unbind(1)
        torch.addcmul(i, before[1], f, out=c).addcmul_(i, g, value=-2)  # f c + i (1 - 2 g)
        y = self._squash(torch.mul(c, self._tanh, out=spare[: m * self.units].view(m, self.units)))
        torch.addcmul(o, o, y, value=-2, out=h)
