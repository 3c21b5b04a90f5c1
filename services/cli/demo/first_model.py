"""The demos' first models: trained once on a part of household power, then found again by its digest."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.datasets import Series

TRAIN_SHARE = 0.7
RECIPE = "3"
"""Raise when training changes in a way that the model configuration does not show."""
REPORT = "report.json"

Progress = Callable[[str, float], None]
"""`progress(sentence, share)` after each epoch."""


def first_model(series: Series, cache: Path, progress: Progress) -> tuple[Path, bool]:
    """The folder of a model of the first 70 % of the series, and whether it had to be trained now."""
    from rnn.train.recipe import default_config, default_recipe

    end = int(len(series) * TRAIN_SHARE)
    config = default_config(series.features, series.interval_s, readings=end)
    key = _key(f"{RECIPE} {series.digest} {end} {config.fingerprint()}")
    return _model(series, slice(0, end), config, default_recipe(end), cache / "models" / f"household-{key}", progress)


def season_model(series: Series, season: slice, updates: int, cache: Path, progress: Progress) -> tuple[Path, bool]:
    """As `first_model`, of one season and with so many updates, and with a report of what its readings looked like:
    what drift is measured against.
    """
    from rnn.train.recipe import default_config, default_recipe

    readings = season.stop - season.start
    config = default_config(series.features, series.interval_s, readings=readings)
    recipe = replace(default_recipe(readings), updates=updates)
    key = _key(f"{RECIPE} {series.digest} {season} {updates} {config.fingerprint()}")
    folder = cache / "models" / f"household-season-{key}"
    folder, trained = _model(series, season, config, recipe, folder, progress)
    if not (folder / REPORT).exists():
        from services.quality.reference import Reference
        from services.trainer.runs import write_json

        write_json(folder / REPORT, {"drift_reference": Reference.of(series.features, series.x[season]).tree()})
    return folder, trained


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _model(
    series: Series, part: slice, config: Any, recipe: Any, folder: Path, progress: Progress
) -> tuple[Path, bool]:
    from rnn.io import weights
    from rnn.train.fit import EpochMetrics, fit

    try:
        weights.load(folder)
        return folder, False
    except weights.ModelRefused:
        pass

    def said(epoch: EpochMetrics) -> None:
        skill = 1 - epoch.validation_mse / epoch.persistence_mse
        progress(
            f"epoch {epoch.epoch} of {epoch.epochs}, error {skill:.1%} below persistence", epoch.epoch / epoch.epochs
        )

    x, at_ms = series.x[part], series.at_ms[part]
    fitted = fit(config, x, at_ms, recipe, said)
    data = weights.DataRange(int(at_ms[0]), int(at_ms[-1]), len(x), series.digest)
    scores = {"validation_mse": fitted.best.validation_mse, "persistence_mse": fitted.best.persistence_mse}
    weights.save(folder, fitted.network, created_ms=time.time_ns() // 1_000_000, data=data, scores=scores)
    return folder, True
