"""Documents say what is true: metric names, commands, settings and links that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.main import MOUNTED
from services.cli.reference import PAGES
from services.settings.problems import FREE, leaves
from services.telemetry.metric_catalog import BY_NAME
from services.telemetry.metrics_page import document


@pytest.fixture(scope="module")
def documents(texts: dict[Path, str]) -> dict[Path, str]:
    return {path: text for path, text in texts.items() if path.suffix == ".md"}


def code(text: str) -> str:
    """What stands in code blocks and between back-ticks."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4,}\S.*$", text, re.MULTILINE)
    return "\n".join([*fenced, *indented, *re.findall(r"`([^`\n]+)`", text)])


def test_metrics_document_is_made_of_the_code(root: Path) -> None:
    assert (root / "docs" / "metrics.md").read_text() == document(), "run: make docs"


@pytest.mark.parametrize("page", PAGES)
def test_reference_pages_are_made_of_the_code(root: Path, page: str) -> None:
    assert (root / "docs" / f"{page}.md").read_text() == PAGES[page](), "run: make docs"


def test_metric_names_are_spelled_as_in_the_code(root: Path, texts: dict[Path, str]) -> None:
    """In documents, dashboards, rules, charts and code; `streamrnn_x_*` stands for all that begin so."""
    known = {series for metric in BY_NAME.values() for series in (*metric.series(), metric.name)}
    for path, text in texts.items():
        if path.is_relative_to(root / "tests"):
            continue
        for name, star in re.findall(r"\b(streamrnn_[a-z0-9_]+)(\*?)", text):
            right = any(one.startswith(name) for one in known) if star else name in known
            assert right, f"{path.relative_to(root)}: {name}; known names are in docs/metrics.md"


def test_commands_in_documents_exist(root: Path, documents: dict[Path, str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))
    for path, text in documents.items():
        if path == root / "docs" / "commands.md":
            continue  # made of the commands, and full of sentences
        for command in re.findall(r"(?:^|[\s|;&])streamrnn ([a-z]+)", code(text)):
            assert command in MOUNTED, f"{path.relative_to(root)}: streamrnn {command}"
        for target in re.findall(r"(?:^|[\s|;&])make ([a-z]+)", code(text)):
            assert target in targets, f"{path.relative_to(root)}: make {target}"


def test_settings_in_documents_exist(root: Path, documents: dict[Path, str]) -> None:
    known = {".".join(leaf) for leaf in leaves()}
    sections = {leaf[0] for leaf in leaves() if len(leaf) > 1}
    for path, text in documents.items():
        for section, key in re.findall(r"(?:`|--set )([a-z]+)\.([a-z_]+)\b(?!\()", text):
            if section in sections and key != "py" and section != FREE:
                assert f"{section}.{key}" in known, f"{path.relative_to(root)}: {section}.{key}"


def test_links_lead_somewhere(root: Path, documents: dict[Path, str]) -> None:
    for path, text in documents.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), f"{path.relative_to(root)}: {target}"
            if anchor and there.suffix == ".md":
                assert anchor in anchors(there.read_text()), f"{path.relative_to(root)}: {target}"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_changelog_has_this_version(root: Path) -> None:
    import tomllib

    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## {re.escape(version)}\b", (root / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_settings_have_no_value_that_the_listing_does_not_show() -> None:
    """`config show` is complete: a setting that is added is shown without further work."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", "config", "show"],
        capture_output=True,
        text=True,
        check=True,
    )
    for leaf in leaves():
        assert re.search(rf"^\s*{leaf[-1]}:", done.stdout, re.MULTILINE), leaf
