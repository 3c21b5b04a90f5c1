"""Online adaptation: what a stream's own forecast errors teach, beside weights that all streams share. Imports torch.

The network's forecast is corrected by a linear function of its last hidden state h, fitted within each stream by
recursive least squares with forgetting (Haykin, "Adaptive Filter Theory", 2002, ch. 9). All is in standard deviations
of the stream's running scaler, so that units do not matter. With phi = (R h, 1), R fixed directions, each reading first
teaches, then the next forecast is corrected:

    e = (x - y) / std                                   error of the uncorrected forecast made at the reading before
    g = P phi / (l + phi' P phi)                        l: forgetting
    W = W + g (e - W phi)'       P = (P - g phi' P) / l
    y' = y + a c std

The share a in 0..1 is how far corrections have been right so far:

    a = (sum e c - K sqrt(sum (e c)^2)) / sum c^2       c = W phi, cut, made before e was known; sums fade

which is the best factor in hindsight less K standard errors: where there is nothing to learn, nothing changes.

Hazard: a row must not depend on its neighbours, bit for bit, so there are only operations that round once (no fused
multiply-add, no library's sum), over [.., rows] with the rows innermost; `_total` adds in a fixed order. For the same
reason no branch looks at values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rnn.nn.cells import padded

DIRECTIONS = 8
MEMORY = 2000
RIDGE = 10.0
"""Weight of "no correction" at the start, in readings."""
FARTHEST = 5.0
"""Errors are cut here, in standard deviations: one wild reading teaches little."""
STEP = 0.5
"""Corrections are cut here, in standard deviations."""
WIND_UP = 10.0
"""P may grow so many times beyond its start: a stream that stands still must not forget everything."""
DOUBT = 2.0
"""K of the share."""

Parts = list[Tensor]
"""Of n streams' states: W [features, targets, n], P [features, features, n]; then, each [targets, n], the sums of e c,
c^2 and (e c)^2, W phi as it last was, and by how much it moved the forecast (NaN: nothing was said).
"""

Span = tuple[slice, slice, slice]
"""Of a wave: its rows among the readings; among lead + readings the states before it, and after it."""


@dataclass(frozen=True, slots=True)
class Adaptation:
    """`directions` of the hidden state that the correction looks at; as many as units: the whole of it. `memory`: after
    so many readings an error counts 1/e of a new one.
    """

    directions: int = DIRECTIONS
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that mean nothing."""
        if self.directions < 1:
            raise ValueError(f"adaptation: directions: wants at least 1, got {self.directions}")
        if self.memory < 10:
            raise ValueError(f"adaptation: memory: wants at least 10 readings, got {self.memory}")


def correction_width(adaptation: Adaptation, hidden: int, targets: int) -> int:
    """Floats of a stream's row in the state table."""
    q = min(adaptation.directions, hidden) + 1
    return q * targets + q * (q + 1) // 2 + 5 * targets


