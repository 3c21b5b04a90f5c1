"""Retraining that nobody watches: a server calls `retrain` in a Ray task, and gets an outcome whatever happens."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.settings import Settings
from services.settings.model_lifecycle import NICENESS
from services.trainer.ranges import RangeQuery

MOST_WORDS = 600
"""Characters of a message."""


class RetrainingEnd(enum.StrEnum):
    """How a retraining ended. The words are labels of metrics."""

    TRAINED = "trained"  # the model is in the run's folder, and in the registry if there is one
    FAILED = "failed"  # the message says why
    TIMED_OUT = "timed_out"  # the limit was reached first


@dataclass(frozen=True, slots=True)
class RetrainRequest:
    """What to retrain, and how. Plain values: it travels."""

    runs: Path  # gets a folder of this run
    parent: Path | str | None = None  # folder, or id in `registry`, of the champion: gives the shape, is compared with
    registry: str | None = None  # where the model is published; None: nowhere
    asked: RangeQuery = field(default_factory=RangeQuery)  # which readings
    archive: str | None = None  # where readings are that the topic has lost
    workers: int = 1  # processes; 0: in the caller's
    gpus: bool = False
    niceness: int = NICENESS  # of the processes
    warm: bool = True  # from the parent's weights, where they know nothing of the part that tests
    limit_s: float | None = 1800.0
    seed: int = 0
    reason: str = "retraining"  # for the registry's history: cron, drift, ...
    by: str = "retrain"
    features: tuple[str, ...] = ()  # of positional readings, where there is no parent
    model: Mapping[str, Any] = field(default_factory=dict)  # fields of ModelConfig, where there is no parent
    recipe: Mapping[str, Any] = field(default_factory=dict)  # fields of Practice


@dataclass(frozen=True, slots=True)
class RetrainingResult:
    """What became of an order. Never an exception: a failure here must not touch what serves."""

    end: RetrainingEnd
    message: str  # a sentence
    model: str | None = None  # id
    run: str | None = None  # id
    folder: Path | None = None  # of the model
    scores: Mapping[str, Any] = field(default_factory=dict)  # on the part that only tests
    rivals: Mapping[str, Any] = field(default_factory=dict)  # mean squared errors on the same readings
    readings: int = 0
    seconds: float = 0.0


def retrain(settings: Settings, order: RetrainRequest) -> RetrainingResult:
    """Reads the range of the pipeline's readings topic, trains, reports, and adds the model to the registry.

    In processes of Ray where `workers` says so. Never raises an Exception. The caller sees to
    it that there is one at a time.
    """
    began_s = time.monotonic()
    begun: list[Any] = []
    try:
        return _retrained(settings, order, began_s, begun)
    except ModuleNotFoundError as error:
        message = f"retraining wants {error.name}: pip install 'streamrnn[train]'"
        return RetrainingResult(RetrainingEnd.FAILED, message, seconds=time.monotonic() - began_s)
    except Exception as error:
        ours = type(error).__module__.split(".")[0] in ("services", "rnn") or isinstance(error, OSError)
        text = " ".join(str(error).split()) or type(error).__name__
        message = text if ours else f"unforeseen: {type(error).__name__}: {text}"
        end = RetrainingEnd.TIMED_OUT if type(error).__name__ == "OutOfTime" else RetrainingEnd.FAILED
        run = begun[0].id if begun else None
        return RetrainingResult(end, message[:MOST_WORDS], run=run, seconds=time.monotonic() - began_s)


def _folder(parent: Path | str, registry: str | None) -> Path:
    """On this machine, which need not be that of whoever gave the order."""
    if isinstance(parent, Path) or registry is None:
        return Path(parent)
    from services.registry import Registry

    return Registry(registry).folder(parent)


def _retrained(settings: Settings, order: RetrainRequest, began_s: float, begun: list[Any]) -> RetrainingResult:
    from rnn.io import weights
    from services.trainer.ranges import resolve
    from services.trainer.topic_dataset import take
    from services.trainer.topic_readers import past_of
    from services.trainer.training_run import Callbacks, Parent, TrainOptions, make

    past = past_of(settings, settings.topics.readings, order.archive)
    parent = None if order.parent is None else Parent(*weights.load(_folder(order.parent, order.registry)))
    wanted = resolve(past, order.asked, time.time_ns() // 1_000_000)
    taken = take(
        past, wanted, parent=None if parent is None else parent.card.config, features=order.features, model=order.model
    )
    spent_s = time.monotonic() - began_s
    limit_s = None if order.limit_s is None else max(1.0, order.limit_s - spent_s)
    way = TrainOptions(
        order.workers, order.gpus, niceness=order.niceness, limit_s=limit_s, address=settings.fleet.ray_address
    )
    made = make(
        taken, order.runs, way, parent=parent, warm=order.warm, recipe=order.recipe, seed=order.seed,
        ears=Callbacks(begun=begun.append),
    )  # fmt: skip
    message = f"trained on {taken.material.readings:,} readings of {wanted}"
    if order.registry is not None:
        from services.registry import Registry

        Registry(order.registry).add(made.run.model, reason=order.reason, by=order.by)
        message += f", added to {order.registry}"
    message += "".join(f"; {note}" for note in made.report["notes"])
    return RetrainingResult(
        RetrainingEnd.TRAINED, message[:MOST_WORDS], made.card.model, made.run.id, made.run.model,
        made.report["scores"], made.report.get("rivals", {}), taken.material.readings, time.monotonic() - began_s,
    )  # fmt: skip
