"""From a range of readings to a model in a run's folder, with all that is said of it. Imports numpy and rnn."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rnn.io import weights
from rnn.io.weights import Card, DataRange
from rnn.nn.network import Network
from rnn.train.course import Pass
from rnn.train.learn import Learned
from rnn.train.practice import Practice
from services.settings.model_lifecycle import NICENESS
from services.tables.recipes import recipe_of
from services.trainer import data_checks
from services.trainer.curve import draw_curve
from services.trainer.ranges import Range
from services.trainer.report import HeldBack, reference, report
from services.trainer.runs import CURVE, REPORT, Run, nothing_to_resume, open_run, write_json
from services.trainer.search import Tried, search
from services.trainer.split import TEST_SHARE, TimeSplit, fitting, split
from services.trainer.topic_dataset import TopicDataset
from services.trainer.training_task import Told, TrainingTask, train

WARM = {"learning_rate": 0.3, "updates": 0.25, "patience": 0.25}
"""Of the recipe's, where training begins from a model's weights."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train, whatever is trained."""

    workers: int = 0  # processes on Ray; 0: this one
    gpus: bool = False  # a GPU for each worker
    address: str | None = None  # of Ray; None: the one that is joined, else one of our own
    niceness: int = NICENESS  # of those processes
    limit_s: float | None = None
    search_s: float | None = None  # looks for a better shape first, for so long
    resume: bool = False
    every_s: float | None = None  # between checkpoints of workers; None: the default


@dataclass(frozen=True, slots=True)
class Parent:
    """The model that the new one comes after: its shape, and whom it is compared with."""

    network: Network
    card: Card


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model, where it lies, and what is said of it."""

    card: Card
    run: Run
    learned: Learned
    report: Mapping[str, Any]
    split: TimeSplit
    seconds: float


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who is told what while it happens."""

    passed: Callable[[Pass], None] = lambda one: None
    tried: Callable[[Tried], None] = lambda one: None
    worker: Callable[[dict[str, Any]], None] = lambda event: None
    begun: Callable[[Run], None] = lambda run: None
    noted: Callable[[str], None] = lambda note: None


NO_CALLBACKS = Callbacks()


def make(
    taken: TopicDataset,
    runs: Path,
    way: TrainOptions,
    *,
    parent: Parent | None = None,
    warm: bool = False,
    recipe: Mapping[str, Any] | None = None,
    seed: int | None = None,
    ears: Callbacks = NO_CALLBACKS,
) -> TrainedModel:
    """Splits, trains, scores and saves: a folder of the run in `runs`, the model in it. `warm`: from the parent's
    weights, shorter and gentler, unless it has seen what is to test. The same range, shape, recipe, seed and parent
    give the same weights on the CPU of one machine (with several workers: the same number of them).

    Raises WrongRange, WrongTable for a recipe that is none, NotTrained, OutOfTime, CheckpointMismatch, ModelNotSaved.
    """
    began_s = time.monotonic()
    material = taken.material
    practice = recipe_of(recipe or {}, material.config, material.readings, seed)
    parts = split(material.series, practice.validation)
    wanted = Range(taken.source.topic, taken.source.partitions)
    notes, start = [*taken.notes, *data_checks.parts(wanted, material.config, material.series, parts)], None
    for note in notes[len(taken.notes) :]:
        ears.noted(note)
    if parent is not None and _seen_ms(parent.card) > parts.test_ms:
        notes.append(
            "the parent has learned from readings of the part that tests, so its figure flatters it"
            + (", and training does not begin from its weights" if warm else "")
        )
        ears.noted(notes[-1])
    elif parent is not None and warm:
        practice = gentler(practice, recipe or {})
        start = {name: one.numpy() for name, one in parent.network.state_dict().items()}
    practice = fitting(practice, parts)
    work = TrainingTask.of(material.config, material.series, practice, parts.learned, parts.known, start)
    plan = {
        "config": json.loads(work.config.to_json()),
        "recipe": asdict(work.recipe),
        "source": asdict(taken.source),
        "digest": material.digest,
        "split": {"validate_ms": parts.validate_ms, "test_ms": parts.test_ms, "test_share": TEST_SHARE},
        "rows": dict(zip(("train", "validation", "test"), parts.rows(material.series), strict=True)),
        "parent": None if parent is None else parent.card.model,
        "warm": start is not None,
        "workers": way.workers,
    }
    run = open_run(runs, work.identity(), plan, way.resume)
    run.tell("begun", readings=material.readings, workers=way.workers)
    ears.begun(run)
    if way.resume and not run.resumed:
        ears.noted(nothing_to_resume(runs, run, plan["source"]))
    tried: list[Tried] = []
    if way.search_s is not None:
        work, tried = search(work, way.search_s, ears.tried)
        for one in tried:
            run.tell("tried", **asdict(one))
    learned = learn_work(work, run, way, ears)
    test = HeldBack.of(work.config, material.streams, material.series, parts)
    told = report(learned.network, learned.epochs, test, None if parent is None else parent.network)
    told |= {"run": run.id, "seconds": round(time.monotonic() - began_s, 1), **plan, "notes": notes}
    told |= {"config": json.loads(work.config.to_json()), "recipe": asdict(work.recipe)}
    if tried:
        told["search"] = [asdict(one) for one in tried]
    if not work.config.symbolic:
        told["drift_reference"] = reference(work.config.features, material.series, parts.learned)
    card = _saved(run, learned, taken, work, told, parent)
    run.tell("trained", model=card.model, seconds=told["seconds"], scores=told["scores"])
    return TrainedModel(card, run, learned, told, parts, time.monotonic() - began_s)


