"""The import law beyond what import-linter says, what importing costs, and that the law's contracts bite."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

HEAVY = ("torch", "ray", "kafka", "pyarrow", "matplotlib", "pandas", "jgo")
RNN_MAY = {"numpy", "rnn", "safetensors", "torch"}
# imported when called, by those who have the extra
EXTRAS = {"rnn/io/onnx_step.py": {"onnx"}, "services/telemetry/traces.py": {"opentelemetry"}}
DISTRIBUTIONS = {"kafka": "kafka-python", "prometheus_client": "prometheus-client", "yaml": "pyyaml",
                 "pydantic_settings": "pydantic-settings", "pydantic_core": "pydantic",
                 "opentelemetry": "opentelemetry-sdk"}  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """First words of all that `path` imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def third_parties(path: Path) -> set[str]:
    return {name for name in imported(path) if name not in sys.stdlib_module_names and name not in ("rnn", "services")}


def test_rnn_imports_numbers_only(root: Path) -> None:
    for path in sorted((root / "rnn").rglob("*.py")):
        may = RNN_MAY | EXTRAS.get(path.relative_to(root).as_posix(), set())
        strange = {name for name in imported(path) if name not in sys.stdlib_module_names} - may
        assert not strange, f"{path.relative_to(root)} imports {strange}"


def test_every_third_party_is_a_declared_dependency(root: Path, modules: list[Path]) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    declared = {re.split(r"[\[<>=!~; ]", need)[0].lower() for need in wanted}
    for path in modules:
        for name in third_parties(path):
            assert DISTRIBUTIONS.get(name, name) in declared, (
                f"{path.relative_to(root)}: {name} is not in pyproject.toml"
            )


def test_core_code_needs_no_extra(root: Path, modules: list[Path]) -> None:
    """Without extras, everything but the demo, training, tables and the development broker works."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    core = {re.split(r"[\[<>=!~; ]", need)[0].lower() for need in project["dependencies"]}
    for path in modules:
        if {"demo", "devbroker", "datasets", "tables", "backtest", "trainer"} & set(path.parts) or path.stem == "train":
            continue
        extra = {name for name in third_parties(path) if DISTRIBUTIONS.get(name, name) not in core}
        extra -= EXTRAS.get(path.relative_to(root).as_posix(), set())
        assert not extra, f"{path.relative_to(root)} imports {extra}, which only an extra installs"


@pytest.mark.parametrize(
    "module", ["services", "services.records", "services.cli.main", "services.predictor.ports", "rnn"]
)
def test_importing_the_doors_is_cheap(root: Path, module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_starts_and_watches_a_fleet_does_without_torch(root: Path) -> None:
    """Four seconds of a processor and some hundred MB, which the actors alone need: `serve`, `topics` and `probe` begin
    at once.
    """
    doors = "services.fleet.server, services.fleet.supervisor, services.trainer.job, services.registry, services.doctor"
    code = f"import sys, {doors}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


CRIMES = {
    "rnn knows nothing of the services": ("rnn/crime.py", "import services.records"),
    "the predictor knows records, codecs and ports only": ("services/predictor/crime.py", "import services.settings"),
    "in the predictor only the shard and its models know rnn": ("services/predictor/crime2.py", "import rnn"),
    "only cli, fleet and the doctor build adapters, and the test driver": (
        "services/telemetry/crime.py",
        "import services.brokers",
    ),
    "nobody imports cli": ("services/fleet/crime.py", "import services.cli"),
    "kafka-python lives in brokers": ("services/fleet/crime2.py", "def f():\n    from kafka.errors import KafkaError"),
    "ray lives in fleet and in the trainer's workers": ("services/brokers/crime.py", "import ray.util"),
    "prometheus_client lives in telemetry": ("services/fleet/crime3.py", "import prometheus_client"),
}


def test_the_import_law_bites(root: Path, tmp_path: Path) -> None:
    """A copy of the code with one crime against each of these contracts breaks each of them."""
    for room in ("rnn", "services"):
        shutil.copytree(root / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / room / "__init__.py").touch()
    shutil.copy(root / "pyproject.toml", tmp_path)
    for file, crime in CRIMES.values():
        (tmp_path / file).write_text(crime + "\n")
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    for contract in CRIMES:
        assert re.search(rf"^{re.escape(contract)} BROKEN", done.stdout, re.MULTILINE), done.stdout
    for file, _ in CRIMES.values():
        assert file.removesuffix(".py").replace("/", ".") in done.stdout
