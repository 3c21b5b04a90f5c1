"""`streamrnn doctor`: what is wrong here, and how to put it right."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from typing import Annotated

import typer

MARKS = {"ok": "green", "warn": "yellow", "fail": "red", "unknown": "blue"}
INDENT = 20


def doctor(
    config: Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set pipeline=pumps.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    limit: Annotated[float, typer.Option(min=0.1, help="Seconds that one check may take.")] = 20.0,
) -> None:
    """Looks at this machine, Ray, Kafka, the topics and the models, and says what to put right. Changes nothing.

    \b
    ok: as it should be. warn: worth a look. fail: `serve` would not start, or a promise would be broken.
    unknown: it could not be seen, and the line says why.
    Exit codes: 0 nothing fails, 1 something does (with --strict: or warns), 2 the settings are wrong.
    """
    from services.doctor import CheckResult, Target, examined
    from services.settings import WrongSettings, load

    lines: list[CheckResult] = []
    settings = None
    try:
        settings = load(config, set_ or [])
        lines.append(CheckResult("settings", "ok", f"{config or 'defaults and environment'}: right"))
    except WrongSettings as error:
        lines += [
            CheckResult("settings", "fail", problem, "Correct it; `streamrnn config schema` has every setting.")
            for problem in error.problems
        ]
    if not json_:
        for line in lines:
            _print(line)
    if settings is not None:
        for line in examined(Target(settings, limit)):
            lines.append(line)
            if not json_:
                _print(line)
    counts = Counter(line.level for line in lines)
    failed = counts["fail"] > 0 or (strict and counts["warn"] > 0)
    code = 2 if settings is None else int(failed)
    if json_:
        tree = {
            "ok": not failed,
            "counts": {level: counts[level] for level in MARKS},  # type: ignore[index]
            "lines": [{"check": one.check, "level": one.level, "said": one.said, "fix": one.fix} for one in lines],
        }
        typer.echo(json.dumps(tree, indent=2))
    else:
        typer.echo(", ".join(f"{n} {level}" for level in MARKS if (n := counts[level])))  # type: ignore[index]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a check that hangs in a library must not keep the command from ending


def _print(line: object) -> None:
    from services.doctor import CheckResult

    assert isinstance(line, CheckResult)
    typer.echo(f"{typer.style(f'{line.level:>7}', fg=MARKS[line.level])}  {line.check:<10} {line.said}")
    if line.fix and line.level != "ok":
        typer.echo(f"{'':{INDENT}} {line.fix}")
