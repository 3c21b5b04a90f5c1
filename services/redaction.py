"""What can hold a credential, and what is shown in its place. Imports the standard library only.

By its form: a URL's user, password, query and fragment, and what a flag of a command line is given. By its name, where
a library chose the names: kafka-python's settings. And by its value: what `remember` was told, whoever prints it.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

MASK = "***"
"""What stands where a secret would."""

LONGEST = 32_768
"""Letters of a message that are shown."""
LEAST = 6
"""A shorter secret is not looked for in texts: it would be found in every word."""

_SECRET = re.compile(r"passw|pwd|secret|token|credential|private_?key|api_?key|(^|_)auth($|_)", re.IGNORECASE)
_NOT_SECRET = re.compile(r"_(location|file|path|ms|s|class|url|endpoint)$", re.IGNORECASE)
_COMMON = ("sasl_plain_password", "ssl_password", "sasl_oauth_token_provider", "password", "secret", "token")

# Hazard: each pattern begins with something fixed and repeats only so often, or a long text takes time in its square.
_ASSIGNED = re.compile(
    r"""((?:passw|pwd|secret|token|credential|signature|api_?key|access_?key|authorization)\w{0,40}["']?\s{0,8}[=:]\s{0,8}"""
    r"""(?:bearer\s|basic\s)?)("[^"]*(?:"|$)|'[^']*(?:'|$)|[^\s,;)}\]&]+)""",
    re.IGNORECASE,
)
_USER = re.compile(r"""(?<=://)[^\s/"'<>]{1,1024}@""")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")
_HARMLESS = re.compile(r"[\d.:,\[\]]*|true|false|\$\w+|\$\{\w+\}", re.IGNORECASE)

_remembered: dict[str, None] = {}
_known: re.Pattern[str] | None = None


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
    return _shown(value) if isinstance(value, str) else value


def secrets_in(name: str, value: Any) -> Iterator[str]:
    """Whatever `masked` would replace in `value`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from secrets_in(str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secrets_in(name, inner)
    elif isinstance(value, str):
        if is_secret(name):
            yield value
        elif scheme := _SCHEME.match(value):
            yield from _of_url(value[scheme.end() :])
        elif value.lstrip().startswith("--"):
            yield from (given for _, given, shown in _flags(value) if given != shown)


def remember(values: Iterable[str]) -> None:
    """These are secrets of this process: `scrubbed` finds them wherever they stand."""
    global _known
    _remembered.update(dict.fromkeys(value for value in values if len(value) >= LEAST))
    longest_first = sorted(_remembered, key=len, reverse=True)
    _known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def scrubbed(text: str) -> str:
    """`text` without secrets: those remembered, what stands before the host of a URL, and what follows a secret's name
    and an equals sign or colon. Of a long text only the beginning.
    """
    letters, text = len(text), text[: 2 * LONGEST]  # a secret that the cut would halve is found first
    if _known is not None:
        text = _known.sub(MASK, text)
    if letters > LONGEST:
        text = f"{text[:LONGEST]} ... ({letters} letters)"
    return _ASSIGNED.sub(rf"\1{MASK}", _USER.sub(f"{MASK}@", text))


class Masked(dict[str, Any]):
    """A plain dict in all but its looks: `repr` and `str` show no secret."""

    def __repr__(self) -> str:
        return repr(masked("", self))

    __str__ = __repr__


def _shown(value: str) -> str:
    """A text by its form: a URL, flags, or neither."""
    if scheme := _SCHEME.match(value):
        user, at, query, mark, _ = _parts(value[scheme.end() :])
        rest = value[scheme.end() + len(user) + len(at) :].partition("?")[0].partition("#")[0]
        return (
            scheme[0] + (MASK + at if at else "") + rest + (f"?{MASK}" if query else "") + (mark + MASK if mark else "")
        )
    if value.lstrip().startswith("--"):
        return " ".join(name + shown for name, _, shown in _flags(value))
    return value


def _parts(rest: str) -> tuple[str, str, str, str, str]:
    """Of a URL behind its scheme: user with password, "@", query, "#", fragment. What stands before the last "@" of the
    path counts as the user: a password may hold a slash.
    """
    rest, mark, fragment = rest.partition("#")
    path, _, query = rest.partition("?")
    user, at, _ = path.rpartition("@")
    return user, at, query, mark, fragment


def _of_url(rest: str) -> Iterator[str]:
    user, _, query, _, fragment = _parts(rest)
    yield from (user, user.partition(":")[2], unquote(user.partition(":")[2]))
    for pair in (*query.split("&"), *fragment.split("&")):
        yield pair.partition("=")[2] or pair


def _flags(text: str) -> Iterator[tuple[str, str, str]]:
    """Of a command line, word by word: the flag's name, what it is given, and what of that may be shown."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that is not closed
        words = text.split()
    before = ""
    for word in words:
        name, equals, given = word.partition("=") if word.startswith("--") else ("", "", word)
        plain = not given or (_HARMLESS.fullmatch(given) is not None and not is_secret(name or before))
        yield name + equals, given, given if plain else MASK
        before = name
