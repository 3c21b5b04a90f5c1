"""What is said of a trained model: how good it is on readings that nobody has looked at, beside its rivals.

The last part of each stream goes through the engine that serves, in order of arrival. Imports numpy and rnn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from rnn.train.course import Pass
from rnn.train.dataset import LabeledSeries
from rnn.train.lanes import moments
from services.predictor.anomaly import calibrated
from services.predictor.score_calibration import TooFewScores
from services.trainer import baselines
from services.trainer.split import TimeSplit, clock

WARM_UP = 1_000
"""Readings of each stream that are read before those that test: its memory is not empty in service."""
SLOTS = 4_096
"""Streams side by side."""
READINGS = 65_536
"""In one run of the engine."""
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
EXTREMES = 10
"""Best and worst streams that are named."""


@dataclass(frozen=True, slots=True)
class TestForecasts:
    """Of each series what was said of its test part; z-scores of the training part, NaN = unknown.

    Step k of row i is about reading known + i + k: row 0 is what was said at the last reading before the test part.
    """

    y: list[NDArray[np.float64]]  # [n - known, horizon, targets] of each series
    lo: list[NDArray[np.float64]] | None
    hi: list[NDArray[np.float64]] | None
    score: list[NDArray[np.float64]]  # [n - known] of each series, of the readings themselves; nats, NaN = none


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The part that only tests, ready to be scored against."""

    config: ModelConfig
    names: tuple[str, ...]
    series: tuple[LabeledSeries, ...]
    split: TimeSplit
    mean: NDArray[np.float64]  # [features], of what was learned from
    std: NDArray[np.float64]  # [features]

    @classmethod
    def of(
        cls, config: ModelConfig, names: Sequence[str], series: Sequence[LabeledSeries], parts: TimeSplit
    ) -> HeldBack:
        """Of the streams that have a reading to test on and one before it."""
        kept = [k for k, one in enumerate(series) if 0 < parts.known[k] < len(one)]
        mean, std = moments(np.concatenate([one.x[:count] for one, count in zip(series, parts.learned, strict=True)]))
        learned, known = (tuple(counts[k] for k in kept) for counts in (parts.learned, parts.known))
        some = TimeSplit(parts.validate_ms, parts.test_ms, learned, known)
        return cls(config, tuple(names[k] for k in kept), tuple(series[k] for k in kept), some, mean, std)

    def scaled(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Features [.., features] as z-scores."""
        return (np.asarray(x, np.float64) - self.mean) / self.std


def report(
    network: Network,
    passes: Sequence[Pass],
    test: HeldBack,
    parent: Network | None = None,
) -> dict[str, Any]:
    """One JSON object: `curve`, and of forecasts `scores`, `by_horizon`, `by_target`, `by_group`, `calibration` and
    `rivals`. Errors are of z-scores; a value counts, for all alike, where it and the one before
    it are known. A number that nothing was there for is null.
    """
    told: dict[str, Any] = {"curve": [asdict(one) for one in passes]}
    if not test.config.residual:
        return told | {"scores": {"validation_loss": passes[-1].validation_loss}}
    if not test.series:
        return told | {"scores": {}, "note": "no stream has readings in the part that tests"}
    columns = list(test.config.target_index)
    z = [test.scaled(one.x) for one in test.series]
    said = unrolled(network, test)
    truths = [
        _steps(one[:, columns], begin, test.config.horizon) for one, begin in zip(z, test.split.known, strict=True)
    ]
    lasts = [one[begin - 1 : -1, columns] for one, begin in zip(z, test.split.known, strict=True)]
    known = [~np.isnan(truth) & ~np.isnan(last)[:, None] for truth, last in zip(truths, lasts, strict=True)]
    held = [np.repeat(last[:, None], test.config.horizon, axis=1) for last in lasts]
    level = f"coverage_{round(100 * test.config.band)}"

    def figures(steps: slice, targets: slice, streams: slice = slice(None)) -> dict[str, Any]:
        def flat(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
            pairs = zip(parts[streams], known[streams], strict=True)
            return np.concatenate([one[:, steps, targets][mask[:, steps, targets]] for one, mask in pairs])

        truth = flat(truths)
        inside = None if said.lo is None or said.hi is None else (flat(said.lo) <= truth) & (truth <= flat(said.hi))
        return {
            "mse": _mean(np.square(flat(said.y) - truth)),
            "mae": _mean(np.abs(flat(said.y) - truth)),
            "persistence_mse": _mean(np.square(flat(held) - truth)),
            level: None if inside is None else _mean(inside),
            "values": len(truth),
        }

    everything, first = slice(None), slice(0, 1)
    readings = sum(int(mask[:, 0].any(axis=1).sum()) for mask in known)
    by_stream = [(name, figures(first, everything, slice(k, k + 1))) for k, name in enumerate(test.names)]
    ranked = sorted((one for one in by_stream if one[1]["mse"] is not None), key=lambda one: float(one[1]["mse"]))
    season, seasonal = baselines.seasonal(z, test.split.learned, test.split.known, test.config.interval_s)

    def rival(parts: Sequence[NDArray[np.float64]]) -> float | None:
        pairs = zip(parts, truths, known, strict=True)
        errors = [np.square(one - truth[:, 0])[mask[:, 0]] for one, truth, mask in pairs]
        return _mean(np.concatenate(errors))

    beside = None if parent is None or parent.config.targets != test.config.targets else unrolled(parent, test)
    return told | {
        "scores": {**figures(first, everything), "readings": readings},
        "by_horizon": [
            {"step": k + 1, **figures(slice(k, k + 1), everything)} for k in range(test.config.horizon)
        ],
        "by_target": {name: figures(first, slice(k, k + 1)) for k, name in enumerate(test.config.targets)},
        "by_group": _extremes(ranked),
        "season": season,
        "calibration": _calibration(test.config, said, truths, known),
        **_surprise(said),
        "rivals": {
            "persistence": rival(lasts),
            "ridge_var8": rival([one[:, columns] for one in baselines.ridge(z, test.split.learned, test.split.known)]),
            "seasonal_naive": None if season is None else rival([one[:, columns] for one in seasonal]),
            "parent": None if beside is None else rival([one[:, 0] for one in beside.y]),
        },
    }  # fmt: skip


def _extremes(ranked: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Stream -> its figures: of all, or of the best and the worst."""
    if len(ranked) > 2 * EXTREMES:
        ranked = ranked[:EXTREMES] + ranked[-EXTREMES:]
    return dict(ranked)


def reference(features: Sequence[str], series: Sequence[LabeledSeries], learned: Sequence[int]) -> dict[str, Any]:
    """What readings looked like in the training part: what drift is measured against."""
    from services.quality.reference import Reference

    x = np.concatenate([one.x[:count] for one, count in zip(series, learned, strict=True)])
    at_ms = np.concatenate([clock(one.at_ms[:count]) for one, count in zip(series, learned, strict=True)])
    return Reference.of(features, x[np.argsort(at_ms, kind="stable")]).tree()


def unrolled(network: Network, test: HeldBack) -> TestForecasts:
    """What the engine says of the test part, each stream warmed up on the readings before it."""
    horizon, targets, banded = test.config.horizon, test.config.target_index, network.head.BANDED
    made = [np.full((3, len(one) - begin, network.config.width), np.nan) for one, begin in zip(
        test.series, test.split.known, strict=True)]  # fmt: skip
    score = [np.full(one.shape[1], np.nan) for one in made]
    for some in range(0, len(test.series), SLOTS):
        group = range(some, min(some + SLOTS, len(test.series)))
        engine = engine_of(network, len(group))
        begins = [max(0, test.split.known[k] - WARM_UP) for k in group]
        longest = max(len(test.series[k]) - 1 - begin for k, begin in zip(group, begins, strict=True))
        stride = max(1, READINGS // len(group))
        for step in range(0, longest, stride):
            spans = [(slot, k, begin + step, min(begin + step + stride, len(test.series[k]) - 1))
                     for slot, (k, begin) in enumerate(zip(group, begins, strict=True))]  # fmt: skip
            spans = [span for span in spans if span[2] < span[3]]
            slots = np.concatenate([np.full(after - at, slot, np.int64) for slot, _, at, after in spans])
            places = np.concatenate([np.arange(at, after) for _, _, at, after in spans])
            x, at_ms, end = (np.concatenate([getattr(test.series[k], name)[at:after] for _, k, at, after in spans])
                             for name in ("x", "at_ms", "end"))  # fmt: skip
            result = engine.run(slots, np.ascontiguousarray(x), at_ms, np.full(len(slots), -1, np.int64), end=end)
            of = np.arange(len(slots)) if result.of is None else result.of
            for part, values in enumerate((result.y, result.lo, result.hi)):
                if values is None:
                    continue
                for slot, k, _, _ in spans:
                    mine = np.flatnonzero(slots[of] == slot) if len(spans) > 1 else np.arange(len(of))
                    row = places[of[mine]] + 1 - test.split.known[k]
                    made[k][part, row[row >= 0]] = values[mine[row >= 0]]
            for slot, k, _, _ in spans:
                mine = np.flatnonzero(slots[of] == slot) if len(spans) > 1 else np.arange(len(of))
                row = places[of[mine]] - test.split.known[k]
                score[k][row[row >= 0]] = result.score[mine[row >= 0]]
    mean, std = test.mean[list(targets)], test.std[list(targets)]
    y, lo, hi = ([(one[part].reshape(-1, horizon, len(targets)) - mean) / std for one in made] for part in range(3))
    return TestForecasts(y, lo if banded else None, hi if banded else None, score)


def _surprise(said: TestForecasts) -> dict[str, Any]:
    """What scores usually are, on readings that nothing was learned from: how improbable others are follows from it."""
    try:
        return {"surprise": calibrated([one[~np.isnan(one)] for one in said.score]).to_tree()}
    except TooFewScores:
        return {}


def _steps(z: NDArray[np.float64], begin: int, horizon: int) -> NDArray[np.float64]:
    """The truths of what was said at each reading from begin - 1 on, [n - begin, horizon, targets]."""
    padded = np.concatenate([z, np.full((horizon, z.shape[1]), np.nan)])
    return np.stack([padded[begin + k : len(z) + k] for k in range(horizon)], axis=1)


def _calibration(
    config: ModelConfig,
    said: TestForecasts,
    truths: Sequence[NDArray[np.float64]],
    known: Sequence[NDArray[np.bool_]],
) -> dict[str, float | None]:
    """Level -> share of the truths in its band: the model's own, made wider or narrower as a Gaussian's would be."""
    if said.lo is None or said.hi is None:
        return {}
    own = NormalDist().inv_cdf(0.5 + config.band / 2)
    off, room = [], []
    for y, lo, hi, truth, mask in zip(said.y, said.lo, said.hi, truths, known, strict=True):
        error = (truth - y)[mask]
        off.append(error)
        room.append(np.where(error < 0, (lo - y)[mask], (hi - y)[mask]))
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.concatenate(off) / np.concatenate(room)  # of the band's half width
    levels = LEVELS if config.head == "gaussian" else (config.band,)
    shares = {f"{level:g}": NormalDist().inv_cdf(0.5 + level / 2) / own for level in levels}
    return {level: _mean(needed <= width) for level, width in shares.items()}


def _mean(values: NDArray[Any]) -> float | None:
    """Six significant digits; values that are NaN do not count, and of none there is no mean."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(f"{values.mean():.6g}") if len(values) else None
