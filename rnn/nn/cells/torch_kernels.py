"""torch's own recurrent kernels on a cell's parameters: the same sums as `Cell.unroll`, sooner. Imports torch only."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnn.nn.cells.cell import Cell, State

Kernel = Callable[..., tuple[Tensor, ...]]


def scan(kernel: Kernel, cell: Cell, xs: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
    """See `Cell.scan`. kernel: torch.lstm, torch.gru, torch.rnn_tanh or torch.rnn_relu."""
    weights: list[Tensor] = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    before = [part.unsqueeze(0) for part in state]
    one_layer = (True, 1, 0.0, True, False)  # biases, layers, dropout, training, bidirectional
    several = len(before) > 1  # a state of several parts is given as a list
    if lengths is None:
        ys, *after = kernel(xs, before if several else before[0], weights, *one_layer, False)  # the last: batch first
        return ys, tuple(part[0] for part in after)
    packed = pack_padded_sequence(xs, lengths.cpu(), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None
    before = [part.index_select(1, order) for part in before]
    data, *after = kernel(packed.data, packed.batch_sizes, before if several else before[0], weights, *one_layer)
    ys, _ = pad_packed_sequence(packed._replace(data=data), total_length=len(xs))
    return ys, tuple(part[0].index_select(0, back) for part in after)
