"""House habits that a program can check: names, sizes, docstrings, and traps of this layout."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

FORBIDDEN = {"manager", "handler", "processor", "helper", "helpers", "util", "utils", "base", "misc"}
MAX_LINES = 330
LIBRARIES = {"kafka", "ray", "torch", "numpy", "yaml", "rich", "typer", "prometheus_client", "structlog", "pyarrow"}
TOLD = {"codecs", "io"}  # named by the design; reached as services.codecs and rnn.io only


def words(name: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


def test_names_say_what_a_thing_does(root: Path, modules: list[Path]) -> None:
    for path in modules:
        named = [path.stem] + [
            node.name
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for name in named:
            assert not words(name) & FORBIDDEN, f"{path.relative_to(root)}: {name}"


def test_the_name_of_a_class_stands_for_one_thing(root: Path, modules: list[Path]) -> None:
    """Also where two rooms never meet: whoever searches for a name finds one class."""
    places: dict[str, list[str]] = {}
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(root)}:{node.lineno}")
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_every_module_says_what_lives_there(root: Path, modules: list[Path]) -> None:
    for path in modules:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{path.relative_to(root)} has no docstring"


def test_modules_stay_within_a_few_screens(root: Path, modules: list[Path]) -> None:
    long = {
        str(path.relative_to(root)): n
        for path in modules
        if (n := len(path.read_text("utf-8").splitlines())) > MAX_LINES
    }
    assert not long


def test_no_module_hides_a_library(root: Path, modules: list[Path]) -> None:
    for path in modules:
        name = path.parent.name if path.stem == "__init__" else path.stem
        assert name not in (sys.stdlib_module_names | LIBRARIES) - TOLD, path.relative_to(root)


def test_tests_are_no_package(root: Path) -> None:
    """An __init__.py under tests/ would hijack `import rnn`, since tests/rnn exists."""
    assert not list((root / "tests").rglob("__init__.py"))


def test_every_package_folder_is_a_package(root: Path, modules: list[Path]) -> None:
    """A folder without __init__.py would be missing from the wheel."""
    for folder in {path.parent for path in modules}:
        assert (folder / "__init__.py").exists(), f"{folder.relative_to(root)} has no __init__.py"


def test_no_path_of_somebodys_machine(root: Path, texts: dict[Path, str]) -> None:
    place = re.compile(r"(?<![\w.:$}/-])/(?:root|home|Users|work)/\w+")
    for path, text in texts.items():
        assert not (found := place.search(text)), f"{path.relative_to(root)}: {found.group()}"
