"""`make` on a machine that lacks something: it says what, and what to do."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The files that set-up looks at, without a .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path)
    shutil.copytree(root / ".ci", tmp_path / ".ci")
    return tmp_path


def python_that(folder: Path, script: str) -> Path:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def make(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *args], cwd=folder, capture_output=True, text=True, env=env)


def test_make_alone_lists_the_targets(copy: Path) -> None:
    done = make(copy)
    assert done.returncode == 0
    for target in ("demo", "test", "check", "bench", "soak", "broker", "clean"):
        assert f"make {target} " in done.stdout


def test_a_python_that_is_too_old_is_named_with_the_remedy(copy: Path) -> None:
    old = python_that(copy, 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    done = make(copy, "test", f"PYTHON={old}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer; found: Python 3.9.2" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (copy / ".venv").exists()


def test_a_python_without_venv_is_named_with_the_remedy(copy: Path) -> None:
    bare = python_that(
        copy, 'case "$2" in *ensurepip*) exit 1;; esac; [ "$1" = --version ] && echo Python 3.12.0; exit 0'
    )
    done = make(copy, "test", f"PYTHON={bare}")
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr


def test_set_up_is_done_once(copy: Path) -> None:
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / ".ready").touch()
    assert make(copy, "-q", ".venv/.ready").returncode == 0
    later = (copy / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(copy / "constraints.txt", (later, later))
    assert make(copy, "-q", ".venv/.ready").returncode == 1
