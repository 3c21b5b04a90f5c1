"""`streamrnn config show|schema|validate`: what is set, what can be set, whether it is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Show, explain or validate the settings.")

Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set epoch.max_readings=5000.")]


@app.command()
def show(config: Config = None, set_: Set = None) -> None:
    """Prints all settings and where each was given. Secrets are masked.

    A flag (--set section.key=value) wins over the environment (STREAMRNN__SECTION__KEY=value), the environment over the
    file, the file over the default.
    """
    from services.settings import listed, read

    typer.echo(listed(read(config, set_ or [])), nl=False)


@app.command()
def schema() -> None:
    """Prints the JSON schema of a settings file.

    It names every key with its type, unit, default and meaning; editors check and complete files with it.
    """
    from services.settings import schema

    typer.echo(schema(), nl=False)


@app.command()
def validate(config: Config = None, set_: Set = None) -> None:
    """Checks the settings, connecting to nothing. Exit code 0: right; 2: wrong, with a line for each problem."""
    from services.settings import read

    read(config, set_ or [])
    typer.echo(f"{config or 'settings'}: right")
