"""The demo's first model: trained once on the first 70 % of household power, then found again by its digest."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from services.datasets import Series

TRAIN_SHARE = 0.7
RECIPE = "3"
"""Raise when training changes in a way that the model configuration does not show."""


def first_model(series: Series, cache: Path, progress: Callable[[str, float], None]) -> tuple[Path, bool]:
    """The folder of the model, and whether it had to be trained now. `progress(sentence, share)` after each epoch."""
    from rnn import weights
    from rnn.fit import Epoch, fit
    from rnn.recipe import default_config, default_recipe

    end = int(len(series) * TRAIN_SHARE)
    config = default_config(series.features, series.interval_s, readings=end)
    key = hashlib.sha256(f"{RECIPE} {series.digest} {end} {config.fingerprint()}".encode()).hexdigest()[:16]
    folder = cache / "models" / f"household-{key}"
    try:
        weights.load(folder)
        return folder, False
    except weights.ModelRefused:
        pass

    def said(epoch: Epoch) -> None:
        skill = 1 - epoch.validation_mse / epoch.persistence_mse
        progress(
            f"epoch {epoch.epoch} of {epoch.epochs}, error {skill:.1%} below persistence", epoch.epoch / epoch.epochs
        )

    x, at_ms = series.x[:end], series.at_ms[:end]
    fitted = fit(config, x, at_ms, default_recipe(len(x)), said)
    data = weights.DataRange(int(at_ms[0]), int(at_ms[-1]), len(x), series.digest)
    scores = {"validation_mse": fitted.best.validation_mse, "persistence_mse": fitted.best.persistence_mse}
    weights.save(folder, fitted.network, created_ms=time.time_ns() // 1_000_000, data=data, scores=scores)
    return folder, True
