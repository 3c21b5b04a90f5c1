"""The gated recurrent unit. Imports torch only."""

from __future__ import annotations

import torch
from torch import Tensor

from rnn.config import ModelConfig
from rnn.nn.cells import torch_kernels
from rnn.nn.cells.cell import Cell, Graph, State
from rnn.nn.cells.inference import SIGMOID, TANH, InferenceCell
from rnn.nn.linear import added, product


class GRU(Cell):
    """Cho et al. 2014 in torch's form, where the reset gate acts after the product; gates in the order r, z, n.

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n = tanh(W_in x + b_in + r * (W_hn h + b_hn))     h' = (1 - z) * n + z * h
    """

    GATES = 3
    TORCH = "GRU"

    @classmethod
    def inference_of(cls, config: ModelConfig) -> type[InferenceCell]:
        return GRUInferenceCell

    def chrono_init(self, longest: int) -> None:
        """The update gate's bias, which is the share that is kept, is log U(1, longest - 1)."""
        if longest <= 2 or self.bias_ih.is_meta:
            return
        self.bias_ih.data[self.hidden : 2 * self.hidden] = torch.empty(self.hidden).uniform_(1, longest - 1).log()

    def project(self, x: Tensor) -> Tensor:
        return product(x, self.weight_ih, self.bias_ih)  # b_hn stands inside the product with r

    def recur(self, projected: Tensor, state: State) -> State:
        (h,) = state
        xr, xz, xn = projected.chunk(3, dim=1)
        hr, hz, hn = added(self.bias_hh, h, self.weight_hh).chunk(3, dim=1)
        n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        return (n + torch.sigmoid(xz + hz) * (h - n),)

    def scan(self, xs: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        return torch_kernels.scan(torch.gru, self, xs, state, lengths)

    def onnx_nodes(self, graph: Graph, x: str, state: list[str]) -> list[str]:
        xr, xz, xn = graph.split(graph.matrix(x, self.weight_ih, self.bias_ih), 3)
        hr, hz, hn = graph.split(graph.matrix(state[0], self.weight_hh, self.bias_hh), 3)
        r = graph.add("Sigmoid", graph.add("Add", xr, hr))
        z = graph.add("Sigmoid", graph.add("Add", xz, hz))
        n = graph.add("Tanh", graph.add("Add", xn, graph.add("Mul", r, hn)))
        return [graph.add("Add", n, graph.add("Mul", z, graph.add("Sub", state[0], n)))]


class GRUInferenceCell(InferenceCell):
    """The product with h has a buffer of its own, for r acts on a part of it."""

    SCALES = (SIGMOID, SIGMOID, TANH)
    ADDS_BIASES = False

    def run(self, sums: Tensor, before: State, after: State, spare: Tensor) -> None:
        (h,) = after
        m, units = len(sums), self.units
        product = torch.addmm(self.bias_h, before[0], self.weight_h, out=spare[: m * 3 * units].view(m, 3 * units))
        gates, rest = product[:, : 2 * units], product[:, 2 * units :]
        gates += sums[:, : 2 * units]
        r, z = self._squash(gates).view(m, 2, units).unbind(1)
        y = self._squash(torch.mul(rest, r, out=h).add_(sums[:, 2 * units :]))
        n = torch.sub(self._one, y, alpha=2, out=h)
        n.addcmul_(torch.sub(before[0], n, out=rest), z)  # (1 - z) n + z h = n + z (h - n)
