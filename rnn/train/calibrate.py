"""Bands that hold what they promise: conformal calibration on known errors, and the linear path's closed form.

Both look at windows that training has prepared (`rnn.train.lanes`) and change weights without gradients. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnn.nn.heads import Gaussian, Point, Quantile
from rnn.nn.network import Network
from rnn.train.lanes import Windows

RIDGE = 1.0
"""Added to the diagonal of the linear path's normal equations, whose readings have a variance of about 1."""


def solve_linear_path(network: Network, known: Sequence[tuple[Windows, Tensor]]) -> None:
    """Gives the linear path the ridge solution (Hoerl and Kennard 1970) of what is left to say.

    Each of `known` is windows and what the recurrent path says of them, [steps, lanes, targets]. Steps count at which
    every target does; where there are fewer of them than weights a target has, the path stays as it is.
    """
    path = network.linear_path
    assert path is not None
    width = path.in_features
    gram = torch.zeros(width, width, dtype=torch.float64)
    moment = torch.zeros(width, path.out_features, dtype=torch.float64)
    count = 0
    for windows, said in known:
        for begin in range(0, len(windows), 256):  # the readings of all steps at once would be many times the data
            span = slice(begin, begin + 256)
            some = Windows(*(None if part is None else part[span] for part in (  # type: ignore[arg-type]
                windows.feats, windows.change, windows.weight, windows.scaled)))  # fmt: skip
            counts = (some.weight > 0).all(dim=2)
            past = some.past
            assert past is not None
            x, y = past[counts].double(), (some.change - said[span])[counts].double()
            gram += x.T @ x
            moment += x.T @ y
            count += len(x)
    if count < 2 * width:
        return
    gram.diagonal().add_(RIDGE)
    path.weight.data.copy_(torch.linalg.solve(gram, moment).T)


def calibrate(head: Point, mean: Tensor, scale: Tensor | None, truth: Tensor, weight: Tensor) -> None:
    """Sets a head's calibration so that its band holds `level` of the truths given.

    Split conformal prediction (Papadopoulos et al. 2002; for quantiles Romano et al. 2019), for each target on its own:
    the band's half widths are multiplied by the ceil((n + 1) level)-th smallest factor that a truth would have needed.
    Where weights differ, a truth counts as so many (Barber et al. 2023). mean, truth, weight [.., targets]; scale as
    the head gives it. A target with fewer than 50 truths keeps its factor.
    """
    if not isinstance(head, Gaussian | Quantile):
        return
    assert scale is not None
    factors = torch.ones(head.targets)
    if isinstance(head, Quantile):
        lower, upper = scale[..., : head.targets], scale[..., head.targets :]
    else:
        assert isinstance(head, Gaussian)
        lower = upper = scale * (head.half_width() / head.calibration).detach()
    for target in range(head.targets):
        off, below, above = (part[..., target] for part in (truth - mean, lower, upper))
        counts = weight[..., target] > 0
        needed, order = torch.where(off < 0, -off / below, off / above)[counts].sort()
        if len(needed) >= 50:
            so_far = weight[..., target][counts][order].double().cumsum(0)
            rank = int(torch.searchsorted(so_far, head.level * (so_far[-1] + 1)))
            factors[target] = needed[min(rank, len(needed) - 1)]
    head.calibration.copy_(factors.clamp(min=1e-3))
