"""`streamrnn train --topic`: a model from a range of a topic's readings, in a run's folder with its report."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.settings import Settings
    from services.trainer.ranges import Range
    from services.trainer.topic_dataset import TopicDataset
    from services.trainer.topic_readers import TopicReader
    from services.trainer.training_run import Parent, TrainedModel


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

    from rnn.io import weights
    from services.cli.progress_bar import TrainingBar
    from services.cli.train import way_of
    from services.settings import load
    from services.settings.training import TrainingFile, training_file
    from services.tables.sets import only
    from services.trainer.ranges import WrongRange
    from services.trainer.topic_dataset import take
    from services.trainer.training_run import Parent, make

    if idle := [name for name, value in tabular.items() if value]:
        raise WrongRange(f"{idle[0]} is about a table, and --topic reads none: leave one of them out")
    if topical["--model"] is None and (idle := [name for name in ("--warm", "--again") if topical[name]]):
        raise WrongRange(f"{idle[0]} is about a model: name it with --model")
    if topical["--registry"] is not None and not topical["--again"]:
        raise WrongRange("--registry says where the parent of a model lies that --again makes once more: leave it out")
    asked_way = way_of({**way, "gpus": False} if topical["--again"] else way, resume)
    plan = TrainingFile() if config is None else training_file(config)
    only(plan.data, ("features",))
    parent = None if topical["--model"] is None else Parent(*weights.load(topical["--model"]))
    if parent is not None and (plan.model or features):
        raise WrongRange("the model to come after says the shape and the features: leave out `model` and --features")
    names = tuple(name.strip() for name in features.split(",") if name.strip()) or plan.data.features
    folder = out or plan.out
    if folder is not None:
        folder = weights.prepare_output_dir(folder)
    flags = [] if topical["--bootstrap"] is None else [f"kafka.bootstrap_servers={topical['--bootstrap']}"]
    settings = load(serve_config, flags)
    past = _past(settings, topic, serve_config, topical, parent)
    recipe, asked_seed, warm, model = dict(plan.recipe), seed, bool(topical["--warm"]), parent
    if topical["--again"] and model is not None:
        recipe, workers, parent = _again(model, topical["--registry"] or settings.registry)
        warm, asked_seed = parent is not None, seed if seed is not None else recipe.get("seed")
        asked_way = way_of({**way, "workers": workers if way["workers"] is None else way["workers"]}, resume)
    wanted = _range(past, topical, model)
    console = Console(stderr=True)
    with console.status(f"reading {wanted}"):
        taken = take(
            past, wanted, parent=None if model is None else model.card.config, features=names, model=plan.model
        )
    if topical["--again"] and model is not None:
        _refuse_others(model, taken, wanted)
    where = runs or (folder.parent if folder is not None else Path()) / "runs"
    with TrainingBar(console) as bar:
        for note in taken.notes:
            bar.say(f"note: {note}")
        made = make(taken, where, asked_way, parent=parent, warm=warm, recipe=recipe, seed=asked_seed, ears=bar.ears())
    if folder is not None:
        _copy(made, folder)
    _tell(Console(), made, wanted, folder or made.run.model, model if topical["--again"] else None)


def _past(
    settings: Settings, topic: str | None, serve_config: Path | None, topical: dict[str, Any], parent: Parent | None
) -> TopicReader:
    from services.trainer.ranges import WrongRange
    from services.trainer.topic_readers import past_of

    source = None if parent is None or parent.card.data is None else parent.card.data.source
    if topic is None and serve_config is None and source is None:
        raise WrongRange("name the topic with --topic, or the pipeline's settings with --serve-config")
    if topic is None and topical["--again"] and source is not None:
        topic = source.topic
    name = topic or settings.topics.readings
    return past_of(settings, name, topical["--archive"])


def _range(past: TopicReader, topical: dict[str, Any], parent: Parent | None) -> Range:
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


def _again(model: Parent, registry: str | None) -> tuple[dict[str, Any], int, Parent | None]:
    """(the recipe of a model as it was carried out, its number of processes, the model whose weights it began from).
    Raises WrongRange where the latter is not to be had.
    """
    from rnn.io import weights
    from services.registry import ModelUnknown, Registry, WrongRegistry
    from services.trainer.ranges import WrongRange
    from services.trainer.training_run import Parent

    card, recipe = model.card, dict(model.card.recipe)
    if not recipe:
        raise WrongRange(f"the card of model {card.model} names no recipe: it is of an older release")
    warm, workers = recipe.pop("warm", False), recipe.pop("workers", 0)
    recipe.pop("test_ms", None)
    if not warm:
        return recipe, workers, None
    began = f"model {card.model} began from the weights of {card.parent}"
    if card.parent is None or registry is None:
        raise WrongRange(f"{began}: name the registry that holds that model with --registry")
    try:
        return recipe, workers, Parent(*weights.load(Registry(registry).folder(card.parent)))
    except (ModelUnknown, WrongRegistry) as error:
        raise WrongRange(
            f"{began}, which was looked for in {registry} and is not there: {error} Name the registry that holds it "
            "with --registry"
        ) from None


def _refuse_others(model: Parent, taken: TopicDataset, wanted: Range) -> None:
    """Raises WrongRange where the range holds other readings than the model learned from."""
    from services.trainer.ranges import WrongRange

    data, digest = model.card.data, taken.material.digest
    if data is not None and data.digest != digest:
        raise WrongRange(
            f"{wanted} does not hold what model {model.card.model} learned from: {taken.material.readings:,} readings "
            f"with a digest that begins {digest[:12]}, where its card says {data.rows:,} with {data.digest[:12]}: the "
            "topic was made anew or compacted since; name an archive that has them with --archive, or train without "
            "--again"
        )


def _compared(model: Parent, made: TrainedModel) -> str:
    """Whether the weights came out the same."""
    before, after = model.card, made.card
    if after.model == before.model:
        return f"the weights of {before.model}, bit for bit"
    ways = [f"{card.recipe.get('workers', 0)} workers" for card in (after, before)]
    others = f"{ways[0]} and not {ways[1]}" if ways[0] != ways[1] else "another machine, device or release"
    return f"other weights than {before.model}: the same readings and recipe, but {others}"


def _copy(made: TrainedModel, folder: Path) -> None:
    """The run's model, once more in the folder that was named."""
    from rnn.io import weights
    from services.trainer.runs import CURVE, REPORT

    card = made.card
    weights.save(folder, made.learned.network, created_ms=card.created_ms, data=card.data, parent=card.parent,
                 scores=card.scores, recipe=card.recipe)  # fmt: skip
    for name in (REPORT, CURVE):
        shutil.copy(made.run.model / name, folder / name)


def _tell(console: Any, made: TrainedModel, wanted: Range, folder: Path, again: Parent | None) -> None:
    """What came of it; `again` is the model that was to be made once more."""
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
    if again is not None:
        lines.insert(1, ("again", _compared(again, made)))
    for name, value in lines:
        console.print(f"{name:<9} {value}", highlight=False, soft_wrap=True)
