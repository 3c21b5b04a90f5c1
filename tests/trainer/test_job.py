"""A retraining that nobody watches: an outcome, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from readings_topic import ReadingsTopic

from rnn.io import weights
from services.brokers.devbroker import DevBroker
from services.registry import Registry
from services.settings import Settings
from services.trainer.job import RetrainingEnd, RetrainRequest, retrain
from services.trainer.ranges import asked

QUICK = {"updates": 40, "lanes": 8, "lane_steps": 256, "burn_in": 16}


@pytest.fixture
def topic(broker: DevBroker, topic_names: Callable[[], str]) -> ReadingsTopic:
    made = ReadingsTopic(broker.bootstrap, topic_names())
    made.fill({"a": 0, "b": 1}, 1500)
    return made


def settings(topic: ReadingsTopic) -> Settings:
    return Settings(pipeline=topic.name.split(".")[0], kafka=topic.options)


def test_a_champion_gets_a_successor_in_the_registry(topic: ReadingsTopic, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    model = {"hidden": 8, "targets": ["flow"]}
    request = RetrainRequest(
        tmp_path / "runs", None, str(tmp_path / "registry"), asked(None, "800"), workers=0,
        features=("flow", "level"), model=model, recipe=QUICK, reason="first",
    )  # fmt: skip
    first = retrain(settings(topic), request)
    assert first.end is RetrainingEnd.TRAINED, first.message
    assert first.model is not None and first.folder is not None
    assert registry.card(first.model).config.targets == ("flow",)
    assert registry.report(first.model)["scores"] == first.scores
    second = retrain(settings(topic), RetrainRequest(tmp_path / "runs", registry.folder(first.model),
                     str(tmp_path / "registry"), workers=0, recipe=QUICK, reason="drift: flow"))  # fmt: skip
    assert second.end is RetrainingEnd.TRAINED, second.message
    assert second.model is not None and registry.card(second.model).parent == first.model
    assert registry.card(second.model).recipe["warm"] is True
    assert registry.added(second.model).reason == "drift: flow"
    assert second.rivals["parent"] is not None and second.readings == 3000
    assert second.message.startswith(f"trained on 3,000 readings of {topic.name} [0: 0..1500, 1: 0..1500]")


def test_a_failure_is_an_outcome_with_a_sentence(topic: ReadingsTopic, tmp_path: Path) -> None:
    orders = {
        "is gone, for retention has eaten everything before 100": RetrainRequest(
            tmp_path / "runs", asked=asked("5"), workers=0
        ),
        "card.json cannot be read": RetrainRequest(tmp_path / "runs", tmp_path / "nowhere", workers=0),
        "recipe.updatse: no such key": RetrainRequest(
            tmp_path / "runs", features=("flow", "level"), workers=0, recipe={"updatse": 1}
        ),
        "is a file": RetrainRequest(tmp_path / "file", features=("flow", "level"), workers=0, recipe=QUICK),
    }  # fmt: skip
    topic.forget(0, 100)
    (tmp_path / "file").write_text("is a file")
    for said, order in orders.items():
        outcome = retrain(settings(topic), order)
        assert outcome.end is RetrainingEnd.FAILED and outcome.model is None
        assert said in outcome.message or "Not a directory" in outcome.message or "File exists" in outcome.message


def test_out_of_time_is_an_outcome_of_its_own(topic: ReadingsTopic, tmp_path: Path) -> None:
    recipe = {**QUICK, "updates": 1_000_000, "patience": 1_000_000}
    order = RetrainRequest(tmp_path / "runs", features=("flow", "level"), workers=0, recipe=recipe, limit_s=1.5)
    outcome = retrain(settings(topic), order)
    assert outcome.end is RetrainingEnd.TIMED_OUT and "stopped by the limit" in outcome.message
    assert "`streamrnn train` goes on from it with --resume, a server begins anew" in outcome.message
    assert outcome.run is not None and (tmp_path / "runs" / outcome.run / "standing").exists()
    assert not (tmp_path / "runs" / outcome.run / "model").exists()


def test_what_is_broken_on_the_way_is_named(topic: ReadingsTopic, tmp_path: Path) -> None:
    order = RetrainRequest(tmp_path / "runs", features=("flow", "level"), workers=0, recipe=QUICK)
    made = retrain(settings(topic), order)
    assert made.folder is not None
    (made.folder / weights.WEIGHTS).write_bytes(b"half")
    outcome = retrain(settings(topic), RetrainRequest(tmp_path / "runs", made.folder, workers=0, recipe=QUICK))
    assert outcome.end is RetrainingEnd.FAILED and "the file was damaged" in outcome.message
