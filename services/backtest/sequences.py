"""A model of any shape, run online over series whose truth is known: one JSON reading at a time through a shard.

The readings go as `services.backtest.forecast` sends them: through decoder, batcher, state table, engine and encoder.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from rnn import metrics
from rnn.config import SPECIALS, UNKNOWN, ModelConfig
from rnn.train.dataset import truth_width
from services.codecs import predictions
from services.driver import StreamDriver
from services.records import Role
from services.tables.table_dataset import TableDataset, records
from services.tables.table_reader import WrongTable

POLL = 10_000
FLUSH_AFTER_MS = 60_000


def run_online(folder: Path, material: TableDataset) -> tuple[predictions.PredictionRows, list[int]]:
    """What the model in `folder` says of the series, in order; and the offset of each series' first reading."""
    driver = StreamDriver(folder, slots=256, max_readings=POLL, flush_after_ms=FLUSH_AFTER_MS)
    first, sent = [], 0
    for key, values in records(material):
        first.append(sent)
        for value in values:
            driver.send_record(key, value, partition=0)
            sent += 1
            if sent % POLL == 0:
                driver.run()
    driver.run()
    driver.advance(FLUSH_AFTER_MS + 1)  # nothing more comes: what waits for later readings is said without them
    driver.turn()
    if refused := driver.dead_letters():
        raise WrongTable(
            f"{len(refused)} readings of {sent} are none to the server; the first one: {refused[0].reason}"
        )
    return predictions.decode(driver.broker.records(Role.PREDICTIONS, 0)), first


def figures(folder: Path, material: TableDataset) -> dict[str, object]:
    """How good the model is on the series; which figures there are depends on what it answers."""
    made, first = run_online(folder, material)
    config, readings = material.config, material.readings
    answered = np.full(readings, -1)
    answered[made.offsets] = np.arange(len(made))
    found: dict[str, object] = {"readings": readings, "predictions": len(made)}
    if config.labels and truth_width(config) == 0:
        return found | _next_symbols(config, material, made)
    truth = _truth(config, material, first)
    if config.labels and config.decodes:
        return found | _texts(config, made, answered, truth)
    if config.labels:
        return found | _labels(config, material, made, answered, truth)
    return found | _values(config, material, made, answered, truth)


def _truth(config: ModelConfig, material: TableDataset, first: list[int]) -> np.ndarray:
    """[readings, width]; of a forecast the readings that came."""
    if not config.residual:
        return np.concatenate([one.truth for one in material.series])
    truth = np.full((material.readings, config.width), np.nan, np.float32)
    columns, targets = [config.features.index(name) for name in config.targets], len(config.targets)
    for begin, one in zip(first, material.series, strict=True):
        for step in range(config.horizon):
            later = one.x[step + 1 :, columns]
            truth[begin : begin + len(later), step * targets : (step + 1) * targets] = later
    return truth


def _labels(
    config: ModelConfig,
    material: TableDataset,
    made: predictions.PredictionRows,
    answered: np.ndarray,
    truth: np.ndarray,
) -> dict[str, object]:
    assert made.label is not None and made.top is not None
    number: dict[str | None, float] = {name: float(place) for place, name in enumerate(config.labels)}
    said = np.full(len(truth), np.nan, np.float32)
    of_truth = np.full(len(truth), np.nan, np.float32)
    for place in np.flatnonzero(answered >= 0).tolist():
        row = answered[place]
        said[place] = number.get(made.label[row], math.nan)
        if truth[place, 0] == truth[place, 0]:
            of_truth[place] = dict(made.top[row] or ()).get(config.labels[int(truth[place, 0])], math.nan)
    due = truth[:, 0].copy()
    if config.at_end:
        due[answered < 0] = np.nan
    end = np.concatenate([one.end for one in material.series])
    shown: dict[str, object] = {
        "accuracy": _round(metrics.accuracy(said, due)),
        "macro_f1": _round(metrics.macro_f1(said, due, len(config.labels))),
        "cross_entropy": _round(metrics.cross_entropy(of_truth)),
    }
    if config.task == "many-to-one" and not config.at_end:
        last = np.where(end > 0, due, np.nan)
        shown["accuracy_at_end"] = _round(metrics.accuracy(said, last))
    if "O" in config.labels:
        shown["span_f1"] = _round(metrics.span_f1(said, due, end, config.labels.index("O")))
    f1 = metrics.f1_of_classes(said, due, len(config.labels))
    return shown | {"f1": {name: _round(one) for name, one in zip(config.labels, f1.tolist(), strict=True)}}