class Correction:
    """The correction of one network with `hidden` units, which lie padded to `units`, and `targets`.

    A stream's row, `initial`: as `Parts`, but of P the lower half only.
    """

    PART = "correction1"
    """Its name in the state table; the number is its version."""

    def __init__(self, adaptation: Adaptation, hidden: int, units: int, targets: int, device: torch.device) -> None:
        directions = min(adaptation.directions, hidden)
        self._features, self._targets = directions + 1, targets
        self._directions = torch.zeros(units, padded(self._features), device=device)
        self._directions[:hidden, :directions] = _orthonormal(hidden, directions).to(device)
        keep = 1 - 1 / adaptation.memory
        scalars = torch.tensor([keep, keep * keep, DOUBT, 1e-9, 1, 0], dtype=torch.float32, device=device)
        self._keep, self._keep_squares, self._doubt, self._least, self._one, self._zero = scalars.unbind()
        q = self._features
        self.width = q * targets + q * q + 5 * targets  # floats that a stream's state takes while it is stepped
        self._parts = [q * targets, q * q, *[targets] * 5]  # of an unpacked state
        self._most = WIND_UP * q / RIDGE  # trace of P
        lower = torch.tril_indices(q, q)
        p = torch.empty(q, q, dtype=torch.int64)
        p[lower[0], lower[1]] = p[lower[1], lower[0]] = q * targets + torch.arange(lower.shape[1])
        rest = q * targets + lower.shape[1] + torch.arange(5 * targets)
        self._unpack = torch.cat((torch.arange(q * targets), p.flatten(), rest)).to(device)
        half = q * targets + q * lower[0] + lower[1]
        self._pack = torch.cat((torch.arange(q * targets), half, q * (targets + q) + torch.arange(len(rest)))).to(
            device
        )
        fresh = torch.cat(
            (
                torch.zeros(q * targets),
                (torch.eye(q) / RIDGE).flatten(),
                torch.zeros(4 * targets),
                torch.full((targets,), torch.nan),
            )
        )
        self._fresh = fresh.to(device).unsqueeze(1)  # [unpacked width, 1]
        self.initial = fresh[self._pack.cpu()]

    def before(self, rows: Tensor, after: int) -> Tensor:
        """Unpacked states, feature-major [.., lead + after], of table rows [lead, padded width]; the rest is stale."""
        states = rows.new_zeros(len(self._unpack), len(rows) + after)
        torch.index_select(rows.t(), 0, self._unpack, out=states[:, : len(rows)])
        return states

    def rows(self, states: Tensor, out: Tensor) -> None:
        """The inverse for states [.., n]: out [n, padded width]."""
        out[:, : len(self._pack)] = states.index_select(0, self._pack).t()
        out[:, len(self._pack) :] = 0

    def run(
        self,
        waves: Iterable[Span],
        states: Tensor,
        h: Tensor,
        truth: Tensor,
        known: Tensor | None,
        std: Tensor,
        said: Tensor,
    ) -> None:
        """Learns from the readings of each wave, then corrects what is said at them.

        states of `before`; h [lead + readings, units]; truth [targets, readings], known where `known` is set (None:
        everywhere); std and said [targets, lead + readings]. What was said before the readings, said[:, :lead], is
        corrected already; the rest becomes so, in place. `states` holds what is known after each reading.
        """
        phi = torch.mm(h, self._directions).t()[: self._features].contiguous()  # [features, lead + readings]
        phi[-1] = self._one
        for reading, old, new in waves:
            off = (truth[:, reading] - said[:, old]).div_(std[:, old])
            after = self._split(states[:, new])
            self._learn(
                self._split(states[:, old]), after, phi[:, old], off, None if known is None else known[:, reading]
            )
            w, _, hits, squares, spread, fitted, change = after
            fitted.copy_(_total(w * phi[:, new].unsqueeze(1)))
            sure = hits - spread.sqrt().mul_(self._doubt)
            share = sure.div_(squares + self._least).clamp_(0, 1)
            torch.mul(share, fitted.clamp(-STEP, STEP), out=change)
            said[:, new] += change * std[:, new]

    def _learn(self, old: Parts, new: Parts, phi: Tensor, off: Tensor, seen: Tensor | None) -> None:
        """One reading of n streams: off [targets, n], how far it was from the corrected forecast."""
        w, p, hits, squares, spread, fitted, change = old
        error = off.add_(change).clamp_(-FARTHEST, FARTHEST)
        use = error.isfinite()  # not where nothing was said
        if seen is not None:
            use &= seen
        some = use.any(0)
        off = torch.where(use, error - fitted, self._zero)
        gained = _total(p * phi.unsqueeze(1))  # P phi, [features, n]
        scale = _total(gained * phi).add_(self._keep).reciprocal_()  # [n]
        trace = _total(p.diagonal().t().clone())
        sound = (trace + scale).isfinite() & (trace > 0) & (scale > 0)  # all else is bounded by these
        scaled = gained * torch.where(some, scale, self._zero)
        torch.add(w, scaled.unsqueeze(1) * off, out=new[0])
        torch.sub(p, scaled.unsqueeze(1) * scaled * torch.where(some, scale, self._one).reciprocal_(), out=new[1])
        new[1].div_(torch.where(some & (trace < self._most), self._keep, self._one))
        change = fitted.clamp(-STEP, STEP)
        hit = error * change
        for k, was, value, fade in (
            (2, hits, hit, self._keep),
            (3, squares, change * change, self._keep),
            (4, spread, hit * hit, self._keep_squares),
        ):
            torch.where(use, (was * fade).add_(value), was, out=new[k])
        for now, fresh in zip(new[:5], self._split(self._fresh)[:5], strict=True):
            torch.where(sound, now, fresh, out=now)

    def _split(self, states: Tensor) -> Parts:
        w, p, *rest = torch.split(states, self._parts)
        q, n = self._features, states.shape[1]
        return [w.view(q, self._targets, n), p.view(q, q, n), *rest]


def _orthonormal(hidden: int, directions: int) -> Tensor:
    """[hidden, directions], the same ones for ever; all of them: the units themselves."""
    if directions == hidden:
        return torch.eye(hidden)
    random = torch.randn(hidden, directions, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, r = torch.linalg.qr(random)
    signed: Tensor = q * r.diagonal().sign()  # which LAPACK leaves open
    return signed.float()


def _total(x: Tensor) -> Tensor:  # [k, ..] -> [..]
    """Sum over the first dimension in an order that depends on its length only; uses x up."""
    n = len(x)
    while n > 1:
        half = n // 2
        x[:half] += x[n - half : n]
        n -= half
    first: Tensor = x[0]
    return first
