"""Recordings of people: what a wrist does in a shoulder exercise, labelled, and a walk.

Imports numpy and the standard library only.
"""

from __future__ import annotations

import codecs
import csv
import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.datasets.series import Series, cache_folder
from services.datasets.wheels import DataUnavailable, Wheel, fetch

SEGLEARN = Wheel(
    project="seglearn",
    version="1.2.5",
    filename="seglearn-1.2.5-py3-none-any.whl",
    sha256="ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
    megabytes=11,
)
AEON = Wheel(
    project="aeon",
    version="1.6.0",
    filename="aeon-1.6.0-py3-none-any.whl",
    sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    megabytes=6,
)
WATCH_CITATION = (
    "Burns, D. et al. (2018). Shoulder physiotherapy exercise recognition: machine learning the inertial signals from "
    "a smartwatch. Physiol. Meas. 39(7). https://doi.org/10.1088/1361-6579/aacfd9. In the wheel seglearn, BSD-3-Clause."
)
DAPHNET_CITATION = (
    "Roggen, D. et al. (2010). Daphnet Freezing of Gait [Dataset]. UCI Machine Learning Repository. "
    "https://doi.org/10.24432/C56K78. Licence: CC BY 4.0. Recording S06R02E0 as in aeon."
)


@dataclass(frozen=True, slots=True)
class Recording:
    """One stream with a class for every reading."""

    name: str
    group: str  # who was recorded: training and test must not share one
    features: tuple[str, ...]
    interval_s: float
    at_ms: NDArray[np.int64]  # [n], from 0
    x: NDArray[np.float32]  # [n, features]
    label: NDArray[np.int64]  # [n], places in `labels`
    labels: tuple[str, ...]

    def series(self) -> Series:
        """Its readings alone, to be forecast."""
        return Series(self.name, self.features, self.interval_s, self.at_ms, self.x, SEGLEARN.sha256, WATCH_CITATION)


def watch(cache: Path | None = None) -> list[Recording]:
    """140 recordings of ten people doing seven shoulder exercises, six axes at 50 Hz; a recording is one exercise.

    The file is a pickle. It is read only after its wheel's sha256 was checked, and by a reader that makes arrays and
    nothing else. Raises DataUnavailable.
    """
    with zipfile.ZipFile(fetch(SEGLEARN, cache_folder(cache))) as wheel:
        given = _arrays(wheel.read("seglearn/data/watch_dataset.npy"))
    labels = tuple(str(name) for name in given["y_labels"])
    features = tuple(str(name) for name in given["X_labels"])
    made = []
    for number, (x, y, subject) in enumerate(zip(given["X"], given["y"], given["subject"], strict=True)):
        at_ms = 20 * np.arange(len(x), dtype=np.int64)
        name = f"recording-{number:03}"
        classes = np.full(len(x), int(y), np.int64)
        made.append(Recording(name, f"subject-{subject}", features, 0.02, at_ms, x.astype(np.float32), classes, labels))
    return made


def daphnet(cache: Path | None = None) -> Series:
    """One walk of a person with Parkinson's disease: nine accelerations in milli-g at 64 Hz, float32 [7040, 9].

    The recording has a column `is_anomaly` that is 0 from end to end, so it has nothing to learn labels from: it is a
    series whose surprises are to be found. Raises DataUnavailable.
    """
    with zipfile.ZipFile(fetch(AEON, cache_folder(cache))) as wheel:
        text = wheel.read("aeon/datasets/data/Daphnet_S06R02E0/S06R02E0.csv").decode("ascii")
    header, *rows = csv.reader(io.StringIO(text))
    x = np.array([row[1:-1] for row in rows], np.float32)
    at_ms = (1000 * np.arange(len(rows)) / 64).round().astype(np.int64)
    return Series("daphnet", tuple(header[1:-1]), 1 / 64, at_ms, x, AEON.sha256, DAPHNET_CITATION)


def _arrays(content: bytes) -> dict[str, Any]:
    """The one object array in a file of numpy's, unpickled by a reader that knows arrays only."""
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    found = _ArraysOnly(stream, encoding="latin1").load()
    return dict(found.item())


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        rebuild = np.zeros(0).__reduce__()[0]
        known: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): rebuild,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): codecs.encode,
        }
        if (module, name) not in known:
            raise DataUnavailable(f"the recordings hold a {module}.{name}, which is no array: they are not read")
        return known[module, name]  # type: ignore[no-any-return]