def _next_symbols(config: ModelConfig, material: TableDataset, made: predictions.PredictionRows) -> dict[str, object]:
    """A symbol's score is -log of the probability that it was given before it came."""
    nats = made.score[np.isfinite(made.score)].astype(np.float64)
    seen = np.concatenate([one.x[:, 0] for one in material.series])
    seen = seen[seen >= len(SPECIALS)].astype(np.int64)
    share = np.bincount(seen, minlength=1) / max(1, len(seen))
    entropy = -float((share[share > 0] * np.log(share[share > 0])).sum())
    mean = float(nats.mean()) if len(nats) else math.nan
    return {"cross_entropy": _round(mean), "perplexity": _round(math.exp(mean)),
            "perplexity_of_frequencies": _round(math.exp(entropy))}  # fmt: skip


def _texts(
    config: ModelConfig, made: predictions.PredictionRows, answered: np.ndarray, truth: np.ndarray
) -> dict[str, object]:
    assert made.text is not None
    said, wanted = [], []
    for place in np.flatnonzero(~np.isnan(truth[:, 0])).tolist():
        words = [config.labels[int(one)] if one >= 0 else UNKNOWN for one in truth[place] if one == one]
        row = answered[place]
        said.append(list(made.text[row] or ()) if row >= 0 else [])
        wanted.append(words)
    right = [
        sum(a == b for a, b in zip(x, y, strict=False)) / max(len(x), len(y), 1)
        for x, y in zip(said, wanted, strict=True)
    ]
    return {"answers": len(wanted), "exact_match": _round(metrics.exact_match(said, wanted)),
            "symbols_right": _round(float(np.mean(right)) if right else math.nan)}  # fmt: skip


def _values(
    config: ModelConfig,
    material: TableDataset,
    made: predictions.PredictionRows,
    answered: np.ndarray,
    truth: np.ndarray,
) -> dict[str, object]:
    """Errors in units of the truth's standard deviation on the series, over all steps and targets."""
    y = np.full(truth.shape, np.nan)
    lo, hi = y.copy(), y.copy()
    there = np.flatnonzero(answered >= 0)
    y[there] = made.y.reshape(len(made), -1)[answered[there]]
    scale = np.nanstd(truth.reshape(-1, len(config.targets)).astype(np.float64), axis=0)
    scale = np.tile(np.where(scale > 0, scale, 1.0), config.horizon)
    errors = metrics.mse(y / scale, truth / scale)
    shown: dict[str, object] = {"mse": _round(float(np.nanmean(errors)))}
    shown["mae"] = _round(float(np.nanmean(metrics.mae(y / scale, truth / scale))))
    mean = np.tile(np.nanmean(truth.reshape(-1, len(config.targets)), axis=0), config.horizon)
    shown["mse_of_mean"] = _round(float(np.nanmean(np.square((truth - mean) / scale))))
    if config.residual:
        x = np.concatenate([one.x for one in material.series])[:, [*config.target_index]]
        last = np.tile(x, config.horizon)
        shown["persistence_mse"] = _round(float(np.nanmean(metrics.mse(last / scale, truth / scale))))
    if made.lo is not None and made.hi is not None:
        lo[there], hi[there] = (part.reshape(len(made), -1)[answered[there]] for part in (made.lo, made.hi))
        shown[f"coverage_{100 * config.band:.0f}"] = _round(float(np.nanmean(metrics.coverage(lo, hi, truth))))
    if config.horizon > 1:
        by_step = np.nanmean(errors.reshape(config.horizon, -1), axis=1)
        shown["mse_by_step"] = {str(step + 1): _round(float(one)) for step, one in enumerate(by_step)}
    return shown


def _round(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.4g}")
