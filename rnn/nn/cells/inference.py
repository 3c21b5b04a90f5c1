"""Cells arranged for serving: no gradients, in place, few operations. Imports torch only.

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
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rnn.nn.cells.cell import Cell

LOG2_E = math.log2(math.e)
SIGMOID, TANH, LINEAR = -LOG2_E, 2 * LOG2_E, 1.0
"""Factors inside a gate's weights. For a sum x made with the first two, y = 1 / (1 + 2^x) is the gate; where it is a
tanh, the gate is 1 - 2 y. With the last one the sum is the gate."""

LANE = 8
"""Layers are padded to a multiple of this many units."""


def padded(width: int) -> int:
    """Least multiple of LANE that holds `width`."""
    return -(-width // LANE) * LANE


class InferenceCell:
    """A copy of one layer's weights in serving form. A cell adds `run`, one step for m rows."""

    SCALES: tuple[float, ...] = ()  # of each gate: SIGMOID, TANH or LINEAR
    ADDS_BIASES = True  # whether bias_x holds both

    def __init__(self, cell: Cell, device: torch.device) -> None:
        self.parts = len(cell.PARTS)
        self.gates = cell.GATES
        self.units = padded(cell.hidden)
        self.weight_x = self._arranged(cell.weight_ih, device)  # [padded inputs, gates * units]
        self.bias_x = self._arranged(cell.bias_ih.unsqueeze(1), device)[0]  # [gates * units]
        if cell.RECURRENT_WEIGHTS:
            self.weight_h = self._arranged(cell.weight_hh, device)  # [units, gates * units]
            self.bias_h = self._arranged(cell.bias_hh.unsqueeze(1), device)[0]
            if self.ADDS_BIASES:
                self.bias_x += self.bias_h
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
