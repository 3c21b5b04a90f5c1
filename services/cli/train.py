"""`streamrnn train`: a first model from a CSV file of the past."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def train(
    file: Annotated[Path, typer.Argument(help="CSV file: one reading a line, with a header.")],
    time_column: Annotated[str, typer.Option("--time", help="Column of the time: ms since 1970, or ISO 8601.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to save the model in.")],
    stream: Annotated[str | None, typer.Option(help="Column that names the stream; none: all one stream.")] = None,
    features: Annotated[str, typer.Option(help="Columns to learn, A,B,...; none: all numeric ones.")] = "",
    seed: Annotated[int, typer.Option(help="Equal seed, file and machine give equal weights.")] = 0,
) -> None:
    """Trains one LSTM on what sensors wrote, to be served with `streamrnn serve`.

    The latest tenth of the file is not learned from: it decides when to stop, and how good the model is said to be.
    Readings that are sent to be predicted must have the same features, in the order printed at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from rnn import weights
    from rnn.fit import Epoch, Recipe, default_config, fit
    from services.datasets.csv_file import WrongTable, read_csv

    console = Console()
    names = [name.strip() for name in features.split(",") if name.strip()]
    series = read_csv(file, time_column, stream, names)
    rows = sum(len(one) for one in series)
    config = default_config(series[0].features, min(one.interval_s for one in series))
    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def said(epoch: Epoch) -> None:
            skill = 1 - epoch.validation_mse / epoch.persistence_mse
            bar.update(
                task,
                description=f"epoch {epoch.epoch} of {epoch.epochs}, error {skill:.1%} below persistence",
                completed=epoch.epoch / epoch.epochs,
            )

        try:
            fitted = fit(config, [one.x for one in series], [one.at_ms for one in series], Recipe(seed=seed), said)
        except ValueError as error:
            raise WrongTable(f"{file}: {error}") from None
    first, last = min(int(one.at_ms[0]) for one in series), max(int(one.at_ms[-1]) for one in series)
    best = fitted.best
    card = weights.save(
        out,
        fitted.network,
        created_ms=time.time_ns() // 1_000_000,
        data=weights.DataRange(first, last, rows, series[0].digest),
        scores={"validation_mse": best.validation_mse, "persistence_mse": best.persistence_mse},
    )
    skill = 1 - best.validation_mse / best.persistence_mse
    for name, value in (
        ("model", f"{card.model} in {out}"),
        ("data", f"{rows:,} readings of {len(series)} streams"),
        ("error", f"{skill:.1%} below persistence on the latest tenth, which was not learned from"),
        ("features", ", ".join(config.features)),
        ("next", f"model: {out} in your settings, then streamrnn serve"),
    ):
        console.print(f"{name:<9} {value}", highlight=False, soft_wrap=True)
