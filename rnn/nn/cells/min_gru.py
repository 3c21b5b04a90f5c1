"""A GRU whose gate does not look back, so that training sees all steps at once. Imports torch only."""

from __future__ import annotations

import torch
from torch import Tensor

from rnn.config import ModelConfig
from rnn.nn.cells.cell import Cell, Graph, State
from rnn.nn.cells.inference import LINEAR, SIGMOID, InferenceCell
from rnn.nn.linear import product


class MinGRU(Cell):
    """Feng et al. 2024, "Were RNNs All We Needed?", in its plain form; gates in the order z, n.

        z = sigmoid(W_z x + b_z)        n = W_n x + b_n        h' = (1 - z) * h + z * n

    h is a sum of what was read, weighted by what later gates let pass: no product of h with a matrix, so what a reading
    means cannot depend on those before it, but in the layer above.
    """

    GATES = 2
    RECURRENT_WEIGHTS = False

    @classmethod
    def inference_of(cls, config: ModelConfig) -> type[InferenceCell]:
        return MinGRUInferenceCell

    def chrono_init(self, longest: int) -> None:
        """The gate's bias, which is the share that is taken, is -log U(1, longest - 1)."""
        if longest <= 2 or self.bias_ih.is_meta:
            return
        self.bias_ih.data[: self.hidden] = -torch.empty(self.hidden).uniform_(1, longest - 1).log()

    def project(self, x: Tensor) -> Tensor:
        return product(x, self.weight_ih, self.bias_ih)

    def recur(self, projected: Tensor, state: State) -> State:
        (h,) = state
        z, n = projected.chunk(2, dim=1)
        return (h + torch.sigmoid(z) * (n - h),)

    def scan(self, xs: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """h_t = a_t h_{t-1} + b_t for all t in log2 T rounds (Hillis and Steele 1986): after round k each step holds
        the product of the a and the sum of the b of the 2^k steps up to it. No a is above 1, so nothing overflows.
        """
        steps = len(xs)
        if not steps:
            return xs.new_empty(0, xs.shape[1], self.hidden), state
        z, n = self.project(xs).chunk(2, dim=2)
        take = torch.sigmoid(z)  # [T, n, hidden]
        a, b = torch.sigmoid(-z), take * n
        reach = 1
        while reach < steps:
            b = torch.cat((b[:reach], b[reach:] + a[reach:] * b[:-reach]))
            a = torch.cat((a[:reach], a[reach:] * a[:-reach]))
            reach *= 2
        ys = b + a * state[0]
        if lengths is None:
            return ys, (ys[-1],)
        live = torch.arange(steps, device=lengths.device).unsqueeze(1) < lengths  # [T, n]
        last = (lengths - 1).view(1, -1, 1).expand(1, -1, self.hidden)
        return ys * live.unsqueeze(2).to(ys.device, ys.dtype), (ys.gather(0, last.to(ys.device))[0],)

    def onnx_nodes(self, graph: Graph, x: str, state: list[str]) -> list[str]:
        z, n = graph.split(graph.matrix(x, self.weight_ih, self.bias_ih), 2)
        change = graph.add("Mul", graph.add("Sigmoid", z), graph.add("Sub", n, state[0]))
        return [graph.add("Add", state[0], change)]


class MinGRUInferenceCell(InferenceCell):
    """Of the sums, those of z alone are squashed, in a buffer of their own without holes."""

    SCALES = (SIGMOID, LINEAR)

    def run(self, sums: Tensor, before: State, after: State, spare: Tensor) -> None:
        (h,) = after
        m, units = len(sums), self.units
        z = self._squash(spare[: m * units].view(m, units).copy_(sums[:, :units]))
        torch.sub(sums[:, units:], before[0], out=h).mul_(z).add_(before[0])
