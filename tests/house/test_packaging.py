"""What is installed: the wheel's content, the command, and versions that are the same for everyone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version


@pytest.fixture(scope="module")
def pinned(root: Path) -> dict[str, list[Version]]:
    """Distribution -> versions (one for each range of Pythons) that constraints.txt names."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", (root / "constraints.txt").read_text(), re.MULTILINE):
        found.setdefault(name.lower(), []).append(Version(version))
    return found


def test_constraints_name_a_hash_for_each_and_no_address(root: Path) -> None:
    text = (root / "constraints.txt").read_text()
    assert "://" not in text
    assert "@" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[\w.-]+==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_constraints_hold_everything_that_is_asked_for(root: Path, pinned: dict[str, list[Version]]) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for need in [*project["dependencies"], *(n for extra in project["optional-dependencies"].values() for n in extra)]:
        requirement = Requirement(need)
        versions = pinned.get(requirement.name.lower())
        assert versions, f"{need}: run `make constraints`"
        assert all(version in requirement.specifier for version in versions), f"{need}: run `make constraints`"


def test_what_runs_here_is_what_constraints_name(pinned: dict[str, list[Version]]) -> None:
    from importlib import metadata

    here = {name: metadata.version(name) for name in ("torch", "ray", "kafka-python", "pydantic", "numpy", "pytest")}
    wrong = {name: version for name, version in here.items() if Version(version) not in pinned[name]}
    assert not wrong, f"other versions than constraints.txt names; `make` sets up .venv: {wrong}"


def test_wheel_holds_the_two_packages_and_nothing_else(root: Path, tmp_path: Path, modules: list[Path]) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (root / name).exists():
            shutil.copy(root / name, copy)
    for folder in ("rnn", "services", "tests", "bench", "docs"):
        shutil.copytree(root / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".venv*"))
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        copy,
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("streamrnn-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"rnn", "services", wheel.name.rsplit("-py3")[0] + ".dist-info"}
    missing = {str(path.relative_to(root)) for path in modules} - set(names)
    assert not missing, "in the repository but not in the wheel"
    assert "services/brokers/devbroker/jars.json" in names
    entry = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "streamrnn = services.cli.main:main" in entry


def test_extras_are_the_promised_ones(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {"train", "dev", "fast", "onnx", "traces", "docs", "test"}
    assert project["requires-python"] == ">=3.11"
    assert any(need.startswith("torch>=2.11") for need in project["dependencies"])
