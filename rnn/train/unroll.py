"""A network over whole batches, by the fastest way that its cells have: lanes that end early, both ways, decoders told
the truth. For training only, where the last bits may differ from what is served. Imports torch only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rnn.nn.cells import Cell, State
from rnn.nn.network import Network, States, reverse_index

WIDEST_LOOK = 33
"""Most readings that each step's own backward pass may read; beyond, passes are shared by neighbouring steps."""


def unroll(
    network: Network, feats: Tensor, state: Sequence[State] | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, States]:
    """Forward layers over feats [T, n, input_width]: (h_top [T, n, out], state of each layer after the last step, after
    each lane's own last one where `lengths` [n] >= 1 is given). Dropout acts as in `Network.unroll`.
    """
    if state is None:
        state = network.initial_state(feats.shape[1], feats.device)
    after: list[State] = []
    ys = feats
    for layer, (cell, before) in enumerate(zip(network.cells, state, strict=True)):
        if layer:
            ys = functional.dropout(ys, network.config.dropout, network.training)
        ys, end = cell.scan(ys, before, lengths)
        ys = network.normed(layer, ys)
        after.append(end)
    return ys, tuple(after)


def decode(network: Network, said: Tensor, state: Sequence[State]) -> Tensor:
    """The decoder over all steps at once, each told what should have been said before: said [H, n] class numbers (-1 =
    nothing yet) -> what the head sees [H, n, hidden].
    """
    ys: Tensor = network.said(torch.where(said < 0, len(network.config.classes), said))
    for layer, (cell, before) in enumerate(zip(network.decoder, state, strict=True)):
        if layer:
            ys = functional.dropout(ys, network.config.dropout, network.training)
        assert isinstance(cell, Cell)
        ys = network.normed(layer, cell.scan(ys, before)[0])
    return ys


def both_ways(network: Network, feats: Tensor, lengths: Tensor, shift: int = 0) -> Tensor:
    """h_top [T, n, out] of each step, as `Network.bidirectional_window` gives it online: backward layers begin `lag`
    readings later, or at the lane's end. feats [T, n, input_width], lengths [n].

    Exact for sequences no longer than lag + 1, and for one layer with a lag below `WIDEST_LOOK`. Else backward passes
    begin at every (2 lag + 1)th reading, `shift` readings earlier: what comes later is seen for 0 to 2 lag readings.
    """
    lag, steps = network.config.lag, len(feats)
    exact = len(network.cells) == 1 and lag < WIDEST_LOOK
    whole = lag >= steps - 1
    ys = feats
    for layer, (cell, back) in enumerate(zip(network.cells, network.back, strict=True)):
        assert isinstance(back, Cell)
        if layer:
            ys = functional.dropout(ys, network.config.dropout, network.training)
        forward, _ = cell.scan(ys, cell.initial_state(ys.shape[1], ys.device))
        if whole:
            backward = _backward(back, ys, lengths)
        elif exact:
            backward = _each_its_own(back, ys, lengths, lag)
        else:
            backward = _shared(back, ys, lengths, 2 * lag + 1, shift % (2 * lag + 1))
        joined = torch.cat((forward, backward), dim=-1) if network.config.direction == "concat" else forward + backward
        ys = network.normed(layer, joined)
    return ys


def _backward(cell: Cell, ys: Tensor, lengths: Tensor) -> Tensor:
    """From each lane's end. What stands beyond a lane's end comes last here, so it changes nothing that counts."""
    index = reverse_index(len(ys), lengths).unsqueeze(2)
    out, _ = cell.scan(ys.gather(0, index.expand(-1, -1, ys.shape[2])), cell.initial_state(ys.shape[1], ys.device))
    return out.gather(0, index.expand(-1, -1, out.shape[2]))


def _each_its_own(cell: Cell, ys: Tensor, lengths: Tensor, lag: int) -> Tensor:
    """A backward pass for each step of each lane: lag + 1 readings, fewer at the lane's end."""
    steps, n, width = ys.shape
    t = torch.arange(steps, device=ys.device).unsqueeze(1)
    known = (lengths - t).clamp(1, lag + 1)  # [T, n], readings from this step on
    back = torch.arange(lag + 1, device=ys.device).view(-1, 1, 1)
    place = (t + known - 1 - back).clamp(min=0, max=steps - 1)  # [lag + 1, T, n], the latest reading first
    lane = torch.arange(n, device=ys.device).expand_as(place)
    windows = ys[place, lane].reshape(lag + 1, steps * n, width)
    out, _ = cell.scan(windows, cell.initial_state(steps * n, ys.device))
    return out[known.reshape(-1) - 1, torch.arange(steps * n, device=ys.device)].view(steps, n, -1)


def _shared(cell: Cell, ys: Tensor, lengths: Tensor, span: int, shift: int) -> Tensor:
    """A backward pass for each run of `span` steps."""
    steps, n, width = ys.shape
    runs = -(-(steps + shift) // span)
    padded = functional.pad(ys, (0, 0, 0, 0, shift, runs * span - steps - shift))
    cut = padded.view(runs, span, n, width).transpose(0, 1).reshape(span, runs * n, width)
    first = torch.arange(runs, device=ys.device).unsqueeze(1) * span
    left = (lengths + shift - first).clamp(0, span).reshape(-1)  # [runs * n]
    out = _backward(cell, cut, left).view(span, runs, n, -1).transpose(0, 1).reshape(runs * span, n, -1)
    return out[shift : shift + steps]
