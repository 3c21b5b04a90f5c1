"""`streamrnn backtest`: how good a model would have been on your own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from services.datasets.series import Series
    from services.settings.training import TrainingFile


TRAIN, TEST = 0.7, 0.2
"""Shares of each stream, from its beginning and from its end."""
BUDGET = 1.0
MEMORY = 2000


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
    label: Annotated[
        str | None, typer.Option(help="File: column with 1 where a reading is anomalous; judges alarms, nothing else.")
    ] = None,
    budget: Annotated[
        float, typer.Option(min=0.001, max=500, help="With --label: readings in alarm of 1,000 normal ones.")
    ] = BUDGET,
    adapt: Annotated[
        int, typer.Option(min=0, help="Correct forecasts by so many directions of the hidden state; try 8. 0: not.")
    ] = 0,
    adapt_memory: Annotated[int, typer.Option(min=10, help="With --adapt: readings that it looks back.")] = MEMORY,
    ignore: Annotated[str, typer.Option(help="File: columns that are not read, A,B,...")] = "",
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

    With --label alarms are judged, too, pointwise and as Numenta's benchmark does it: docs/anomalies.md.

    With --adapt the last part runs twice, with a correction that learns within each stream and without it:
    docs/adaptation.md.

    With --config any shape of network is tested, on what the file names under data: a set, or a file to train on and
    another to run on (data.test). The figures are those of its answers: accuracy and F1 of classes, perplexity of
    next symbols, exact matches of texts, errors of values.
    """
    import json
    import tempfile

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from rnn.io import weights
    from rnn.serve.adapt import Adaptation
    from services.backtest.forecast import BacktestPlan, NothingToTest
    from services.backtest.forecast import backtest as run
    from services.datasets.catalogue import DATA_SETS
    from services.datasets.table_sets import TABLE_SETS
    from services.settings.training import TrainingFile, training_file
    from services.tables.sets import only
    from services.tables.table_reader import WrongTable

    sections = TrainingFile() if config is None else training_file(config)
    if what is None and sections.data.set in DATA_SETS and _forecasts(sections):
        what = sections.data.set
    if what is None or not _forecasts(sections) or what in TABLE_SETS:
        shares = (train, test) != (TRAIN, TEST)
        given = {
            "--time": time_column,
            "--target": target,
            "--stream": stream,
            "--label": label,
            "--budget": budget != BUDGET,
            "--adapt": adapt,
            "--ignore": ignore,
            "--plot": plot,
            "--train/--test": shares,
        }
        if idle := [name for name, value in given.items() if value]:
            raise WrongTable(f"{idle[0]}: is for forecasts of the next reading; say it under data in {config}")
        return _of_file(_with_set(sections, what, config), seed, out, json_form)
    if out is not None:
        weights.prepare_output_dir(out)
    data = sections.data
    only(data, ("set", "test_share", "time", "stream"))
    if test == TEST and data.test_share:
        test = data.test_share
    if budget != BUDGET and label is None:
        raise WrongTable(
            "--budget: is one of false alarms; name the column that tells them from true ones with --label"
        )
    series, labels = _series(what, time_column or data.time, stream or data.stream, label, _names(ignore))
    names = _names(target)
    if label is not None and label in names:
        raise WrongTable(f"--target: {label!r} is the label, which is not forecast")
    if adapt and label is not None:
        raise WrongTable(
            "--adapt: alarms are calibrated on the scores of unadapted forecasts; leave out --adapt or --label"
        )
    if adapt_memory != MEMORY and not adapt:
        raise WrongTable("--adapt-memory: is of a correction; ask for one with --adapt 8")
    adaptation = Adaptation(adapt, adapt_memory) if adapt else None
    plan = BacktestPlan(train, test, names, sections.model or None, sections.recipe, seed, budget, adaptation)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console, transient=True) as bar:
        training, running = bar.add_task("training", total=1.0), bar.add_task("running online", total=1.0)
        calibrating = bar.add_task("calibrating alarms", total=1.0, visible=labels is not None)
        try:
            figures, runs = run(
                series,
                plan,
                out or Path(folder) / "model",
                lambda epoch: bar.update(training, completed=epoch.epoch / epoch.epochs),
                lambda done, of: bar.update(running, completed=done / of),
                labels,
                lambda done, of: bar.update(calibrating, completed=done / of),
            )
        except NothingToTest as error:
            raise WrongTable(f"{what}: {error}") from None
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
        if labels is not None:
            _show_alarms(figures, budget)


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


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
    from services.tables.table_reader import WrongTable

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
    if "unadapted_mse" in figures:
        console.print(f"without adaptation: mse {figures['unadapted_mse']:.4f}, mae {figures['unadapted_mae']:.4f}")
    console.print(
        f"{figures['readings']:,} readings held back; model {figures['model']} learned from "
        f"{figures['train_readings']:,} in {figures['train_seconds']} s",
        highlight=False,
    )


def _show_alarms(figures: dict[str, Any], budget: float) -> None:
    from rich.console import Console

    def shown(name: str, form: str) -> str:
        return "-" if figures[name] is None else format(figures[name], form)

    Console().print(
        f"alarms at a budget of {budget:g} in 1,000: {shown('alarms_per_1000', '.4g')} in 1,000 normal readings, "
        f"{figures['detections']} labelled ranges found; of readings precision {shown('precision', '.1%')}, recall "
        f"{shown('recall', '.1%')}, F1 {shown('f1', '.3f')}; NAB score {shown('nab_score', '.1f')}",
        highlight=False,
    )  # fmt: skip


def _series(
    what: str, time_column: str | None, stream: str | None, label: str | None, ignored: tuple[str, ...]
) -> tuple[list[Series], list[NDArray[np.bool_]] | None]:
    import difflib

    from services.datasets.catalogue import DATA_SETS, series_of
    from services.tables.sets import labelled_series_in
    from services.tables.table_reader import WrongTable

    path = Path(what)
    if what in DATA_SETS and not path.exists():
        if label or ignored:
            raise WrongTable(f"{'--label' if label else '--ignore'}: is for a file; {what} has no such column")
        return series_of(what), None
    if not path.exists():
        near = difflib.get_close_matches(what, DATA_SETS, 1)
        hint = f"did you mean the data set {near[0]!r}?" if near else f"data sets are {', '.join(DATA_SETS)}"
        raise WrongTable(f"{what}: no such file; {hint}")
    if time_column is None:
        raise WrongTable(f"{what}: name the column of the time with --time")
    return labelled_series_in(path, time_column, stream, label, ignored)
