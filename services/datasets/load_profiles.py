"""Days of electricity customers: what is known of a customer and a day beforehand, and the 24 hourly loads of it.

The profiles are those of SimBench, as they lie in its wheel. Imports numpy and the standard library only.
"""

from __future__ import annotations

import io
import math
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.datasets.series import cache_folder
from services.datasets.tables import Split, Table
from services.datasets.wheels import DataUnavailable, Wheel, fetch

WHEEL = Wheel(
    project="simbench",
    version="1.6.3",
    filename="simbench-1.6.3-py3-none-any.whl",
    sha256="8b48bdab2445286a96649eb18bb09476d000a0e212fd57fdba83399df54af4de",
    megabytes=91,
)
MEMBER = "simbench/networks/1-complete_data-mixed-all-0-sw/LoadProfile.csv"
CITATION = (
    "Meinecke, S. et al. (2020). SimBench: A Benchmark Dataset of Electric Power Systems. Energies 13(12), 3290. "
    "https://doi.org/10.3390/en13123290. Licence: ODbL (data), BSD-3-Clause (wheel)."
)
KINDS = ("G", "H0", "L", "BL", "WB")
"""What the names of trade, homes, farms and two big customers begin with; the rest are sums of others, and heating."""
QUARTER_MS = 900_000
CUSTOMER = ("year_sin", "year_cos", "saturday", "sunday", "mean", "night", "working_hours", "evening")
"""What is known beforehand: the day, and of the customer the mean load and how it goes up in parts of a day."""


def load_profiles(cache: Path | None = None) -> Split:
    """The year 2016 of 27 customers, a row a day. Raises DataUnavailable if the wheel cannot be had."""
    with zipfile.ZipFile(fetch(WHEEL, cache_folder(cache))) as wheel:
        return day_profiles(*parse(wheel.read(MEMBER)), CITATION)


def parse(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.float32], tuple[str, ...]]:
    """(at_ms [n], load [n, customers], names) of SimBench's file. Raises DataUnavailable for another text."""
    header = text.partition(b"\n")[0].decode("ascii", "replace").strip().split(";")
    wanted = [k for k, name in enumerate(header) if name.endswith("_pload") and name.startswith(KINDS)]
    if header[0] != "time" or not wanted:
        raise DataUnavailable(f"{MEMBER} in {WHEEL.filename} does not begin with a time and load profiles")
    first = text.split(b"\n", 2)[1].partition(b";")[0].decode("ascii")
    start = datetime.strptime(first, "%d.%m.%Y %H:%M").replace(tzinfo=UTC)
    load = np.loadtxt(io.BytesIO(text), np.float32, delimiter=";", skiprows=1, usecols=wanted, ndmin=2)
    at_ms = round(start.timestamp() * 1000) + QUARTER_MS * np.arange(len(load), dtype=np.int64)
    return at_ms, load, tuple(header[k].removesuffix("_pload") for k in wanted)


def day_profiles(at_ms: NDArray[np.int64], load: NDArray[np.float32], names: tuple[str, ...], citation: str) -> Split:
    """One row for each customer and day: `CUSTOMER`, then the 24 hourly loads. Every fifth day is of the test part, and
    says nothing of what kind a customer is.

    load [n, customers] every 15 minutes from a midnight on, at_ms [n].
    """
    days = len(load) // 96
    hourly = load[: days * 96].reshape(days, 24, 4, -1).mean(axis=2)  # [days, 24, customers]
    first_ms = at_ms[: days * 96 : 96]
    held_back = np.arange(days) % 5 == 4
    learned = hourly[~held_back]
    mean = learned.mean(axis=(0, 1))
    shares = [learned[:, hours].mean(axis=(0, 1)) / mean for hours in (slice(0, 6), slice(8, 17), slice(17, 22))]
    kind = np.stack((mean, *shares), axis=1)  # [customers, 4]
    columns = ("stream", "at", *CUSTOMER, *(f"load_{hour:02}" for hour in range(24)))
    rows: tuple[list[tuple[str, ...]], list[tuple[str, ...]]] = ([], [])
    for day in range(days):
        when = datetime.fromtimestamp(int(first_ms[day]) / 1000, UTC)
        angle = 2 * math.pi * when.timetuple().tm_yday / 366
        known = (math.sin(angle), math.cos(angle), float(when.weekday() == 5), float(when.weekday() == 6))
        for customer, name in enumerate(names):
            numbers = (*known, *kind[customer], *hourly[day, :, customer])
            rows[int(held_back[day])].append((name, str(first_ms[day]), *(f"{number:.5g}" for number in numbers)))
    return Split(Table(columns, tuple(rows[0])), Table(columns, tuple(rows[1])), citation)
