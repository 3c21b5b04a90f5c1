"""docs/training.md names every key that a training file may have, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from rnn.config import ModelConfig
from rnn.train.practice import Practice
from services.settings.training import DataSection

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
SECTIONS = {
    "data": set(DataSection.model_fields),
    "model": {field.name for field in fields(ModelConfig)},
    "recipe": {field.name for field in fields(Practice)},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_explained(section: str) -> None:
    _, _, rest = PAGE.partition(f"## Section `{section}`")
    text = rest.partition("\n## ")[0]
    named = {name for row in re.findall(r"^\|([^|]*)\|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == SECTIONS[section]
