"""Settings as text: the effective tree with the source of each value, and the JSON schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from services.redaction import masked
from services.settings.sources import Loaded
from services.settings.tree import Settings


def listed(loaded: Loaded) -> str:
    """The tree as YAML that can be read back (but for its secrets), each value followed by where it came from."""
    lines = ["# value  # default, file, env or flag"]
    if loaded.file:
        lines.append(f"# file: {loaded.file}")
    for name, value in loaded.settings.model_dump(mode="json").items():
        if isinstance(value, dict):
            lines.append(f"{name}:")
            lines += _aligned("  ", value, (name,), loaded.sources)
        else:
            lines += _aligned("", {name: value}, (), loaded.sources)
    return "\n".join(lines) + "\n"


def _aligned(
    indent: str, values: Mapping[str, Any], at: tuple[str, ...], sources: Mapping[tuple[str, ...], str]
) -> list[str]:
    lines = []
    for key, value in values.items():
        shown = yaml.safe_dump(masked(key, value), default_flow_style=True, width=1_000_000, allow_unicode=True)
        text = indent + f"{key}: " + shown.removesuffix("...\n").strip()
        lines.append(f"{text:<46}  # {sources.get((*at, key), 'default')}")
    return lines


def schema() -> str:
    """The JSON schema of a settings file; editors check files against it."""
    tree = Settings.model_json_schema()
    tree["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    tree["title"] = "streamrnn settings"
    return json.dumps(tree, indent=2) + "\n"
