"""Recurrent cells as the lecture writes them: Elman, LSTM, GRU. State in, state out, never an attribute.

Parameter names, shapes and gate order are those of torch's RNNCell, LSTMCell and GRUCell, so state dicts copy over.
Here lives the form that has gradients; `rnn.serve.inference_cells` holds the same sums arranged for serving. Imports
torch only.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rnn.nn.linear import added, product

State = tuple[Tensor, ...]
"""The parts of a cell's state, each [n, hidden]; the first one, h, is also the cell's output."""


class Cell(nn.Module):
    """What the three cells share: parameters, `step` and `unroll`. A cell adds `recur`, its equations."""

    GATES = 1
    PARTS: tuple[str, ...] = ("h",)

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.hidden = hidden
        rows = self.GATES * hidden
        self.weight_ih = nn.Parameter(torch.empty(rows, inputs))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform input weights, orthogonal recurrent weights (Saxe et al. 2014), zero biases; gate by gate.

        Does nothing on the meta device: drawing numbers there makes torch import its compiler, six seconds of it.
        """
        if self.weight_hh.is_meta:
            return
        for gate in range(self.GATES):
            rows = slice(gate * self.hidden, (gate + 1) * self.hidden)
            nn.init.uniform_(self.weight_ih.data[rows], -(bound := math.sqrt(6 / (self.inputs + self.hidden))), bound)
            nn.init.orthogonal_(self.weight_hh.data[rows])
        nn.init.zeros_(self.bias_ih)
        nn.init.zeros_(self.bias_hh)

    def initial_state(self, n: int, device: torch.device | str | None = None) -> State:
        """Zeros: the state of `n` streams that have seen nothing."""
        return tuple(self.weight_hh.new_zeros(n, self.hidden, device=device) for _ in self.PARTS)

    def project(self, x: Tensor) -> Tensor:
        """The sums that need no state, for all time steps at once: [..., inputs] -> [..., gates * hidden]."""
        return product(x, self.weight_ih, self.bias_ih + self.bias_hh)

    def recur(self, projected: Tensor, state: State) -> State:
        """State after one reading, from `project(x)` [n, gates * hidden] and the state before it."""
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


class Elman(Cell):
    """Elman 1990:  h_t = f(W_hh h_{t-1} + W_ih x_t + b); f is the lecture's: tanh, sigmoid or relu."""

    def __init__(self, inputs: int, hidden: int, activation: str = "tanh") -> None:
        super().__init__(inputs, hidden)
        self.activation = activation
        self._squash: Callable[[Tensor], Tensor] = getattr(torch, activation)

    def recur(self, projected: Tensor, state: State) -> State:
        return (self._squash(added(projected, state[0], self.weight_hh)),)


class LSTM(Cell):
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates in the order i, f, g, o.

        i = sigmoid(W_ii x + W_hi h + b_i)        f = sigmoid(W_if x + W_hf h + b_f)
        g = tanh   (W_ig x + W_hg h + b_g)        o = sigmoid(W_io x + W_ho h + b_o)
        c' = f * c + i * g                        h' = o * tanh(c')

    The forget gate's bias starts at 1 (Jozefowicz et al. 2015), so that a new network remembers.
    """

    GATES = 4
    PARTS = ("h", "c")

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.bias_ih.is_meta:
            return
        nn.init.ones_(self.bias_ih.data[self.hidden : 2 * self.hidden])

    def recur(self, projected: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = added(projected, h, self.weight_hh).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class GRU(Cell):
    """Cho et al. 2014 in torch's form, where the reset gate acts after the product; gates in the order r, z, n.

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n = tanh(W_in x + b_in + r * (W_hn h + b_hn))     h' = (1 - z) * n + z * h
    """

    GATES = 3

    def project(self, x: Tensor) -> Tensor:
        return product(x, self.weight_ih, self.bias_ih)  # b_hn stands inside the product with r

    def recur(self, projected: Tensor, state: State) -> State:
        (h,) = state
        xr, xz, xn = projected.chunk(3, dim=1)
        hr, hz, hn = added(self.bias_hh, h, self.weight_hh).chunk(3, dim=1)
        n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        return (n + torch.sigmoid(xz + hz) * (h - n),)


def chrono_init(cell: Cell, longest: int) -> None:
    """Chrono initialisation (Tallec and Ollivier 2018): unit by unit another memory, from 1 to `longest` - 1 readings.

    The forget gate's bias, GRU's update gate's, is log U(1, longest - 1); LSTM's input gate has its negative. Leaves an
    Elman cell, which has no gates, and a cell on the meta device as they are, and all cells where `longest` <= 2.
    """
    if cell.GATES == 1 or longest <= 2 or cell.bias_ih.is_meta:
        return
    units = slice(cell.hidden, 2 * cell.hidden)  # f of LSTM, z of GRU: both are the share of the state that is kept
    keep = torch.empty(cell.hidden).uniform_(1, longest - 1).log()
    cell.bias_ih.data[units] = keep
    if isinstance(cell, LSTM):
        cell.bias_ih.data[: cell.hidden] = -keep


CELLS: dict[str, type[Cell]] = {"elman": Elman, "lstm": LSTM, "gru": GRU}
"""The cell of each name that `ModelConfig.cell` may have."""