def _seen_ms(card: Card) -> int:
    """The time up to which a model has learned or chosen."""
    return int(card.recipe.get("test_ms", card.data.to_ms if card.data is not None else 0))


def gentler(practice: Practice, asked: Mapping[str, Any]) -> Practice:
    """The recipe for weights that know something already; what was asked for by name stays."""
    changed: dict[str, Any] = {}
    for name, share in WARM.items():
        if name not in asked:
            value = getattr(practice, name) * share
            changed[name] = value if name == "learning_rate" else max(1, round(value))
    return replace(practice, **changed)


def learn_work(work: TrainingTask, run: Run, way: TrainOptions, ears: Callbacks = NO_CALLBACKS) -> Learned:
    """Trains in this process or on Ray, and writes the run's log."""

    def passed(one: Pass) -> None:
        run.tell("pass", **asdict(one))
        ears.passed(one)

    def heard(event: dict[str, Any]) -> None:
        run.tell(**event)
        if event["event"] == "worker":
            ears.worker(event)

    try:
        return _learned(work, run, way, passed, heard)
    except BaseException as error:
        run.tell("ended", error=type(error).__name__, message=str(error))
        raise


def _learned(
    work: TrainingTask, run: Run, way: TrainOptions, passed: Told, heard: Callable[[dict[str, Any]], None]
) -> Learned:
    if not way.workers:
        return train(work, passed, run.checkpoint, way.limit_s)
    from services.trainer import workers

    every_s = workers.EVERY_S if way.every_s is None else way.every_s
    return workers.train(
        work, run, way.workers, passed, gpus=way.gpus, address=way.address, limit_s=way.limit_s, heard=heard,
        niceness=way.niceness, every_s=every_s,
    )  # fmt: skip


def _saved(
    run: Run, learned: Learned, taken: TopicDataset, work: TrainingTask, told: dict[str, Any], parent: Parent | None
) -> Card:
    """The model, its report and its curve, in the run's folder."""
    best = learned.best
    scores = {"validation_loss": best.validation_loss, "baseline_loss": best.baseline_loss}
    if best.accuracy is not None:
        scores["accuracy"] = best.accuracy
    scores |= {
        name: value for name, value in told["scores"].items() if isinstance(value, float) and math.isfinite(value)
    }
    readings = taken.material.readings
    test_ms = told["split"]["test_ms"]
    data = DataRange(taken.from_ms, taken.to_ms, readings, taken.material.digest, taken.source)
    card = weights.save(
        run.model,
        learned.network,
        created_ms=time.time_ns() // 1_000_000,
        data=data,
        parent=None if parent is None else parent.card.model,
        scores=scores,
        recipe=asdict(work.recipe) | {name: told[name] for name in ("warm", "workers")} | {"test_ms": test_ms},
    )
    told["model"] = card.model
    write_json(run.model / REPORT, told)
    draw_curve(learned.epochs, bool(work.config.labels), run.model / CURVE)
    for name in (REPORT, CURVE):
        shutil.copy(run.model / name, run.folder / name)
    return card
