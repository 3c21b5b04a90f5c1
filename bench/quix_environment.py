"""The environment that Quix Streams runs in: a folder of its own beside this file, never the project's.

Made once, with the torch version of the project's own environment. Imports the standard library only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent / ".venv-quix"
QUIX = "3.28.1"
PACKAGES = ("quixstreams", "confluent-kafka", "torch", "numpy")


class EnvironmentMissing(Exception):
    """The environment could not be made. The message says how to make it by hand."""


def python() -> Path:
    """The environment's interpreter; made on first use. Raises EnvironmentMissing."""
    path = FOLDER / "bin" / "python"
    wanted = [f"quixstreams=={QUIX}", *(f"{name}=={_plain(version(name))}" for name in ("torch", "numpy"))]
    mark = FOLDER / "packages.txt"
    if path.exists() and mark.exists() and mark.read_text().split() == wanted:
        return path
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{_path()}")
    make = [uv, "venv", "--quiet", "--clear"] if uv else [sys.executable, "-m", "venv", "--clear"]
    install = (
        [uv, "pip", "install", "--quiet", "--python", str(path)] if uv else [str(path), "-m", "pip", "install", "-q"]
    )
    if uv:
        make += ["--python", sys.executable]
    try:
        for command in ([*make, str(FOLDER)], [*install, *wanted]):
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(FOLDER, ignore_errors=True)
        raise EnvironmentMissing(
            f"Quix Streams could not be installed: {error.stderr.strip()[-600:]}\n"
            f"Install {' '.join(wanted)} into bench/{FOLDER.name} yourself, or leave this benchmark out."
        ) from error
    mark.write_text("\n".join(wanted) + "\n")
    return path


def versions() -> dict[str, str]:
    """What is installed there."""
    code = f"from importlib.metadata import version; print(*(version(name) for name in {PACKAGES}))"
    found = subprocess.run([str(python()), "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(PACKAGES, found, strict=True))


def _plain(found: str) -> str:
    return found.partition("+")[0]


def _path() -> str:
    import os

    return os.environ.get("PATH", os.defpath)
