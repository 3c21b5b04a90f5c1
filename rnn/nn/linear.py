"""Matrix products whose rows do not depend on each other, bit for bit. Imports torch only.

Hazard: on CPU a row of x W^T may be rounded differently depending on where it stands, unless what is summed over has a
multiple of 8 elements (seen with MKL, for half of all other widths). So while serving, in inference mode, both factors
get zeros behind; training does not need it and does not pay for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LANE = 8


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: x [..., k], weight [n, k], bias [n] -> [..., n]."""
    return functional.linear(*_even(x, weight), bias)


def added(to: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """to + x W^T: to [m, n] or [n], x [m, k], weight [n, k] -> [m, n]."""
    x, weight = _even(x, weight)
    return torch.addmm(to, x, weight.t())


class Linear(nn.Linear):
    """As torch's, with `product`."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


def _even(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    short = -x.shape[-1] % LANE
    if not short or not torch.is_inference_mode_enabled():
        return x, weight
    return functional.pad(x, (0, short)), functional.pad(weight, (0, short))
