"""Errors of one-step forecasts on z-scores, beside those of persistence and of ridge regression. Imports numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from services.predictor.anomaly import Surprised


@dataclass(frozen=True, slots=True)
class StreamForecasts:
    """One stream's held-back readings and what had been said of them; all [n, targets], z-scored, NaN = not known."""

    truth: NDArray[np.float64]
    last: NDArray[np.float64]  # the reading before
    y: NDArray[np.float64]
    lo: NDArray[np.float64] | None
    hi: NDArray[np.float64] | None
    ridge: NDArray[np.float64]
    surprised: Surprised | None = None  # of the same readings, where anomalies are labelled


def scored(runs: Sequence[StreamForecasts], targets: Sequence[str]) -> dict[str, object]:
    """One JSON object: `mse, mae, persistence_mse, ridge_var8_mse, coverage_80` overall and for each of the targets.

    A value counts, for all rivals alike, where it and the one before it are known. Raises ValueError if none is.
    """
    known = [~np.isnan(run.truth) & ~np.isnan(run.last) for run in runs]
    if not any(mask.any() for mask in known):
        raise ValueError("nothing to score: no value is known together with the one before it")
    overall = _figures(runs, known, slice(None))
    by_target = {name: _figures(runs, known, slice(k, k + 1)) for k, name in enumerate(targets)}
    return {**overall, "targets": by_target}


def _figures(
    runs: Sequence[StreamForecasts], known: Sequence[NDArray[np.bool_]], columns: slice
) -> dict[str, float | None]:
    def flat(name: str) -> NDArray[np.float64]:
        return np.concatenate(
            [getattr(run, name)[:, columns][mask[:, columns]] for run, mask in zip(runs, known, strict=True)]
        )

    truth = flat("truth")
    if not len(truth):
        return dict.fromkeys(("mse", "mae", "persistence_mse", "ridge_var8_mse", "coverage_80"))
    error = flat("y") - truth
    banded = all(run.lo is not None for run in runs)
    inside = (flat("lo") <= truth) & (truth <= flat("hi")) if banded else None
    return {
        "mse": _round(np.square(error).mean()),
        "mae": _round(np.abs(error).mean()),
        "persistence_mse": _round(np.square(flat("last") - truth).mean()),
        "ridge_var8_mse": _round(np.square(flat("ridge") - truth).mean()),
        "coverage_80": None if inside is None else round(float(inside.mean()), 4),
    }


def _round(value: np.floating) -> float:
    """Six significant digits: what two machines agree on."""
    return float(f"{value:.6g}")
