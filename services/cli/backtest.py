"""`streamrnn backtest`: how good a model would have been on your own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.datasets.series import Series


def backtest(
    what: Annotated[str | None, typer.Argument(help="A CSV file, or a name that `streamrnn datasets` lists.")] = None,
    time_column: Annotated[str | None, typer.Option("--time", help="CSV: column of the time.")] = None,
    target: Annotated[str, typer.Option(help="Columns to predict, A,B,...; none: all.")] = "",
    stream: Annotated[str | None, typer.Option(help="CSV: column that names the stream; none: all one stream.")] = None,
    train: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of each stream to train on.")] = 0.7,
    test: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share at its end to run on.")] = 0.2,
    config: Annotated[Path | None, typer.Option(help="YAML as of `streamrnn train`; none: the defaults.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seed, data and machine give equal figures.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Keep the model in this folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw truth, prediction and band into this PNG.")] = None,
    json_form: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Trains on the first part of a series, then runs the last part online, one reading at a time.

    The last part goes through the decoder, the state table, the engine and the encoder that serve. Errors are of the
    next reading, z-scored on the training part, beside persistence (the last reading) and ridge regression on the
    latest 8 readings of all channels. A value counts where it and the one before it are known.

    Without a series, --config names what to train on (data.file) and what to run on (data.test); so any shape of
    network can be tested, and the figures are those of its answers: accuracy and F1 of classes, perplexity of next
    symbols, exact matches of texts, errors of values.
    """
    if what is None:
        return _of_file(config, seed, out, json_form)
    import json
    import tempfile

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from services.backtest.forecast import Plan
    from services.backtest.forecast import backtest as run
    from services.datasets.csv_file import WrongTable
    from services.settings.training import TrainingFile, training_file

    sections = TrainingFile() if config is None else training_file(config)
    series = _series(what, time_column, stream)
    names = tuple(name.strip() for name in target.split(",") if name.strip())
    plan = Plan(train, test, names, sections.model or None, sections.recipe, seed)
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


def _of_file(config: Path | None, seed: int, out: Path | None, json_form: bool) -> None:
    """Trains and runs what the file names."""
    import json
    import tempfile
    import time

    from rich.console import Console

    from services.backtest.sequences import figures
    from services.cli.train import material_of, train_model
    from services.datasets.csv_file import WrongTable
    from services.settings.training import training_file

    if config is None:
        raise WrongTable("name a series, or a file with --config")
    plan = training_file(config)
    if plan.data.test is None and not plan.data.test_groups:
        raise WrongTable(f"{config}: name the table to run on as data.test")
    learned, held_back = material_of(plan), material_of(plan, test=True)
    with tempfile.TemporaryDirectory() as folder:
        where = out or Path(folder) / "model"
        began_s = time.perf_counter()
        card, _, readings = train_model(plan, learned, where, seed, False, Console(stderr=True))
        train_s = round(time.perf_counter() - began_s, 1)
        found = figures(where, held_back)
    extra = {"train_readings": readings, "train_seconds": train_s, "model": card.model}
    if json_form:
        typer.echo(json.dumps(found | extra))
        return
    console = Console()
    for name, value in (found | extra).items():
        shown = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        console.print(f"{name:<26} {shown}", highlight=False, soft_wrap=True)


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
