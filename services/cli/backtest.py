"""`streamrnn backtest`: how good a model would have been on your own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.datasets.series import Series
    from services.settings.training import TrainingFile


TRAIN, TEST = 0.7, 0.2
"""Shares of each stream, from its beginning and from its end."""


def backtest(
    what: Annotated[
        str | None, typer.Argument(help="A CSV or Parquet file, or a name that `streamrnn datasets` lists.")
    ] = None,
    time_column: Annotated[str | None, typer.Option("--time", help="File: column of the time.")] = None,
    target: Annotated[str, typer.Option(help="Columns to predict, A,B,...; none: all.")] = "",
    stream: Annotated[
        str | None, typer.Option(help="File: column that names the stream; none: all one stream.")
    ] = None,
    train: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of each stream to train on.")] = TRAIN,
    test: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share at its end to run on.")] = TEST,
    config: Annotated[Path | None, typer.Option(help="YAML as of `streamrnn train`; none: the defaults.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Equal seed, data and machine give equal figures.")] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the model in this folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw truth, prediction and band into this PNG.")] = None,
    json_form: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Trains on the first part of a series, then runs the last part online, one reading at a time.

    The last part goes through the decoder, the state table, the engine and the encoder that serve. Errors are of the
    next reading, z-scored on the training part, beside persistence (the last reading) and ridge regression on the
    latest 8 readings of all channels. A value counts where it and the one before it are known.

    With --config any shape of network is tested, on what the file names under data: a set, or a file to train on and
    another to run on (data.test). The figures are those of its answers: accuracy and F1 of classes, perplexity of
    next symbols, exact matches of texts, errors of values.
    """
    import json
    import tempfile

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from rnn import weights
    from services.backtest.forecast import Plan
    from services.backtest.forecast import backtest as run
    from services.datasets.catalogue import DATA_SETS
    from services.datasets.table_sets import TABLE_SETS
    from services.settings.training import TrainingFile, training_file
    from services.tables.frame import WrongTable
    from services.tables.sets import only

    sections = TrainingFile() if config is None else training_file(config)
    if what is None and sections.data.set in DATA_SETS and _forecasts(sections):
        what = sections.data.set
    if what is None or not _forecasts(sections) or what in TABLE_SETS:
        shares = (train, test) != (TRAIN, TEST)
        given = {
            "--time": time_column,
            "--target": target,
            "--stream": stream,
            "--plot": plot,
            "--train/--test": shares,
        }
        if idle := [name for name, value in given.items() if value]:
            raise WrongTable(f"{idle[0]}: is for forecasts of the next reading; say it under data in {config}")
        return _of_file(_with_set(sections, what, config), seed, out, json_form)
    if out is not None:
        weights.place_for(out)
    data = sections.data
    only(data, ("set", "test_share", "time", "stream"))
    if test == TEST and data.test_share:
        test = data.test_share
    series = _series(what, time_column or data.time, stream or data.stream)
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


def _forecasts(file: TrainingFile) -> bool:
    """Whether it describes a network that says the next reading's values at each reading."""
    known = {"task": "many-to-many", "predicts": "next", "head": "gaussian"} | file.model
    symbolic = "vocabulary" in known or file.data.symbol or file.data.text
    plain = known["task"] == "many-to-many" and known["predicts"] == "next" and known["head"] != "categorical"
    return plain and not symbolic


def _with_set(file: TrainingFile, what: str | None, config: Path | None) -> TrainingFile:
    """The file with `what`, where it is named, as its data. Raises WrongTable where there is nothing to run on."""
    from services.datasets.catalogue import DATA_SETS
    from services.datasets.table_sets import TABLE_SETS
    from services.tables.frame import WrongTable

    if config is None:
        raise WrongTable(
            "name a series, or a file with --config" if what is None else
            f"{what}: sequences want a network, with --config FILE; examples/ has one for each"
        )  # fmt: skip
    if what is not None and what not in {**DATA_SETS, **TABLE_SETS}:
        raise WrongTable(f"{what}: {config} is of a network that does not forecast; name its tables there, data.file "
                         "to train on and data.test to run on")  # fmt: skip
    if what is None:
        return file
    data = file.data.model_copy(update={"set": what, "file": None, "test": None})
    return file.model_copy(update={"data": data})


def _of_file(plan: TrainingFile, seed: int | None, out: Path | None, json_form: bool) -> None:
    """Trains and runs what the file names."""
    import json
    import tempfile
    import time

    from rich.console import Console

    from services.backtest.sequences import figures
    from services.cli.train import train_model
    from services.tables.sets import material_of

    learned, held_back = material_of(plan.data, plan.model), material_of(plan.data, plan.model, test=True)
    with tempfile.TemporaryDirectory() as folder:
        where = out or Path(folder) / "model"
        began_s = time.perf_counter()
        card, _, readings = train_model(plan, learned, where, seed, None, Console(stderr=True))
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
    from services.tables.frame import WrongTable
    from services.tables.sets import series_in

    path = Path(what)
    if what in DATA_SETS and not path.exists():
        return series_of(what)
    if not path.exists():
        near = difflib.get_close_matches(what, DATA_SETS, 1)
        hint = f"did you mean the data set {near[0]!r}?" if near else f"data sets are {', '.join(DATA_SETS)}"
        raise WrongTable(f"{what}: no such file; {hint}")
    if time_column is None:
        raise WrongTable(f"{what}: name the column of the time with --time")
    return series_in(path, time_column, stream)
