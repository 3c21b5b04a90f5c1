"""The benchmarks of rnn in a tiny form: they run, and count what they say. No speed is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked in this test")

sys.meta_path.insert(0, Blocker())
"""
ALLOWED = {"torch", "numpy", "safetensors", "rnn"}
"""Top-level packages that modules of rnn may ask for themselves; what torch asks for is torch's business."""


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_every_module_of_rnn_imports_without_the_services_libraries() -> None:
    """As on a bare GPU machine: torch, numpy and safetensors are there, and nothing else of ours."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(need for extra in project["optional-dependencies"].values() for need in extra)]
    modules = {"kafka-python": "kafka", "pyyaml": "yaml", "pydantic-settings": "pydantic_settings"}
    wanted = {need.split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip().lower() for need in named}
    blocked = {modules.get(name, name.replace("-", "_")) for name in wanted} - ALLOWED - {"setuptools"} | {
        "services",
        "onnx",
    }
    rnn = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / "rnn").rglob("*.py"))
    mine = [".".join(path.parts) for path in rnn if path.name != "__init__"]
    code = (
        BLOCKED.replace("{blocked!r}", repr(blocked)) + "".join(f"import {name}\n" for name in mine) + "print('whole')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "whole", done.stderr[-2000:]
    assert "kafka" in blocked and "ray" in blocked and len(mine) > 15


def test_the_gpu_benchmark_runs_on_a_cpu() -> None:
    command = [sys.executable, "bench/gpu.py", "--device", "cpu", "--batches", "8", "64", "--rounds", "2"]
    env = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["streams"] for row in found["batches"]] == [8, 64]
    assert found["hidden"] == 128 and found["memory_gb_per_s"] > 0
    for row in found["batches"]:
        assert all(row[f"{name}_streams_per_s"] > 0 for name in ("engine", "step", "cell", "limit"))


def test_without_a_gpu_it_says_so() -> None:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "bench/gpu.py"], cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert "torch sees no GPU here" in done.stderr


@pytest.mark.usefixtures("path")
def test_a_backlog_is_counted_whole() -> None:
    from bench.engine import backlog

    found = backlog(streams=6, mean=3, rounds=1)
    assert 6 <= found["backlog_readings"] <= 6 * 5
    assert found["backlog_vs_single"] > 0
