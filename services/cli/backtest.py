"""`streamrnn backtest`: how good a model would have been on your own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.datasets.series import Series


def backtest(
    what: Annotated[str, typer.Argument(help="A CSV file, or a name that `streamrnn datasets` lists.")],
    time_column: Annotated[str | None, typer.Option("--time", help="CSV: column of the time.")] = None,
    target: Annotated[str, typer.Option(help="Columns to predict, A,B,...; none: all.")] = "",
    stream: Annotated[str | None, typer.Option(help="CSV: column that names the stream; none: all one stream.")] = None,
    train: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of each stream to train on.")] = 0.7,
    test: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share at its end to run on.")] = 0.2,
    config: Annotated[
        Path | None, typer.Option(help="YAML with sections model and recipe; none: the defaults.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seed, data and machine give equal figures.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Keep the model in this folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw truth, prediction and band into this PNG.")] = None,
    json_form: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Trains on the first part of a series, then runs the last part online, one reading at a time.

    The last part goes through the decoder, the state table, the engine and the encoder that serve. Errors are of the
    next reading, z-scored on the training part, beside persistence (the last reading) and ridge regression on the
    latest 8 readings of all channels. A value counts where it and the one before it are known.
    """
    import json
    import tempfile

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from services.backtest.forecast import Plan
    from services.backtest.forecast import backtest as run
    from services.datasets.csv_file import WrongTable

    sections = _sections(config)
    series = _series(what, time_column, stream)
    names = tuple(name.strip() for name in target.split(",") if name.strip())
    plan = Plan(train, test, names, sections.get("model"), sections.get("recipe"), seed)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console, transient=True) as bar:
        training, running = bar.add_task("training", total=1.0), bar.add_task("running online", total=1.0)
        try:
            figures, runs = run(
                series,
                plan,
                out or Path(folder) / "model",
                lambda epoch: bar.update(training, completed=epoch.epoch / epoch.epochs),
                lambda done, of: bar.update(running, completed=done / of),
            )
        except (ValueError, TypeError) as error:  # what fit says of the data, or ModelConfig and Recipe of the file
            raise WrongTable(f"{config or what}: {error}") from None
    if plot is not None:
        from services.backtest.picture import draw

        targets = figures["targets"]
        assert isinstance(targets, dict)
        draw(runs[0], list(targets), plot)
    if json_form:
        typer.echo(json.dumps(figures))
    else:
        _show(figures)


def _show(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("target", "mse", "mae", "persistence mse", "ridge VAR(8) mse", "80 % band held", box=None)
    for name, one in [*figures["targets"].items(), ("all", figures)]:
        coverage = "-" if one["coverage_80"] is None else f"{one['coverage_80']:.1%}"
        numbers = (one["mse"], one["mae"], one["persistence_mse"], one["ridge_var8_mse"])
        table.add_row(name, *("-" if number is None else f"{number:.4f}" for number in numbers), coverage)
    console = Console(width=max(100, Console().width))
    console.print(table)
    console.print(
        f"{figures['readings']:,} readings held back; model {figures['model']} learned from "
        f"{figures['train_readings']:,} in {figures['train_seconds']} s",
        highlight=False,
    )


def _sections(config: Path | None) -> dict[str, Any]:
    """Sections of the file, none where there is no file. Raises WrongTable."""
    if config is None:
        return {}
    import yaml

    from services.datasets.csv_file import WrongTable

    try:
        tree = yaml.safe_load(config.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise WrongTable(f"{config}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise WrongTable(f"{config}: wants sections `model` and `recipe`")
    return tree


def _series(what: str, time_column: str | None, stream: str | None) -> list[Series]:
    import difflib

    from services.datasets.catalogue import DATA_SETS, series_of
    from services.datasets.csv_file import WrongTable, read_csv

    path = Path(what)
    if what in DATA_SETS and not path.exists():
        return [series_of(what)]
    if not path.exists():
        near = difflib.get_close_matches(what, DATA_SETS, 1)
        hint = f"did you mean the data set {near[0]!r}?" if near else f"data sets are {', '.join(DATA_SETS)}"
        raise WrongTable(f"{what}: no such file; {hint}")
    if time_column is None:
        raise WrongTable(f"{what}: name the column of the time with --time")
    return read_csv(path, time_column, stream)
