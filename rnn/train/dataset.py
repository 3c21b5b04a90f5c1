"""What a network of any shape learns from: readings, where their sequences end, and what was true. Imports numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnn.config import SPECIALS, ModelConfig
from rnn.serve.wave_batch import CONTINUES, END_ONLY


@dataclass(frozen=True, slots=True)
class LabeledSeries:
    """Readings of one stream, in time order. A reading is a step of the sequence that it belongs to."""

    x: NDArray[np.float32]  # [n, features], raw units or one symbol number; NaN = missing
    at_ms: NDArray[np.int64]  # [n]
    end: NDArray[np.uint8]  # [n], what each says of its sequence, see `rnn.serve.wave_batch`
    truth: NDArray[np.float32]  # [n, truth_width], NaN = unknown; class numbers, an answer's without its end

    def __len__(self) -> int:
        return len(self.at_ms)


def truth_width(config: ModelConfig) -> int:
    """Columns of `LabeledSeries.truth`: none where the later readings themselves are the truth."""
    return 0 if config.predicts == "next" and not (config.labels and config.decodes) else config.width


def checked(config: ModelConfig, number: int, one: LabeledSeries) -> LabeledSeries:
    """The series with its bare ends folded into the readings before them. Raises ValueError, naming series and reading,
    for shapes, symbols or classes that the config does not have.
    """
    n, width = len(one.at_ms), truth_width(config)
    wanted = ((one.x, "x", (n, len(config.features))), (one.end, "end", (n,)), (one.truth, "truth", (n, width)))
    for array, name, shape in wanted:
        if array.shape != shape:
            raise ValueError(f"series {number}: {name} wants {list(shape)}, got {list(array.shape)}")
    if not n:
        raise ValueError(f"series {number} has no reading: leave it out")
    if config.symbolic:
        _whole_numbers(number, "symbol", one.x, len(SPECIALS) + len(config.vocabulary), "vocabulary")
    if config.labels and width:
        _whole_numbers(number, "class", one.truth, len(config.labels), "labels")
    end, bare = one.end.copy(), one.end == END_ONLY
    for at in np.flatnonzero(bare[1:]) + 1:
        end[at - 1] = max(end[at - 1], 1) if end[at - 1] != END_ONLY else END_ONLY
    kept = ~bare
    if not config.recurrent:
        end[:] = 1  # each reading is a sequence of its own
    return LabeledSeries(one.x[kept].astype(np.float32), one.at_ms[kept].astype(np.int64),
                    (end[kept] != CONTINUES).astype(np.uint8), one.truth[kept].astype(np.float32))  # fmt: skip


def missing_and_constant(names: Sequence[str], x: NDArray[np.float32]) -> tuple[list[str], list[str]]:
    """Names of the columns x [n, names] that hold no number, and of those that hold one number only."""
    least, most = np.fmin.reduce(x, axis=0, initial=np.inf), np.fmax.reduce(x, axis=0, initial=-np.inf)
    missing, fixed = ([names[k] for k in np.flatnonzero(one).tolist()] for one in (least > most, least == most))
    return missing, fixed


def still(names: Sequence[str], x: NDArray[np.float32]) -> str:
    """What is wrong with the columns x [n, names] if none of them holds two numbers, for a sentence; else empty."""
    missing, fixed = missing_and_constant(names, x)
    if len(missing) + len(fixed) < len(names):
        return ""
    values = np.unique(x[~np.isnan(x)]).tolist()
    value = f", {values[0]:g}" if len(values) == 1 else ""
    said = [f"{', '.join(fixed[:8])} never changes{value}"] if fixed else []
    return " and ".join(said + ([f"{', '.join(missing[:8])} is missing"] if missing else []))


def begins(end: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where sequences begin. end [n] -> places, the first one 0."""
    return np.concatenate(([0], np.flatnonzero(end[:-1] != CONTINUES) + 1)) if len(end) else np.zeros(0, np.int64)


def validation_split(
    series: Sequence[LabeledSeries], share: float, seed: int, groups: Sequence[str] = (), alone: bool = False
) -> list[NDArray[np.bool_]]:
    """Which readings of each series [n] only judge. Whole groups where the series have any, else whole streams where
    there are ten or more, else whole sequences where there are twenty or more, drawn by the seed; else the latest
    readings of each series. `alone`: each reading is a sequence of its own, and streams do not matter.
    """
    random = np.random.default_rng(seed)
    known = sorted(set(groups))
    if len(known) > 1:
        drawn = {known[k] for k in random.permutation(len(known))[: max(1, round(share * len(known)))]}
        return [np.full(len(one), group in drawn) for one, group in zip(series, groups, strict=True)]
    if len(series) >= 10 and not alone:
        chosen = set(random.permutation(len(series))[: max(1, round(share * len(series)))].tolist())
        return [np.full(len(one), number in chosen) for number, one in enumerate(series)]
    starts = [np.arange(len(one)) if alone else begins(one.end) for one in series]
    count = sum(map(len, starts))
    if count >= 20:
        picked = np.zeros(count, np.bool_)
        picked[random.permutation(count)[: max(1, round(share * count))]] = True
        parts, place = [], 0
        for one, begin in zip(series, starts, strict=True):
            lengths = np.diff(np.append(begin, len(one)))
            parts.append(np.repeat(picked[place : place + len(begin)], lengths))
            place += len(begin)
        return parts
    return [np.arange(len(one)) >= len(one) - int(len(one) * share) for one in series]


def _whole_numbers(series: int, what: str, values: NDArray[np.float32], count: int, where: str) -> None:
    wrong = ~np.isnan(values) & ~((values >= 0) & (values < count) & (values == np.floor(values)))
    if wrong.any():
        reading = int(np.flatnonzero(wrong.any(axis=1))[0])
        raise ValueError(
            f"series {series}, reading {reading}: {what} {values[wrong][0]:g} is none of the {count} that the config's "
            f"{where} allows (0 to {count - 1})"
        )
