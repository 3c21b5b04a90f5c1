"""A network unrolled by torch's own recurrent kernels, for training: the same sums as `Network.unroll`, sooner.

Imports torch only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rnn.nn.cells import LSTM, Cell, Elman, State
from rnn.nn.network import Network


def unroll(network: Network, feats: Tensor, state: Sequence[State] | None) -> tuple[Tensor, tuple[State, ...]]:
    """As `Network.unroll`, by torch's own recurrent kernels on the same parameters: the same sums, sooner."""
    if state is None:
        state = network.initial_state(feats.shape[1])
    after: list[State] = []
    ys = feats
    for layer, (cell, before) in enumerate(zip(network.cells, state, strict=True)):
        if layer:
            ys = functional.dropout(ys, network.config.dropout, network.training)
        ys, end = _kernel(cell, ys, before)
        ys = network.normed(layer, ys)
        after.append(end)
    return ys, tuple(after)


def _kernel(cell: Cell, xs: Tensor, state: State) -> tuple[Tensor, State]:
    weights: list[Tensor] = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    before = [part.unsqueeze(0) for part in state]
    one_layer = (True, 1, 0.0, True, False, False)  # biases, layers, dropout, training, bidirectional, batch first
    if isinstance(cell, LSTM):
        ys, h, c = torch.lstm(xs, before, weights, *one_layer)
        return ys, (h[0], c[0])
    if isinstance(cell, Elman) and cell.activation == "sigmoid":
        return cell.unroll(xs, state)
    kernel = torch.gru
    if isinstance(cell, Elman):
        kernel = torch.rnn_relu if cell.activation == "relu" else torch.rnn_tanh
    ys, h = kernel(xs, before[0], weights, *one_layer)
    return ys, (h[0],)
