"""What is installed: the wheel's content, the command, and versions that are the same for everyone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import uv
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


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes of a copy of the repository."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    for folder in ("rnn", "services", "tests", "bench", "docs"):
        shutil.copytree(root / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".venv*"))
    build = [uv.find_uv_bin(), "build", "--quiet", "--no-build-isolation", "--python", sys.executable]
    done = subprocess.run([*build, "--out-dir", "dist"], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([*(copy / "dist").glob("streamrnn-*.tar.gz")]) == 1
    (made,) = (copy / "dist").glob("streamrnn-*.whl")
    return made


def test_wheel_holds_the_two_packages_and_nothing_else(root: Path, wheel: Path, modules: list[Path]) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"rnn", "services", wheel.name.rsplit("-py3")[0] + ".dist-info"}
    missing = {str(path.relative_to(root)) for path in modules} - set(names)
    assert not missing, "in the repository but not in the wheel"
    assert "services/brokers/devbroker/jars.json" in names
    entry = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "streamrnn = services.cli.main:main" in entry


def test_the_wheel_needs_no_checkout(wheel: Path, tmp_path: Path) -> None:
    """Its commands, in an environment of their own, from the data files to a network that is trained and asked. The
    libraries are this environment's: five gigabytes.
    """
    uv_bin, bare = uv.find_uv_bin(), tmp_path / "bare"
    for command in (
        ["venv", "--quiet", "--python", sys.executable, bare],
        ["pip", "install", "--quiet", "--offline", "--no-deps", "--python", bare / "bin" / "python", wheel],
    ):
        done = subprocess.run([uv_bin, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (packages,) = (bare / "lib").glob("python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read

    def streamrnn(*words: str) -> str:
        command = [bare / "bin" / "streamrnn", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [bare / "bin" / "python", "-c", "import rnn, services; print(rnn.__file__, services.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert all(Path(one).is_relative_to(packages) for one in found), found
    lines = [f"{60_000 * i},{i % 7},{i % 5}" for i in range(3000)]
    (tmp_path / "past.csv").write_text("\n".join(["at,flow,level", *lines]) + "\n")
    (tmp_path / "pumps.yaml").write_text("data: {file: past.csv, time: at}\nrecipe: {updates: 3}\nout: model\n")
    streamrnn("train", "--config", "pumps.yaml")
    (tmp_path / "streamrnn.yaml").write_text("pipeline: pumps\nmodel: model\n")
    streamrnn("config", "validate", "-c", "streamrnn.yaml")
    streamrnn("predict", "past.csv", "--model", "model", "--time", "at", "--out", "said.csv")
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 3001
    assert "asyncapi: 3" in streamrnn("asyncapi")


def test_extras_are_the_promised_ones(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {"train", "dev", "fast", "onnx", "traces", "docs", "test"}
    assert project["requires-python"] == ">=3.11"
    assert any(need.startswith("torch>=2.11") for need in project["dependencies"])
