"""docs/asyncapi.yaml is made of the code. What it says is another matter: tests/wire."""

from __future__ import annotations

from pathlib import Path

from services.wire import document, text


def test_the_document_of_the_topics_is_made_of_the_code(root: Path) -> None:
    assert (root / "docs" / "asyncapi.yaml").read_text() == text(document()), "run: make docs"
