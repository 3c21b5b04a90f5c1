"""Every data set by its name. Imports nothing heavy; a set is loaded when it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.datasets.series import Series
from services.datasets.wheels import DataUnavailable


@dataclass(frozen=True, slots=True)
class DataSet:
    """What `streamrnn datasets` says of one."""

    about: str
    rows: int
    channels: int
    interval_s: float
    streams: int
    licence: str
    download_mb: int
    labels: tuple[str, ...] = ()  # a class for every reading; empty: a series to forecast


DATA_SETS = {
    "household-power": DataSet(
        "electric power of one household, by the minute", 2_075_259, 7, 60.0, 1, "CC BY 4.0", 23
    ),
    "appliances": DataSet("a house's appliances and climate", 19_735, 26, 600.0, 1, "CC BY 4.0", 23),
    "beijing-pm25": DataSet("fine dust and weather in Beijing", 43_824, 7, 3600.0, 1, "CC BY 4.0", 23),
    "simbench-res": DataSet("feed-in of the grid's renewable sources", 35_136, 42, 900.0, 1, "ODbL", 91),
    "watch": DataSet(
        "shoulder exercises seen by a smart watch", 244_102, 6, 0.02, 140, "BSD-3-Clause", 11,
        ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"),
    ),
    "daphnet": DataSet("a walk seen by three accelerometers", 7_040, 9, 1 / 64, 1, "CC BY 4.0", 6),
}  # fmt: skip


def series_of(name: str, cache: Path | None = None) -> list[Series]:
    """The series to forecast that are called so. Raises DataUnavailable, also for a name that is not known."""
    from services.datasets import forecasting, household, labelled

    loaders: dict[str, Callable[[Path | None], Series]] = {
        "household-power": household.household_power,
        "appliances": forecasting.appliances,
        "beijing-pm25": forecasting.beijing_pm25,
        "simbench-res": forecasting.simbench_res,
        "daphnet": labelled.daphnet,
    }
    if name == "watch":
        return [one.series() for one in labelled.watch(cache)]
    if name not in loaders:
        near = difflib.get_close_matches(name, DATA_SETS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DATA_SETS)}"
        raise DataUnavailable(f"there is no series called {name!r} to forecast; {hint}")
    return [loaders[name](cache)]
