"""`streamrnn train`: a model of any shape from a table of the past; a topic's past goes to `train_topic`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.settings.training import TrainingFile
    from services.tables.table_dataset import TableDataset
    from services.trainer.training_run import TrainOptions


def train(
    file: Annotated[Path | None, typer.Argument(help="CSV or Parquet file: one reading a line, with a header.")] = None,
    time_column: Annotated[str | None, typer.Option("--time", help="Column of the time: ms, or ISO 8601.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to save the model in.")] = None,
    stream: Annotated[str | None, typer.Option(help="Column that names the stream; none: all one stream.")] = None,
    features: Annotated[str, typer.Option(help="Columns to learn, A,B,...; none: all numeric ones.")] = "",
    config: Annotated[Path | None, typer.Option(help="YAML with sections model, data, recipe, out.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Equal seed, table and machine give equal weights.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on where a training that was cut off stood.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes on Ray that share the work; 0, or none: this one.")
    ] = None,
    gpus: Annotated[bool, typer.Option(help="With --workers: a GPU for each.")] = False,
    limit_minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop after so long, without a model.")] = None,
    search: Annotated[float | None, typer.Option(min=0.01, help="Look for a better shape first: minutes.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Gets a folder of this run: log, curve, report, model.")] = None,
    topic: Annotated[str | None, typer.Option(help="Learn from a topic's readings instead of a table.")] = None,
    bootstrap: Annotated[str | None, typer.Option(help="Topic: HOST:PORT of Kafka.")] = None,
    serve_config: Annotated[
        Path | None, typer.Option(help="Topic: the pipeline's settings file; its readings topic unless --topic.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Topic: a time (ISO 8601, ms), an offset, or 0:1200,1:900.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Topic: the end, as --from; it is not in the range.")] = None,
    last: Annotated[str | None, typer.Option(help="Topic: the latest records (100000) or time (48h, 7d).")] = None,
    archive: Annotated[str | None, typer.Option(help="Topic: where `streamrnn archive` keeps what it lost.")] = None,
    model: Annotated[Path | None, typer.Option(help="Topic: the model to come after; gives the shape.")] = None,
    warm: Annotated[bool, typer.Option(help="With --model: begin from its weights.")] = False,
    again: Annotated[bool, typer.Option(help="With --model: the same range and recipe as it was trained on.")] = False,
    registry: Annotated[
        str | None, typer.Option(help="With --again: folder or URL that holds the parent of a model trained warm.")
    ] = None,
) -> None:
    """Trains a network on what is known, to be served with `streamrnn serve`.

    Without --config: one LSTM beside a linear path, which forecasts the next reading of every stream. With it, any
    shape of the lecture: examples/ has a file for each. A part of the table is not learned from: it decides when to
    stop and how good the model is said to be. Beside the model lies its learning curve.

    \b
    From a topic, with a last part that only tests and a report in runs/:
      streamrnn train --serve-config streamrnn.yaml --last 7d --model champion
      streamrnn train --topic sensors.readings --bootstrap HOST:9092 --from 2026-11-01
    """
    topical = {"--from": from_, "--to": to, "--last": last, "--archive": archive, "--model": model, "--warm": warm,
               "--again": again, "--registry": registry, "--bootstrap": bootstrap}  # fmt: skip
    way = {"workers": workers, "gpus": gpus, "limit_minutes": limit_minutes, "search_minutes": search}
    if topic is not None or serve_config is not None or again:
        from services.cli.train_topic import train_topic

        tabular = {"FILE": file, "--time": time_column, "--stream": stream}
        train_topic(config, topic, serve_config, topical, tabular, features, seed, resume, way, runs, out)
        return
    from rich.console import Console

    from services.tables.sets import material_of
    from services.tables.table_reader import WrongTable

    if idle := [name for name, value in topical.items() if value]:
        raise WrongTable(f"{idle[0]} is about a topic: name one with --topic or --serve-config")
    plan = _plan(config, file, time_column, out, stream, features)
    folder = plan.out
    if folder is None:
        raise WrongTable("name the folder of the model with --out, or `out` in the file")
    material = material_of(plan.data, plan.model)
    console = Console()
    card, learned, whole = train_model(plan, material, folder, seed, resume, Console(stderr=True), way, runs)
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
    plan: TrainingFile,
    material: TableDataset,
    folder: Path,
    seed: int | None,
    resume: bool | None,
    console: Any,
    way: dict[str, Any] | None = None,
    runs: Path | None = None,
) -> tuple[Any, Any, int]:
    """Trains, saves, draws the curve. Returns (card, Learned, readings). With `resume` None, where nobody could go on
    later, no checkpoint is kept. Raises WrongTable, CheckpointMismatch, OutOfTime, and before it trains ModelNotSaved.
    """
    from rnn.io import weights
    from services.cli.progress_bar import TrainingBar
    from services.tables.recipes import recipe_of
    from services.tables.table_reader import WrongTable
    from services.trainer.curve import draw_curve
    from services.trainer.runs import CURVE, REPORT, nothing_to_resume, open_run
    from services.trainer.search import search
    from services.trainer.training_run import learn_work
    from services.trainer.training_task import NotTrained, OutOfTime, TrainingTask, train

    recipe = recipe_of(plan.recipe, material.config, material.readings, seed)
    folder = weights.prepare_output_dir(folder)
    asked = way_of(way or {}, bool(resume))
    work = TrainingTask(material.config, material.series, None, recipe, material.groups)
    checkpoint = None if resume is None or asked.workers else _checkpoint(folder, resume, console)
    run = None
    with TrainingBar(console) as bar:
        try:
            if asked.search_s is not None:
                work, _ = search(work, asked.search_s, bar.tried)
            if asked.workers or runs is not None:
                told = {"recipe": asdict(work.recipe), "source": str(plan.data.file or plan.data.set)}
                run = open_run(runs or folder.parent / "runs", work.identity(), told, bool(resume))
                if resume and not run.resumed:
                    bar.say(nothing_to_resume(run.folder.parent, run))
                learned = learn_work(work, run, asked, bar.ears())
            else:
                learned = train(work, bar.passed, checkpoint, asked.limit_s)
        except OutOfTime:
            raise
        except NotTrained as error:
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
    card = weights.save(
        folder, learned.network, created_ms=_now_ms(), data=data, scores=scores, recipe=asdict(work.recipe)
    )
    draw_curve(learned.epochs, bool(material.config.labels), folder / CURVE)
    if run is not None:
        run.tell("trained", model=card.model)
        shutil.copy(folder / CURVE, run.folder / CURVE)
        curve = [asdict(one) for one in learned.epochs]
        run.write(REPORT, {"model": card.model, "folder": str(folder), "scores": scores, "curve": curve})
    return card, learned, material.readings


def way_of(given: dict[str, Any], resume: bool) -> TrainOptions:
    """How to train, as the command line says it. Raises WrongTable for what means nothing alone."""
    from services.tables.table_reader import WrongTable
    from services.trainer.training_run import TrainOptions

    def seconds(minutes: float | None) -> float | None:
        return None if minutes is None else 60 * minutes

    if given.get("gpus") and not given.get("workers"):
        raise WrongTable("--gpus gives each worker a GPU: say how many with --workers")
    limit_s, search_s = seconds(given.get("limit_minutes")), seconds(given.get("search_minutes"))
    return TrainOptions(
        given.get("workers") or 0, given.get("gpus", False), limit_s=limit_s, search_s=search_s, resume=resume
    )


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


def _plan(
    config: Path | None, file: Path | None, time_column: str | None, out: Path | None, stream: str | None, features: str
) -> TrainingFile:
    """The file, and what the command line says over it."""
    from services.settings.training import TrainingFile, training_file
    from services.tables.table_reader import WrongTable

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
