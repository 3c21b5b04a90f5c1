"""What a pipeline's readings looked like when its model was trained: shares of fixed bins. Imports numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Bins with about the same share of the values; beside them one below, one above, and one for what is missing."""

LEAST_SHARE = 1e-4
"""What a bin's share counts at least: a bin that was empty in training does not make the index infinite."""

LIVES = 6
"""Half-lives of the recent sketch that go into the data of a reference."""

LEAST_HALF_LIFE, MOST_HALF_LIFE = 500, 100_000
_CHUNKS_A_LIFE = 10
_MOST_ROWS = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A small value that a card can carry, see `tree`."""

    features: tuple[str, ...]
    half_life: int  # readings after which one counts half in the recent sketch
    edges: NDArray[
        np.float32
    ]  # [features, e], increasing; bin k holds the values in [edge k-1, edge k); +inf = no edge
    shares: NDArray[np.float64]  # [features, e + 2], the last one is that of missing values; each row sums to 1
    usual_psi: NDArray[np.float64]  # [features], the most that the data itself showed against the whole of it
    usual_ks: NDArray[np.float64]  # [features]
    usual_missing: NDArray[np.float64]  # [features], more missing values than in the whole of it, as a share of all

    @classmethod
    def of(cls, features: Sequence[str], x: NDArray[np.float32], half_life: int | None = None) -> Reference:
        """Made of readings x [n, features], NaN = missing, in the order of their time, all streams together.

        `half_life` follows from n where it is not given: a sixth. The order matters for what is usual: the data goes
        through a recent sketch once, and what a day and night or a summer and winter in it do to its bins is no drift
        later on. Data that covers no whole cycle does not know it. Raises ValueError without readings.
        """
        if x.ndim != 2 or x.shape[1] != len(features) or not len(x):
            raise ValueError(f"a reference of {len(features)} features was to be made of readings {x.shape}")
        if half_life is None:
            half_life = int(np.clip(len(x) // LIVES, LEAST_HALF_LIFE, MOST_HALF_LIFE))
        if half_life < 1:
            raise ValueError(f"half_life is {half_life}: give at least one reading")
        edges = _edges(np.asarray(x[:: -(-len(x) // _MOST_ROWS)], np.float32))
        chunk = max(1, half_life // _CHUNKS_A_LIFE)
        pieces = [binned(edges, np.asarray(x[at : at + chunk], np.float32)) for at in range(0, len(x), chunk)]
        shares = np.sum(pieces, axis=0) / len(x)
        recent = shares * full_weight(half_life)
        usual_psi, usual_ks, usual_missing = np.zeros((3, len(features)))
        for counts in pieces:
            recent = recent * 0.5 ** (counts[0].sum() / half_life) + counts
            np.maximum(usual_psi, psi(shares, recent), out=usual_psi)
            np.maximum(usual_ks, ks(shares, recent), out=usual_ks)
            np.maximum(usual_missing, missing(shares, recent), out=usual_missing)
        return cls(tuple(features), half_life, edges, shares, usual_psi, usual_ks, usual_missing)

    def tree(self) -> dict[str, Any]:
        """As numbers, strings, lists and dicts, for JSON; edges that stand for none are left out."""
        return {
            "half_life": self.half_life,
            "features": {
                name: {
                    "edges": [float(edge) for edge in self.edges[k] if np.isfinite(edge)],
                    "shares": [float(f"{share:.9g}") for share in _without_gap(self.shares[k], self.edges[k])],
                    "usual_psi": float(f"{self.usual_psi[k]:.6g}"),
                    "usual_ks": float(f"{self.usual_ks[k]:.6g}"),
                    "usual_missing": float(f"{self.usual_missing[k]:.6g}"),
                }
                for k, name in enumerate(self.features)
            },
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Reference:
        """The inverse. Raises ValueError for what `tree` does not write, naming the feature."""
        try:
            each, half_life = dict(tree["features"]), int(tree["half_life"])
            widest = max(len(one["edges"]) for one in each.values())
            edges = np.full((len(each), widest), np.inf, np.float32)
            shares = np.zeros((len(each), widest + 2))
            for k, (name, one) in enumerate(each.items()):
                known, share = np.asarray(one["edges"], np.float32), np.asarray(one["shares"], np.float64)
                if share.shape != (len(known) + 2,) or (np.diff(known) <= 0).any() or not np.isfinite(known).all():
                    raise ValueError(f"{name}: edges must increase, with two shares more than edges")
                if not np.isfinite(share).all() or (share < 0).any() or abs(share.sum() - 1) > 1e-4:
                    raise ValueError(f"{name}: shares must be in 0..1 and sum to 1")
                edges[k, : len(known)] = known
                shares[k, : len(known) + 1], shares[k, -1] = share[:-1], share[-1]
            kinds = ("usual_psi", "usual_ks", "usual_missing")
            usual = [np.array([float(one[kind]) for one in each.values()]) for kind in kinds]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"this is not a reference for drift ({error!r}): make it of the training data again"
            ) from error
        if half_life < 1:
            raise ValueError(f"half_life is {half_life}: give at least one reading")
        return cls(tuple(each), half_life, edges, shares, *usual)

    def same_bins(self, other: Reference) -> bool:
        """Whether counts of the two may be added up."""
        return self.features == other.features and np.array_equal(self.edges, other.edges)


def full_weight(half_life: int) -> float:
    """What the readings of a sketch that has run for ever weigh together."""
    return half_life / math.log(2)


def binned(edges: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float64]:
    """How many readings of x [n, features] fall into each bin [features, e + 2]."""
    n = len(x)
    columns = np.sort(x.T, axis=1)  # NaN comes last
    below = np.empty((len(edges), edges.shape[1] + 2))  # [features, e + 2], values below each edge, all known, all
    for k, column in enumerate(columns):
        known = n - np.count_nonzero(np.isnan(column))
        below[k, :-2] = np.minimum(np.searchsorted(column, edges[k]), known)
        below[k, -2:] = known, n
    return np.diff(below, axis=1, prepend=0.0)


def psi(shares: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Population stability index of each feature: sum over bins of (q - p) ln(q / p). Both [features, bins]."""
    p = np.maximum(shares, LEAST_SHARE)
    q = np.maximum(counts / counts.sum(axis=1, keepdims=True), LEAST_SHARE)
    index: NDArray[np.float64] = np.sum((q - p) * np.log(q / p), axis=1)
    return index


