"""`streamrnn train`: a model of any shape, from a table of the past."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rnn.course import Pass
    from services.settings.training import TrainingFile
    from services.tables.material import Material


def train(
    file: Annotated[Path | None, typer.Argument(help="CSV or Parquet file: one reading a line, with a header.")] = None,
    time_column: Annotated[str | None, typer.Option("--time", help="Column of the time: ms, or ISO 8601.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to save the model in.")] = None,
    stream: Annotated[str | None, typer.Option(help="Column that names the stream; none: all one stream.")] = None,
    features: Annotated[str, typer.Option(help="Columns to learn, A,B,...; none: all numeric ones.")] = "",
    config: Annotated[Path | None, typer.Option(help="YAML with sections model, data, recipe, out.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Equal seed, table and machine give equal weights.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on where a training that was cut off stood.")] = False,
) -> None:
    """Trains a network on what is known, to be served with `streamrnn serve`.

    Without --config: one LSTM beside a linear path, which forecasts the next reading of every stream. With it, any
    shape of the lecture: examples/ has a file for each. A part of the table is not learned from: it decides when to
    stop and how good the model is said to be. Beside the model lies its learning curve.
    """
    from rich.console import Console

    from services.tables.frame import WrongTable
    from services.tables.sets import material_of

    plan = _plan(config, file, time_column, out, stream, features)
    folder = plan.out
    if folder is None:
        raise WrongTable("name the folder of the model with --out, or `out` in the file")
    material = material_of(plan.data, plan.model)
    console = Console()
    card, learned, whole = train_model(plan, material, folder, seed, resume, Console(stderr=True))
    best = learned.best
    better = 1 - best.validation_loss / best.baseline_loss if best.baseline_loss else 0.0
    side = "below" if better >= 0 else "above"
    told = f"loss {best.validation_loss:.4g}, {abs(better):.1%} {side} knowing nothing, on what was not learned from"
    if best.accuracy is not None:
        told += f"; {best.accuracy:.1%} right"
    for name, value in (
        ("model", f"{card.model} in {folder}"),
        ("data", f"{whole:,} readings of {len(material.series)} streams"),
        ("error", told),
        ("reads", ", ".join(material.config.features[:12]) if not material.config.symbolic else
         f"symbols, {len(material.config.vocabulary)} known"),
        ("curve", str(folder / "learning-curve.png")),
        ("next", f"model: {folder} in your settings, then streamrnn serve"),
    ):  # fmt: skip
        console.print(f"{name:<9} {value}", highlight=False, soft_wrap=True)


def train_model(
    plan: TrainingFile, material: Material, folder: Path, seed: int | None, resume: bool | None, console: Any
) -> tuple[Any, Any, int]:
    """Trains, saves, draws the curve. Returns (card, Learned, readings). With `resume` None, where nobody could go on
    later, no checkpoint is kept. Raises WrongTable, OtherTraining, and before it trains ModelNotSaved.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from rnn import weights
    from rnn.checkpoint import OtherTraining
    from rnn.learn import learn
    from services.tables.frame import WrongTable
    from services.tables.recipes import recipe_of

    recipe = recipe_of(plan.recipe, material.config, material.readings, seed)
    folder = weights.place_for(folder)
    checkpoint = None if resume is None else _checkpoint(folder, resume, console)
    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def said(one: Pass) -> None:
            right = "" if one.accuracy is None else f", {one.accuracy:.1%} right"
            bar.update(
                task,
                description=f"pass {one.number} of {one.passes}, loss {one.validation_loss:.4g}{right}",
                completed=one.number / one.passes,
            )

        try:
            learned = learn(material.config, material.series, recipe, said, checkpoint, material.groups)
        except OtherTraining:
            raise
        except (ValueError, FloatingPointError) as error:
            raise WrongTable(f"{plan.data.file or plan.data.set}: {error}") from None
        except KeyboardInterrupt:
            if checkpoint is not None and checkpoint.exists():
                _say(console, f"stopped; --resume goes on from {checkpoint}")
            raise
    first = min(int(one.at_ms.min()) for one in material.series)
    last = max(int(one.at_ms.max()) for one in material.series)
    best = learned.best
    scores = {"validation_loss": best.validation_loss, "baseline_loss": best.baseline_loss}
    if best.accuracy is not None:
        scores["accuracy"] = best.accuracy
    data = weights.DataRange(first, last, material.readings, material.digest)
    card = weights.save(folder, learned.network, created_ms=_now_ms(), data=data, scores=scores)
    draw_curve(learned.epochs, bool(material.config.labels), folder / "learning-curve.png")
    return card, learned, material.readings


def _checkpoint(folder: Path, resume: bool, console: Any) -> Path:
    """Where training stands; nothing is there any more unless it is to go on. Says what is not as it may be thought."""
    path = folder.with_name(f".{folder.name}.checkpoint")
    if resume and not path.exists():
        _say(console, f"nothing to resume at {path}: training from the beginning")
    if not resume and path.exists():
        _say(console, f"training anew and deleting {path}; --resume would have gone on from it")
        path.unlink()
    return path


def _say(console: Any, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def draw_curve(passes: Any, nats: bool, path: Path) -> None:
    """Losses over the passes, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    number = [one.number for one in passes]
    axis.plot(number, [one.train_loss for one in passes], label="learned from")
    axis.plot(number, [one.validation_loss for one in passes], label="held back")
    axis.axhline(passes[-1].baseline_loss, color="gray", linewidth=0.8, linestyle="--", label="knowing nothing")
    best = [one for one in passes if one.kept][-1]
    axis.plot([best.number], [best.validation_loss], "o", color="black", label="kept")
    axis.set_xlabel("pass over the table")
    axis.set_ylabel("cross-entropy, nats" if nats else "mean squared error, scaled")
    axis.set_yscale("log")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plan(
    config: Path | None, file: Path | None, time_column: str | None, out: Path | None, stream: str | None, features: str
) -> TrainingFile:
    """The file, and what the command line says over it."""
    from services.settings.training import TrainingFile, training_file
    from services.tables.frame import WrongTable

    plan = TrainingFile() if config is None else training_file(config)
    if config is None and (file is None or time_column is None):
        raise WrongTable("name a table and its column of the time, --time COLUMN; or a file with --config")
    names = tuple(name.strip() for name in features.split(",") if name.strip())
    given = {"file": file, "time": time_column, "stream": stream, "features": names}
    update: dict[str, Any] = {name: value for name, value in given.items() if value}
    if file is not None:
        update["set"] = None  # the table named here instead of the data named there
    data = plan.data.model_copy(update=update)
    return plan.model_copy(update={"data": data, "out": out or plan.out})


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
