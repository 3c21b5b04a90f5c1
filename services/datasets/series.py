"""One long series of readings in memory, and its cache on disk. Imports numpy, platformdirs and the standard
library.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of one place in time order. The arrays are read-only."""

    name: str
    features: tuple[str, ...]  # [features]
    interval_s: float  # usual time between two readings
    at_ms: NDArray[np.int64]  # [n], increasing; milliseconds since 1970, local time where the source gives no zone
    x: NDArray[np.float32]  # [n, features], NaN = missing
    digest: str  # sha256 of the file that the readings came in, hex
    citation: str  # whom to name, and the licence

    def __len__(self) -> int:
        return len(self.at_ms)


def cache_folder(cache: Path | None) -> Path:
    """The folder given, else the user's own cache folder for streamrnn."""
    if cache is not None:
        return cache
    import platformdirs

    return Path(platformdirs.user_cache_dir("streamrnn", appauthor=False))


def cached(folder: Path, make: Callable[[], Series]) -> Series:
    """The series kept in `folder`; made and kept there first where there is none.

    `folder` must be named by the digest of the source, for what it holds is believed. It appears in one rename, so a
    run that is killed leaves no half a series, and two runs at once do not disturb each other. A folder that cannot
    be read is made anew. Reading costs milliseconds: the arrays are mapped, not copied.

    Raises OSError where `folder` cannot be written.
    """
    try:
        return _read(folder)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent or damaged: made below
    series = make()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(fresh, series)
        try:
            os.rename(fresh, folder)
        except OSError:  # a folder is there: damaged, or made by another run meanwhile
            stale = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            os.rename(folder, stale / "old")
            os.rename(fresh, folder)
            shutil.rmtree(stale, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return _read(folder)


def _write(folder: Path, series: Series) -> None:
    np.save(folder / "x.npy", series.x)
    np.save(folder / "at_ms.npy", series.at_ms)
    about = {
        "name": series.name,
        "features": list(series.features),
        "interval_s": series.interval_s,
        "rows": len(series),
        "digest": series.digest,
        "citation": series.citation,
    }
    (folder / "series.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def _read(folder: Path) -> Series:
    about = json.loads((folder / "series.json").read_text(encoding="utf-8"))
    x = np.load(folder / "x.npy", mmap_mode="r", allow_pickle=False)
    at_ms = np.load(folder / "at_ms.npy", mmap_mode="r", allow_pickle=False)
    rows, features = about["rows"], tuple(about["features"])
    if x.shape != (rows, len(features)) or at_ms.shape != (rows,) or x.dtype != np.float32 or at_ms.dtype != np.int64:
        raise ValueError(f"{folder} does not hold what its series.json says")
    return Series(about["name"], features, about["interval_s"], at_ms, x, about["digest"], about["citation"])
