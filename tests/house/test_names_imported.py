"""What tests, benchmarks and documents import of ours exists, also in programs that stand in strings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

OURS = ("rnn", "services", "bench", "deploy")
PROGRAM = re.compile(rf"^\s*from ((?:{'|'.join(OURS)})[\w.]*) import ([\w, ]+)$", re.MULTILINE)
"""One line of a program; whole statements of a file are parsed."""


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that a module runs, whatever it asks first."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _top([*node.body, *node.orelse])


@cache
def names_of(module: Path) -> frozenset[str]:
    """What a file binds at its top level, or a folder holds."""
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    names = {path.stem for path in module.glob("*")} if module.is_dir() else set()
    for node in _top(ast.parse(file.read_text()).body) if file.exists() else ():
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                names.update((alias.asname or alias.name).partition(".")[0] for alias in imported)
            case ast.Assign() | ast.AnnAssign():
                names.update(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
    return frozenset(names)


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each import of ours."""
    text = path.read_text()
    programs = [text]
    if path.suffix == ".py":
        nodes = list(ast.walk(ast.parse(text)))
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
                yield from ((node.module, alias.name) for alias in node.names)
        programs = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    for module, names in (found for program in programs for found in PROGRAM.findall(program)):
        yield from ((module, name.split(" as ")[0].strip()) for name in names.split(","))


def missing(root: Path, module: str, name: str) -> bool:
    return name not in names_of(root.joinpath(*module.split(".")))


@pytest.mark.parametrize("folder", ["tests", "bench", "deploy", "docs", "examples"])
def test_imports_of_ours_exist(root: Path, folder: str) -> None:
    wrong = [
        f"{path.relative_to(root)}: {module} has no {name}"
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".py", ".md") and path != Path(__file__)
        for module, name in imported(path)
        if missing(root, module, name)
    ]
    assert not wrong, "\n".join(wrong)


def test_a_program_in_a_string_is_read(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    program = "import sys\nfrom rnn.config import ModelConfig, Nothing as N\n"
    file.write_text(f"PROGRAM = {program!r}\n")
    found = list(imported(file))
    assert found == [("rnn.config", "ModelConfig"), ("rnn.config", "Nothing")]
    assert [missing(root, *one) for one in found] == [False, True]
