"""Reference pages that are made of the code: `python -m services.cli.reference configuration|commands`.

docs/configuration.md is made of the tree of settings, docs/commands.md of the commands as Typer knows them; `make docs`
writes both, `make check` fails where they differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from typer.testing import CliRunner

from services.brokers import kafka_options
from services.cli.main import MOUNTED, _imported, app
from services.settings import ENV_PREFIX, Settings
from services.settings.problems import FREE, leaves

WIDTH = 100
_MADE = "Made of the code by `make docs`; `make check` fails when the two differ."


def configuration() -> str:
    """docs/configuration.md."""
    schema = Settings.model_json_schema()
    lines = [
        "# Configuration",
        "",
        "Every setting of `streamrnn.yaml`, with what it takes, its default and its meaning.",
    ]
    lines += [_MADE, "", *_HOW, ""]
    sections: dict[str, list[tuple[str, ...]]] = {"": []}
    for path in leaves():
        sections.setdefault(path[0] if len(path) > 1 else "", []).append(path)
    for section, paths in sections.items():
        if section:
            lines += ["", f"## {section}", "", _section(schema, section)["description"]]
        else:
            lines += ["## The pipeline"]
        lines += ["", "| setting | takes | default | meaning |", "|---|---|---|---|"]
        for path in paths:
            leaf = leaves()[path]
            told = (_section(schema, section) if section else schema)["properties"][path[-1]]
            default = "" if leaf.default in ("", {}) or path == ("kafka",) else f"`{_plain(leaf.default)}`"
            lines.append(f"| `{'.'.join(path)}` | {_cell(leaf.expected)} | {default} | {_cell(told['description'])} |")
    return "\n".join([*lines, *_kafka()]) + "\n"


_HOW = (
    "A setting is given in the file, in the environment or as a flag; the last of these wins:",
    "",
    "```yaml",
    "epoch:",
    "  max_readings: 5000",
    "```",
    "",
    "```sh",
    f"export {ENV_PREFIX}EPOCH__MAX_READINGS=5000",
    "streamrnn serve -c streamrnn.yaml --set epoch.max_readings=5000",
    "```",
    "",
    "`streamrnn config show` prints what is set and where it was given, `streamrnn config validate` checks a file",
    "without connecting to anything, and `streamrnn config schema` prints a JSON schema that editors complete from.",
)


def _section(schema: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][schema["properties"][name]["$ref"].rsplit("/", 1)[-1]]
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _kafka() -> Iterator[str]:
    yield from ("", f"## {FREE}", "", "The connection, by kafka-python's own names. Every client takes:", "")
    yield ", ".join(f"`{name}`" for name in kafka_options.CONNECTION) + "."
    yield from ("", "Consumers alone take:", "")
    yield ", ".join(f"`{name}`" for name in kafka_options.CONSUMER_ONLY) + "."
    yield from ("", "Producers alone take:", "")
    yield ", ".join(f"`{name}`" for name in kafka_options.PRODUCER_ONLY) + "."
    yield from ("", "Others cannot be set, because a promise hangs on them:", "", "| argument | why, and what to do |",
                "|---|---|")  # fmt: skip
    for name, why in kafka_options.KEPT.items():
        yield f"| `{name}` | {_cell(why)} |"


# ---- commands -------------------------------------------------------------------------------------------------------


def commands() -> str:
    """docs/commands.md."""
    lines = ["# Commands", "", "Every command of `streamrnn`, with the text of its `--help`.", _MADE, ""]
    lines += ["| command | |", "|---|---|"]
    lines += [f"| [`{name}`](#streamrnn-{name}) | {_cell(mounted.help)} |" for name, mounted in MOUNTED.items()]
    lines += ["", "```text", _help(), "```"]
    for name, mounted in MOUNTED.items():
        lines += _command(_imported(mounted), [name])
    return "\n".join(lines) + "\n"


def _command(command: Any, words: list[str]) -> Iterator[str]:
    yield from ("", f"{'#' * (1 + len(words))} streamrnn {' '.join(words)}", "", "```text", _help(*words), "```")
    for name, inner in getattr(command, "commands", {}).items():
        yield from _command(inner, [*words, name])


def _help(*words: str) -> str:
    """What a terminal shows that is `WIDTH` characters wide."""
    done = CliRunner().invoke(app, [*words, "--help"], prog_name="streamrnn", terminal_width=WIDTH, color=False)
    if done.exit_code:
        raise RuntimeError(f"streamrnn {' '.join(words)} --help: {done.output}")
    return "\n".join(line.replace("\b", "").rstrip() for line in done.stdout.strip().splitlines())


PAGES = {"configuration": configuration, "commands": commands}

if __name__ == "__main__":
    print(PAGES[sys.argv[1]](), end="")
