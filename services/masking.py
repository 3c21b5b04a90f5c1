"""Which names hold secrets, and what is shown in their place. Imports the standard library only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
"""What stands where a secret would."""

_SECRET = re.compile(r"passw|pwd|secret|token|credential|private_?key|api_?key|(^|_)auth($|_)", re.IGNORECASE)
_NOT_SECRET = re.compile(r"_(location|file|path|ms|s|class|url|endpoint)$", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"""((?:\w*(?:passw|secret|token|credential)\w*)["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;)}\]]+)""", re.I
)
_COMMON = ("sasl_plain_password", "ssl_password", "sasl_oauth_token_provider", "password", "secret", "token")


def is_secret(name: str) -> bool:
    """True when a value under `name` must never be shown. Misspellings of the usual names count as well."""
    if _NOT_SECRET.search(name):
        return False
    return bool(_SECRET.search(name)) or bool(difflib.get_close_matches(name.lower(), _COMMON, n=1, cutoff=0.85))


def masked(name: str, value: Any) -> Any:
    """`value` as it may be shown: secrets replaced, also inside of mappings and sequences."""
    if value is not None and is_secret(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(name, inner) for inner in value]
    return value


def scrubbed(text: str) -> str:
    """`text` without what follows a secret's name and an equals sign or colon."""
    return _ASSIGNED.sub(rf"\1{MASK}", text)


class Masked(dict[str, Any]):
    """A plain dict in all but its looks: `repr` and `str` show no secret."""

    def __repr__(self) -> str:
        return repr(masked("", self))

    __str__ = __repr__
