"""Tables of sensors' readings with a truth beside them, cut out of the real series. Imports numpy only.

Each is small enough to be learned in a minute: what is asked for matters here, not how much of it there is.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.datasets.household import household_power
from services.datasets.labelled import daphnet
from services.datasets.tables import Split, Table

STATES = ("off", "idle", "low", "medium", "high", "peak")
EDGES_KW = (0.25, 0.5, 1.0, 2.0, 3.5)
"""Where a household's power goes over from one of `STATES` to the next."""


def calibrate(readings: int = 20_000, cache: Path | None = None) -> Split:
    """Voltage, current and reactive power of single minutes, and the active power of the same minute in kW. The minutes
    are spread over the first three years; those of the test part over the fourth.
    """
    series = household_power(cache)
    wanted = [series.features.index(name) for name in ("Voltage", "Global_intensity", "Global_reactive_power")]
    truth = series.features.index("Global_active_power")
    year = 3 * 365 * 1440
    parts: list[Table] = []
    for rows, count in ((slice(0, year), readings), (slice(year, None), readings // 4)):
        x, at_ms = np.asarray(series.x[rows]), np.asarray(series.at_ms[rows])
        whole = np.flatnonzero(~np.isnan(x).any(axis=1))
        some = whole[:: max(1, len(whole) // count)][:count]
        columns = ("stream", "at", "voltage", "current", "reactive_power", "power")
        parts.append(_table(columns, at_ms[some], np.column_stack((x[some][:, wanted], x[some, truth]))))
    return Split(parts[0], parts[1], series.citation)


def sensor_states(days: int = 400, cache: Path | None = None) -> Split:
    """A household's mean power of ten minutes as one of `STATES`; the last quarter is the test part."""
    series = household_power(cache)
    steps = days * 144
    power = np.asarray(series.x[: steps * 10, series.features.index("Global_active_power")]).reshape(-1, 10)
    unknown = np.asarray(np.isnan(power).all(axis=1))
    mean = np.where(unknown, np.nan, np.nansum(power, axis=1) / np.maximum(1, (~np.isnan(power)).sum(axis=1)))
    state = np.digitize(mean, EDGES_KW)
    at_ms = np.asarray(series.at_ms[: steps * 10 : 10])
    rows = [("home", str(at_ms[k]), "" if unknown[k] else STATES[state[k]]) for k in range(len(mean))]
    cut = len(rows) * 3 // 4
    columns = ("stream", "at", "state")
    return Split(Table(columns, tuple(rows[:cut])), Table(columns, tuple(rows[cut:])), series.citation)


def smoothing(readings: int = 40_000, seed: int = 0, cache: Path | None = None) -> Split:
    """A household's voltage with gaps of 1 to 9 minutes torn into it, a third of all, and the voltage as it truly was.
    What else is measured stays. The last quarter is the test part.
    """
    series = household_power(cache)
    names = ("Voltage", "Global_intensity", "Global_reactive_power")
    x = np.array(series.x[:readings, [series.features.index(name) for name in names]])
    truth = x[:, 0].copy()
    random, k = np.random.default_rng(seed), 0
    while k < len(x):
        k += int(random.integers(4, 18))
        gap = int(random.integers(1, 10))
        x[k : k + gap, 0] = np.nan
        k += gap
    columns = ("stream", "at", "voltage", "current", "reactive_power", "true_voltage")
    at_ms, cut = np.asarray(series.at_ms[:readings]), readings * 3 // 4
    whole = np.column_stack((x, truth))
    return Split(_table(columns, at_ms[:cut], whole[:cut]), _table(columns, at_ms[cut:], whole[cut:]), series.citation)


FINE, STUCK, WILD = "fine", "stuck", "wild"
KNOWN_STUCK = 4  # readings: a value that has come so often in a row, is


def faults(walks: int = 32, seed: int = 0, cache: Path | None = None) -> Split:
    """A walk's nine accelerations, one of which fails now and then for up to a second, and what is wrong: it sticks, or
    it goes wild, if only once. The first three quarters of the walk are told `walks` times, each time with other
    faults; the last quarter, told a quarter as often, is the test part.

    The recording itself is without faults: its column `is_anomaly` is 0 from end to end.
    """
    series = daphnet(cache)
    cut = len(series) * 3 // 4
    tables = []
    for part, (rows, times) in enumerate(((slice(0, cut), walks), (slice(cut, None), max(1, walks // 4)))):
        told: list[tuple[str, ...]] = []
        for number in range(times):
            x, state = _broken(np.array(series.x[rows], np.float64), np.random.default_rng([seed, part, number]))
            told += [
                (f"walk-{number}", str(when), *(f"{value:.5g}" for value in values), word)
                for when, values, word in zip(series.at_ms[rows].tolist(), x.tolist(), state, strict=True)
            ]
        tables.append(Table(("stream", "at", *series.features, "fault"), tuple(told)))
    return Split(tables[0], tables[1], series.citation)


def _broken(x: NDArray[np.float64], random: np.random.Generator) -> tuple[NDArray[np.float64], list[str]]:
    """x [n, channels] with faults, and what each reading is."""
    std, state, k = x.std(axis=0), [FINE] * len(x), 0
    while (k := k + int(random.integers(32, 160))) < len(x):
        fault, channel = str(random.choice((STUCK, WILD))), int(random.integers(x.shape[1]))
        once = fault == WILD and random.random() < 0.3
        length = min(1 if once else int(random.integers(16, 64)), len(x) - k)
        some = slice(k, k + length)
        if fault == STUCK:
            x[some, channel] = x[k - 1, channel]
        else:
            x[some, channel] += std[channel] * random.choice((-1.0, 1.0), length) * random.uniform(3.0, 6.0, length)
        for place in range(k + (KNOWN_STUCK - 1 if fault == STUCK else 0), k + length):
            state[place] = fault
        k += length
    return x, state


def _table(columns: tuple[str, ...], at_ms: NDArray[np.int64], numbers: NDArray[np.float32]) -> Table:
    """One stream; NaN is an empty cell."""
    rows = [
        ("home", str(when), *("" if math.isnan(number) else f"{number:.6g}" for number in row))
        for when, row in zip(at_ms.tolist(), numbers.tolist(), strict=True)
    ]
    return Table(columns, tuple(rows))