def ks(shares: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Greatest distance of the two distribution functions at the edges, of known values; 0 where there are none."""
    p, q = np.cumsum(shares[:, :-1], axis=1), np.cumsum(counts[:, :-1], axis=1)
    known = (p[:, -1] > 0) & (q[:, -1] > 0)
    p, q = (each / np.where(known, each[:, -1], 1)[:, None] for each in (p, q))
    return np.where(known, np.abs(p - q).max(axis=1), 0.0)


def missing(shares: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much greater the share of missing values is than it was; below 0 where it is smaller."""
    more: NDArray[np.float64] = counts[:, -1] / counts.sum(axis=1) - shares[:, -1]
    return more


def _edges(x: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = []
    for column in x.T:
        known = column[np.isfinite(column)]
        if not len(known):
            rows.append(np.zeros(0, np.float32))
            continue
        inner = np.quantile(known, np.linspace(0, 1, BINS + 1), method="lower").astype(np.float32)
        beyond = np.nextafter(inner[-1], np.float32(np.inf), dtype=np.float32)
        rows.append(np.unique(np.append(inner, beyond)))
    edges = np.full((len(rows), max(map(len, rows))), np.inf, np.float32)
    for k, row in enumerate(rows):
        edges[k, : len(row)] = row
    return edges


def _without_gap(shares: NDArray[np.float64], edges: NDArray[np.float32]) -> NDArray[np.float64]:
    known = int(np.isfinite(edges).sum())
    return np.append(shares[: known + 1], shares[-1])
