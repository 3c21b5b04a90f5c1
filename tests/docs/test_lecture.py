"""docs/lecture.md: every line of code that it points to is there, and its pictures show what it says they do."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
LECTURE = ROOT / "docs" / "lecture.md"
POINTED = re.findall(r"\[`([\w/]+\.py)::([\w.]+)`\]\(([^)]+)\)", LECTURE.read_text("utf-8"))


@pytest.fixture(scope="module")
def plots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lecture_plots", ROOT / "docs" / "lecture" / "plots.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lecture_plots"] = module
    spec.loader.exec_module(module)
    return module


def defined(path: Path) -> set[str]:
    """Functions and classes of a module, methods as Class.method."""
    names: set[str] = set()

    def walk(body: list[ast.stmt], before: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(before + node.name)
                if isinstance(node, ast.ClassDef):
                    walk(node.body, f"{before}{node.name}.")

    walk(ast.parse(path.read_text("utf-8")).body, "")
    return names


@pytest.mark.parametrize(("file", "name", "link"), POINTED, ids=[f"{file}::{name}" for file, name, _ in POINTED])
def test_what_the_lecture_points_to_is_there(file: str, name: str, link: str) -> None:
    assert (LECTURE.parent / link).resolve() == ROOT / file
    assert name in defined(ROOT / file)


def test_the_lecture_points_to_much_and_shows_three_pictures() -> None:
    assert len(POINTED) > 25
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", LECTURE.read_text("utf-8"))
    assert len(pictures) == 3
    for picture in pictures:
        content = (LECTURE.parent / picture).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) < 100_000


def test_gradients_vanish_in_the_order_that_is_drawn(plots: ModuleType) -> None:
    norms = {name: plots.gradient_norms(cell, length=40) for name, cell in plots.new_cells().items()}
    far = {name: float(norm[-1] / norm[0]) for name, norm in norms.items()}
    assert far["Elman, sigmoid"] < 1e-10
    assert far["Elman, tanh"] < 0.01 * far["LSTM"]
    assert far["LSTM, forget bias 0"] < far["LSTM"] < far["LSTM, chrono 200"]


def test_the_measured_norm_is_that_of_the_jacobian(plots: ModuleType) -> None:
    """Against the whole matrix, worked out element by element for one input."""
    torch.manual_seed(1)
    cell = plots.CELLS["elman"](3, 4)
    plots.LANES, lanes = 4000, plots.LANES
    try:
        norm = float(plots.gradient_norms(cell, length=1)[0])
        torch.manual_seed(0)
        xs = torch.randn(1, 4000, 3)[0]
    finally:
        plots.LANES = lanes
    squares = []
    for x in xs[:200]:
        jacobian = torch.autograd.functional.jacobian(
            lambda h, x=x: cell.recur(cell.project(x[None]), (h[None],))[0][0], torch.zeros(4)
        )
        squares.append(jacobian.square().sum())
    assert norm == pytest.approx(float(torch.stack(squares).mean().sqrt()), rel=0.1)


def test_a_window_as_long_as_the_series_gives_the_whole_gradient(plots: ModuleType) -> None:
    found = dict(zip(plots.WINDOWS, plots.windows_against_all("lstm", lag=5, steps=32), strict=True))
    assert found[32] == pytest.approx(1.0, abs=1e-5)
    assert found[1] < found[8] <= found[32] + 1e-5


@pytest.mark.parametrize("name", ["vanishing", "truncated"])
def test_pictures_are_drawn_anew(plots: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "LENGTH", 20)
    monkeypatch.setattr(plots, "WINDOWS", (1, 2))
    assert plots.draw(name, tmp_path).read_bytes().startswith(b"\x89PNG")
