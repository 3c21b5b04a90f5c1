"""`streamrnn predict`: what a model says of a table, offline, with the engine that serves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def predict(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: one reading a line, or one sequence with --text.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="Folder of the model.")],
    time_column: Annotated[str | None, typer.Option("--time", help="Column of the time: ms, or ISO 8601.")] = None,
    stream: Annotated[str | None, typer.Option(help="Column that names the stream; none: all one stream.")] = None,
    end: Annotated[str | None, typer.Option(help="Column that is 1 where a sequence ends.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Column of the symbol, for models that read symbols.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of symbols between blanks, a sequence a line.")] = None,
    config: Annotated[Path | None, typer.Option(help="Take the columns from section data of this YAML file.")] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="File.csv, .parquet or .pq; - is standard output.")] = "-",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
) -> None:
    """Predicts every reading of a file, with the very engine that serves: the same numbers, bit for bit.

    One line a prediction: values with their band, or a class with its probability, or a text; the score says how
    surprising the reading was, the flags what was unusual.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from rnn.io import weights
    from rnn.serve.build import engine_of
    from services.settings.training import DataSection, training_file
    from services.tables.predicting import predicted, write, write_csv
    from services.tables.table_dataset import material
    from services.tables.table_reader import WrongTable

    _check_out(file, out)
    if symbol and text:
        raise WrongTable("--symbol and --text: a row is one symbol or a whole sequence; give one of them")
    try:
        network, _ = weights.load(model)
    except weights.ModelRefused as error:
        raise WrongTable(f"--model: {error}") from None
    try:
        engine_of(network, 1, device)
    except (ValueError, RuntimeError, AssertionError, ImportError) as error:  # ours, or what torch lacks
        raise WrongTable(f"--device {device}: {str(error).splitlines()[0].removeprefix('device: ')}") from None
    data = DataSection() if config is None else training_file(config).data
    # Truths are not needed, and a table to predict has none.
    update: dict[str, Any] = {"label": None, "tags": None, "answer": None, "truth": (), "test": None, "file": file}
    if symbol or text:
        update |= {"symbol": None, "text": None}
    asked = {"time": time_column, "stream": stream, "end": end, "symbol": symbol, "text": text}
    data = data.model_copy(update=update | {name: value for name, value in asked.items() if value})
    known = network.config
    if not known.symbolic and (symbol or text):
        names = ", ".join(known.features[:12])
        raise WrongTable(f"{'--symbol' if symbol else '--text'}: the model reads numbers ({names}); leave it out")
    if not known.symbolic:
        data = data.model_copy(update={"features": known.features, "symbol": None, "text": None})
    elif data.symbol is None and data.text is None:
        raise WrongTable(f"{file}: the model reads symbols; name their column with --symbol, or --text")
    found = material(data, {"interval_s": known.interval_s}, file, known)
    console = Console(stderr=True)
    columns = (TextColumn("predicting"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=found.readings)

            def ran(done: int) -> None:
                bar.update(task, completed=done, description=f"{done:,} of {found.readings:,} readings")

            tables = predicted(network, found, device, ran)
            rows = write_csv(tables, sys.stdout.buffer) if out == "-" else write(tables, Path(out))
    except (ValueError, RuntimeError) as error:  # torch's, about memory
        raise WrongTable(str(error).splitlines()[0]) from None
    except KeyboardInterrupt:
        console.print("stopped" if out == "-" else f"stopped; {out} was not written", soft_wrap=True)
        raise
    if out != "-":
        console.print(f"{rows:,} predictions in {out}", highlight=False, soft_wrap=True)


def _check_out(file: Path, out: str) -> None:
    """Raises WrongTable for an ending that says another format than those that are written, and for `file` itself."""
    from services.tables.table_reader import PARQUET, WrongTable

    path = Path(out)
    if path.suffix not in ("", ".csv", *PARQUET):
        raise WrongTable(
            f"--out {out}: {path.suffix} is not written; end it in .csv, {' or '.join(PARQUET)}, or give -"
        )
    if path.is_file() and file.exists() and path.samefile(file):
        raise WrongTable(f"--out {out}: is the table to predict; name another file")
