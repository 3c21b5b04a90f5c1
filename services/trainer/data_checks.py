"""What of a range cannot be learned from or judged by: refused in a sentence, or noted. Imports numpy and rnn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.train.dataset import LabeledSeries, missing_and_constant, still
from services.trainer.ranges import Range, WrongRange, said_time
from services.trainer.split import TimeSplit


def whole(wanted: Range, config: ModelConfig, series: Sequence[LabeledSeries]) -> list[str]:
    """What a person should know of all that was read. Raises WrongRange where there is nothing to learn."""
    if config.symbolic:
        return []
    readings = sum(map(len, series))
    if readings < 2:
        raise WrongRange(f"{wanted} holds one reading: give a longer range")
    x = np.concatenate([one.x for one in series])
    if np.isnan(x).all():
        raise WrongRange(
            f"{wanted}: all values of {', '.join(config.features[:8])} are missing in all {readings:,} readings: look "
            "at the sensors, or take another range"
        )
    dead, fixed = missing_and_constant(config.features, x)
    targets = config.targets or config.features
    if not set(targets) - {*dead, *fixed}:
        said = still(targets, x[:, [config.features.index(name) for name in targets]])
        raise WrongRange(
            f"{wanted}: {said}: there is nothing to learn; take a range in which it does, or name other targets"
        )
    notes = [f"{name} is missing in the whole range" for name in dead]
    return notes + [f"{name} never changes in the whole range" for name in fixed]


def parts(wanted: Range, config: ModelConfig, series: Sequence[LabeledSeries], cut: TimeSplit) -> list[str]:
    """What a person should know of the targets of forecasts in the part that is learned from, where the whole range
    does not say it. Raises WrongRange where nothing can be learned there, or nothing be judged in one of the others.
    """
    if not config.residual:
        return []
    columns, ends = list(config.target_index), list(map(len, series))

    def of(begin: Sequence[int], end: Sequence[int]) -> NDArray[np.float32]:
        return np.concatenate([one.x[a:b, columns] for one, a, b in zip(series, begin, end, strict=True)])

    early, all_ = of([0] * len(ends), cut.learned), of([0] * len(ends), ends)
    from_ms, until_ms = said_time(cut.validate_ms), said_time(cut.test_ms)
    where = f"in the {len(early):,} readings that are learned from, those before {from_ms}"
    if said := still(config.targets, early):
        raise WrongRange(
            f"{wanted}: {where}, {said}: there is nothing to learn; take a longer range, or one in which it changes "
            "before that time"
        )
    names = ", ".join(config.targets[:8])
    for does, times, values in (
        ("chooses among passes", f"{from_ms} to {until_ms}", of(cut.learned, cut.known)),
        ("only tests", f"{until_ms} and later", of(cut.known, ends)),
    ):
        if np.isnan(values).all():
            raise WrongRange(
                f"{wanted}: all values of {names} are missing in the {len(values):,} readings of the part that {does}, "
                f"{times}: nobody could say how good a model is; take a longer range, or one that ends where they are "
                "known"
            )
    dead, fixed = (
        [name for name in now if name not in ever]
        for now, ever in zip(
            missing_and_constant(config.targets, early), missing_and_constant(config.targets, all_), strict=True
        )
    )
    return [f"{name} is missing {where}: no forecast of it is learned" for name in dead] + [
        f"{name} never changes {where}: that it stays is all that is learned of it" for name in fixed
    ]
