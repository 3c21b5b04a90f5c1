"""The demo's first model: trained once on the first 70 % of household power, then found again by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECIPE = "1"
"""Raise when training changes in a way that the model configuration does not show."""


def first_model(series: Any, cache: Path, progress: Callable[[str, float], None]) -> tuple[Path, bool]:
    """The folder of the model, and whether it had to be trained now. `progress(sentence, share)` while training."""
    from rnn import fit, weights

    end = int(len(series.x) * 0.7)
    config = fit.default_config(series.features, interval_s=60.0)
    key = hashlib.sha256(f"{RECIPE} {series.digest} {end} {config.fingerprint()}".encode()).hexdigest()[:16]
    folder = cache / "models" / f"household-{key}"
    try:
        weights.load(folder)
        return folder, False
    except weights.ModelRefused:
        pass
    fitted = fit.fit(series.x[:end], series.at_ms[:end], config, progress=progress)
    weights.save(folder, fitted.network, fitted.card)
    return folder, True
