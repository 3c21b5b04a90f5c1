"""The cells of `rnn.nn.cells` arranged for serving: no gradients, in place, few operations. Imports torch only.

The same equations, arranged so that a result stays within 1e-6. sigmoid(x) is 1 / (1 + 2^(-x log2 e)), the factor
inside the weights; tanh(x) is 1 - 2 sigmoid(-2 x) likewise. So one run over all gates does what torch's exp, sigmoid
and tanh take up to four times as long for on CPU. Weights are transposed and a layer is padded with units of zero
weight to a multiple of 8: h = c = 0 stays so for ever. Sums run over [m, gates * units] buffers without holes whose
size is a multiple of 64 floats.

Hazard: the last three are what makes a row's result independent of m and of its place, bit for bit, on CPU. torch
takes another code path (other rounding in exp and log) for what is left over after whole vector registers, and MKL
another one below 4 rows; with whole registers and `m` a multiple of 8 neither is ever taken.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rnn.nn.cells import LSTM, Cell, Elman

LOG2_E = math.log2(math.e)
SIGMOID, TANH = -LOG2_E, 2 * LOG2_E
"""Factors inside a gate's weights. For a sum x made with them, y = 1 / (1 + 2^x) is the gate; where it is a tanh, the
gate is 1 - 2 y."""

LANE = 8
"""Layers are padded to a multiple of this many units."""


def padded(width: int) -> int:
    """Least multiple of LANE that holds `width`."""
    return -(-width // LANE) * LANE


class InferenceCell:
    """One layer's weights in serving form. A subclass adds `run`, one step for m rows."""

    SCALES: tuple[float, ...] = ()  # of each gate, SIGMOID or TANH

    def __init__(self, cell: Cell, device: torch.device) -> None:
        self.parts = len(cell.PARTS)
        self.gates = cell.GATES
        self.units = padded(cell.hidden)
        self.weight_x = self._arranged(cell.weight_ih, device)  # [padded inputs, gates * units]
        self.weight_h = self._arranged(cell.weight_hh, device)  # [units, gates * units]
        self.bias_x = self._arranged(cell.bias_ih.unsqueeze(1), device)[0]  # [gates * units]
        self.bias_h = self._arranged(cell.bias_hh.unsqueeze(1), device)[0]
        # Tensors, for an operation with a Python number takes twice as long to begin.
        self._one, self._tanh = self.bias_x.new_ones(1), self.bias_x.new_full((1,), TANH)

    def _arranged(self, weight: Tensor, device: torch.device) -> Tensor:
        """[gates * hidden, k] -> [padded k, gates * units], scaled and padded with zeros."""
        k, hidden = weight.shape[1], weight.shape[0] // self.gates
        by_gate = weight.detach().to(device, torch.float32).view(self.gates, hidden, k)
        by_gate = by_gate * by_gate.new_tensor(self.SCALES).view(-1, 1, 1)
        out = by_gate.new_zeros(padded(k), self.gates, self.units)
        out[:k, :, :hidden] = by_gate.permute(2, 0, 1)
        return out.view(-1, self.gates * self.units)

    def project(self, x: Tensor, out: Tensor) -> Tensor:
        """The sums that need no state: x [rows, padded inputs] -> out [rows, gates * units]."""
        return torch.addmm(self.bias_x, x, self.weight_x, out=out)

    def _squash(self, x: Tensor) -> Tensor:
        """1 / (1 + 2^x), in place."""
        return x.exp2_().add_(self._one).reciprocal_()

    def run(self, sums: Tensor, before: tuple[Tensor, ...], after: tuple[Tensor, ...], spare: Tensor) -> None:
        """One reading of m streams. sums [m, gates * units], of `project`, is used up; before and after hold the
        state's parts, each [m, units]; spare is scratch of at least m * gates * units floats.
        """
        raise NotImplementedError


class ElmanInferenceCell(InferenceCell):
    SCALES = (TANH,)

    def __init__(self, cell: Elman, device: torch.device) -> None:
        super().__init__(cell, device)
        self.bias_x += self.bias_h

    def run(self, sums: Tensor, before: tuple[Tensor, ...], after: tuple[Tensor, ...], spare: Tensor) -> None:
        y = self._squash(sums.addmm_(before[0], self.weight_h))
        torch.sub(self._one, y, alpha=2, out=after[0])


class LSTMInferenceCell(InferenceCell):
    SCALES = (SIGMOID, SIGMOID, TANH, SIGMOID)

    def __init__(self, cell: LSTM, device: torch.device) -> None:
        super().__init__(cell, device)
        self.bias_x += self.bias_h

    def run(self, sums: Tensor, before: tuple[Tensor, ...], after: tuple[Tensor, ...], spare: Tensor) -> None:
        h, c = after
        m = len(sums)
        i, f, g, o = self._squash(sums.addmm_(before[0], self.weight_h)).view(m, 4, self.units).unbind(1)
        torch.addcmul(i, before[1], f, out=c).addcmul_(i, g, value=-2)  # f c + i (1 - 2 g)
        y = self._squash(torch.mul(c, self._tanh, out=spare[: m * self.units].view(m, self.units)))
        torch.addcmul(o, o, y, value=-2, out=h)


class GRUInferenceCell(InferenceCell):
    SCALES = (SIGMOID, SIGMOID, TANH)

    def run(self, sums: Tensor, before: tuple[Tensor, ...], after: tuple[Tensor, ...], spare: Tensor) -> None:
        (h,) = after
        m, units = len(sums), self.units
        product = torch.addmm(self.bias_h, before[0], self.weight_h, out=spare[: m * 3 * units].view(m, 3 * units))
        gates, rest = product[:, : 2 * units], product[:, 2 * units :]
        gates += sums[:, : 2 * units]
        r, z = self._squash(gates).view(m, 2, units).unbind(1)
        y = self._squash(torch.mul(rest, r, out=h).add_(sums[:, 2 * units :]))
        n = torch.sub(self._one, y, alpha=2, out=h)
        n.addcmul_(torch.sub(before[0], n, out=rest), z)  # (1 - z) n + z h = n + z (h - n)


def step_of(cell: Cell, device: torch.device) -> InferenceCell:
    """The serving form of a layer; a copy, so later changes of the cell do not show."""
    if isinstance(cell, LSTM):
        return LSTMInferenceCell(cell, device)
    if isinstance(cell, Elman):
        return ElmanInferenceCell(cell, device)
    return GRUInferenceCell(cell, device)
