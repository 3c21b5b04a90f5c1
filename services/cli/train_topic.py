"""`streamrnn train --topic`: a model from a range of a topic's readings, in a run's folder with its report."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.trainer.making import Made, Parent
    from services.trainer.past import Past
    from services.trainer.ranges import Range


def train_topic(
    config: Path | None,
    topic: str | None,
    serve_config: Path | None,
    topical: dict[str, Any],
    tabular: dict[str, Any],
    features: str,
    seed: int | None,
    resume: bool,
    way: dict[str, Any],
    runs: Path | None,
    out: Path | None,
) -> None:
    """Reads, trains, reports, and says what came of it. Raises WrongRange, and all that making a model does."""
    from rich.console import Console

    from rnn import weights
    from services.cli.train import way_of
    from services.cli.training_bar import TrainingBar
    from services.settings.training import TrainingFile, training_file
    from services.tables.sets import only
    from services.trainer.making import Parent, make
    from services.trainer.ranges import WrongRange
    from services.trainer.taken import take

    if idle := [name for name, value in tabular.items() if value]:
        raise WrongRange(f"{idle[0]} is about a table, and --topic reads none: leave one of them out")
    if topical["--model"] is None and (idle := [name for name in ("--warm", "--again") if topical[name]]):
        raise WrongRange(f"{idle[0]} is about a model: name it with --model")
    asked_way = way_of(way, resume)
    plan = TrainingFile() if config is None else training_file(config)
    only(plan.data, ("features",))
    parent = None if topical["--model"] is None else Parent(*weights.load(topical["--model"]))
    if parent is not None and (plan.model or features):
        raise WrongRange("the model to come after says the shape and the features: leave out `model` and --features")
    names = tuple(name.strip() for name in features.split(",") if name.strip()) or plan.data.features
    folder = out or plan.out
    if folder is not None:
        folder = weights.place_for(folder)
    past = _past(topic, serve_config, topical, parent)
    wanted = _range(past, topical, parent)
    console = Console(stderr=True)
    with console.status(f"reading {wanted}"):
        taken = take(
            past, wanted, parent=None if parent is None else parent.card.config, features=names, model=plan.model
        )
    recipe, asked_seed, warm = dict(plan.recipe), seed, bool(topical["--warm"])
    if topical["--again"] and parent is not None:
        recipe, warm, before = _again(parent)
        asked_seed = seed if seed is not None else recipe.get("seed")
        parent = before
    where = runs or (folder.parent if folder is not None else Path()) / "runs"
    with TrainingBar(console) as bar:
        for note in taken.notes:
            bar.say(f"note: {note}")
        made = make(taken, where, asked_way, parent=parent, warm=warm, recipe=recipe, seed=asked_seed, ears=bar.ears())
    if folder is not None:
        _copy(made, folder)
    _tell(Console(), made, wanted, folder or made.run.model, parent)


def _past(topic: str | None, serve_config: Path | None, topical: dict[str, Any], parent: Parent | None) -> Past:
    from services.settings import load
    from services.trainer.past import Archived, InKafka
    from services.trainer.ranges import WrongRange

    flags = [] if topical["--bootstrap"] is None else [f"kafka.bootstrap_servers={topical['--bootstrap']}"]
    settings = load(serve_config, flags)
    source = None if parent is None or parent.card.data is None else parent.card.data.source
    if topic is None and serve_config is None and source is None:
        raise WrongRange("name the topic with --topic, or the pipeline's settings with --serve-config")
    if topic is None and topical["--again"] and source is not None:
        topic = source.topic
    name = topic or settings.topics.readings
    archive = topical["--archive"]
    return InKafka(settings.kafka, name) if archive is None else Archived(settings.kafka, name, archive)


def _range(past: Past, topical: dict[str, Any], parent: Parent | None) -> Range:
    from services.trainer.ranges import WrongRange, asked, resolve, same

    now_ms = time.time_ns() // 1_000_000
    edges = (topical["--from"], topical["--to"], topical["--last"])
    if not topical["--again"]:
        return resolve(past, asked(*edges), now_ms)
    if any(edges):
        raise WrongRange("--again takes the range that the model was trained on: leave out --from, --to and --last")
    assert parent is not None
    data = parent.card.data
    if data is None or data.source is None:
        raise WrongRange(
            f"model {parent.card.model} was not trained on a topic, so its card names no range: train it on its table"
        )
    return same(past, data.source.partitions)


def _again(parent: Parent) -> tuple[dict[str, Any], bool, Parent | None]:
    """The recipe of a model as it was carried out, and whether it began from other weights, which are not here."""
    from services.trainer.ranges import WrongRange

    recipe = dict(parent.card.recipe)
    if not recipe:
        raise WrongRange(f"the card of model {parent.card.model} names no recipe: it is of an older release")
    warm = recipe.pop("warm", False)
    for name in ("workers", "test_ms"):
        recipe.pop(name, None)
    if warm:
        raise WrongRange(
            f"model {parent.card.model} began from the weights of {parent.card.parent}: name that one with --model and "
            "--warm, and the range with --from and --to"
        )
    return recipe, False, None


def _copy(made: Made, folder: Path) -> None:
    """The run's model, once more in the folder that was named."""
    from rnn import weights
    from services.trainer.runs import CURVE, REPORT

    card = made.card
    weights.save(folder, made.learned.network, created_ms=card.created_ms, data=card.data, parent=card.parent,
                 scores=card.scores, recipe=card.recipe)  # fmt: skip
    for name in (REPORT, CURVE):
        shutil.copy(made.run.model / name, folder / name)


def _tell(console: Any, made: Made, wanted: Range, folder: Path, parent: Parent | None) -> None:
    told, rows = made.report, made.report["rows"]
    scores, rivals = told["scores"], told.get("rivals", {})
    lines = [
        ("model", f"{made.card.model} in {folder}"),
        ("data", f"{sum(rows.values()):,} readings of {told['source']['streams']} streams, {wanted}"),
        ("parts", f"{rows['train']:,} to learn from, {rows['validation']:,} to choose by, {rows['test']:,} to test on"),
    ]
    if scores.get("mse") is not None:
        named = {"persistence": "persistence", "ridge_var8": "ridge VAR(8)", "seasonal_naive": "seasonal naive",
                 "parent": "its parent"}  # fmt: skip
        beside = [f"{name} {rivals[key]:.4g}" for key, name in named.items() if rivals.get(key) is not None]
        lines.append(("error", f"MSE {scores['mse']:.4g} on the last part, z-scored; " + ", ".join(beside)))
    lines += [
        ("reads", ", ".join(made.card.config.features[:12])),
        ("run", f"{made.run.folder}: events.jsonl, learning-curve.png, report.json"),
        ("next", f"model: {folder} in your settings, then streamrnn serve"),
    ]
    for name, value in lines:
        console.print(f"{name:<9} {value}", highlight=False, soft_wrap=True)
