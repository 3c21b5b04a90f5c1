"""What can be wrong with settings, in sentences that name the key, where it was given, and the fix.

No value of a secret key, of an unknown key or of `kafka` is ever quoted.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from services.redaction import MASK, is_secret, masked
from services.settings.tree import Settings

FREE = "kafka"
"""The one section whose keys are not in the tree: they are kafka-python's."""

_KAFKA_KEYS = (
    "bootstrap_servers",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "request_timeout_ms",
)
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "keys and values",
}

Path = tuple[str, ...]


class WrongSettings(Exception):
    """Remedy: a person edits the settings. The message has one line for each thing to change, and shows no secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting that is not a section."""

    path: Path
    expected: str
    default: Any


def leaves() -> dict[Path, Leaf]:
    """Every setting of the tree by its path; `kafka` is one leaf."""
    schema = Settings.model_json_schema()
    found: dict[Path, Leaf] = {}
    for name, entry in schema["properties"].items():
        section = _section(schema, entry)
        for key, inner in ({"": entry} if section is None else section).items():
            path: Path = (name, key) if key else (name,)
            found[path] = Leaf(
                path, "a section of kafka-python's settings" if name == FREE else _expected(inner), inner.get("default")
            )
    return found


def _section(schema: Mapping[str, Any], entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    reference = entry.get("$ref")
    return schema["$defs"][reference.rsplit("/", 1)[-1]]["properties"] if reference else None


def _expected(entry: Mapping[str, Any]) -> str:
    """A field's JSON schema in words."""
    if "anyOf" in entry:
        return " or ".join(_expected(choice) for choice in entry["anyOf"])
    if "enum" in entry:
        return "one of " + ", ".join(map(str, entry["enum"]))
    if entry.get("type") == "array":
        return f"a list of at most {entry['maxItems']} names"
    words = _TYPES.get(entry.get("type", ""), "text")
    low = entry.get("minimum")
    high = entry.get("maximum")
    if "exclusiveMinimum" in entry:
        words += f" above {entry['exclusiveMinimum']:g}"
    if low is not None:
        words += f" of at least {low:g}" if high is None else f" from {low:.10g} to {high:.10g}"
    if "pattern" in entry:
        words += ": lower-case letters, digits and hyphens, at most 63 of them, not beginning or ending with a hyphen"
    if "maxLength" in entry:
        words += f" of at most {entry['maxLength']} characters"
    return words


def unknown(path: Path, origin: str) -> str:
    """The sentence about a key that does not exist; names the nearest that does."""
    asked = ".".join(path)
    if path[0] == FREE:
        asked = ".".join(path[:2])
        return f"{asked}: has no keys below it ({origin}); {FREE} holds kafka-python's settings by their own names"
    known = [".".join(leaf) for leaf in leaves()]
    sections = sorted({name.split(".")[0] for name in known})
    inside = sorted(name.split(".")[1] for name in known if name.startswith(path[0] + "."))
    near = _nearest(asked, [*known, *(f"{FREE}.{key}" for key in _KAFKA_KEYS), *({*sections} - {path[0]})])
    if near:
        hint = f"did you mean {near}?"
    elif inside:
        hint = f"{path[0]} has: {', '.join(inside)}"
    else:
        hint = f"the first words are: {', '.join(sections)}"
    return f"{asked}: no such setting ({origin}); {hint}"


def _nearest(asked: str, known: Sequence[str]) -> str:
    """The known name that looks most like `asked`, as a whole or by its last word; empty when none does."""

    def likeness(name: str) -> float:
        last = difflib.SequenceMatcher(None, asked.rsplit(".")[-1], name.rsplit(".")[-1]).ratio()
        return max(difflib.SequenceMatcher(None, asked, name).ratio(), 0.98 * last)

    best = max(sorted(known), key=likeness)
    return best if likeness(best) >= 0.7 else ""


def explained(error: ValidationError, given: Mapping[str, Any], origin_of: Mapping[Path, str]) -> list[str]:
    """One sentence for each thing that pydantic refused. `origin_of` says where each path was given."""
    tree, said = leaves(), {}
    for detail in error.errors(include_url=False):
        path = _known_part(tuple(map(str, detail["loc"])), tree)
        if path not in said:
            said[path] = _sentence(path, detail, tree.get(path), given, _origin(path, origin_of))
    return list(said.values())


def _known_part(loc: Path, tree: Mapping[Path, Leaf]) -> Path:
    """`loc` without what pydantic adds for unions."""
    return next((loc[:n] for n in (2, 1) if loc[:n] in tree), loc)


def _origin(path: Path, origin_of: Mapping[Path, str]) -> str:
    return next((origin for given, origin in origin_of.items() if given[: len(path)] == path), "default")


def _sentence(path: Path, detail: ErrorDetails, leaf: Leaf | None, given: Mapping[str, Any], origin: str) -> str:
    if detail["type"] == "extra_forbidden":
        return unknown(path, origin)
    own_words = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else ""
    if not path:
        return own_words or detail["msg"]
    name = ".".join(path)
    if leaf is None:
        keys = ", ".join(known[1] for known in leaves() if known[0] == path[0] and len(known) > 1)
        return f"{name}: must be a section with keys of its own ({origin}): {keys}"
    advice = "" if leaf.default in (None, "") else f"; leave it out for {leaf.default}"
    return f"{name}: {_quoted(path, given)} is not {own_words or leaf.expected} ({origin}){advice}"


def _quoted(path: Path, given: Mapping[str, Any]) -> str:
    value: Any = given
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if path[0] == FREE or any(map(is_secret, path)):
        return MASK
    text = repr(masked(path[-1], value))
    return text if len(text) <= 80 else text[:77] + "..."
