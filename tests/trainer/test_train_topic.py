"""`streamrnn train --topic` as a user meets it: a model, a run's folder, and the same weights from the same range."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from readings_topic import ReadingsTopic
from serving import streamrnn, write_config

from rnn.io import weights
from services.brokers.devbroker import DevBroker
from services.registry import Registry


@pytest.fixture
def topic(broker: DevBroker, topic_names: Callable[[], str]) -> ReadingsTopic:
    made = ReadingsTopic(broker.bootstrap, topic_names())
    made.fill({"a": 0, "b": 1}, 1500)
    return made


def recipe(folder: Path) -> Path:
    path = folder / "train.yaml"
    path.write_text("model: {hidden: 8}\nrecipe: {updates: 40, lanes: 8, lane_steps: 256, burn_in: 16}\n")
    return path


def test_a_range_becomes_a_model_that_can_be_made_again(topic: ReadingsTopic, tmp_path: Path) -> None:
    where = ["--topic", topic.name, "--bootstrap", topic.options["bootstrap_servers"]]
    run = streamrnn(
        "train", *where, "--features", "flow,level", "--config", str(recipe(tmp_path)), "--seed", "3", "--from", "100",
        "--to", "1400", "--out", str(tmp_path / "model"),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    _, card = weights.load(tmp_path / "model")
    assert card.model in run.stdout and "2,080 to learn from, 260 to choose by, 260 to test on" in run.stdout
    assert card.data is not None and card.data.source is not None and card.data.rows == 2600
    assert card.data.source.partitions == {0: (100, 1400), 1: (100, 1400)}
    assert card.config.hidden == 8 and card.recipe["seed"] == 3
    (folder,) = (tmp_path / "runs").iterdir()
    assert {one.name for one in folder.iterdir()} == {
        "config.json", "events.jsonl", "learning-curve.png", "report.json", "model",
    }  # fmt: skip
    report = json.loads((tmp_path / "model" / "report.json").read_text())
    assert report["model"] == card.model and report["scores"]["values"] > 400
    assert {"curve", "by_horizon", "by_group", "calibration", "rivals", "drift_reference"} <= set(report)
    events = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events[:2] == ["begun", "pass"] and events[-1] == "trained"

    topic.fill({"a": 0}, 50)  # what comes later is not in the range
    again = streamrnn("train", *where, "--again", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    first, second = ((tmp_path / name / weights.WEIGHTS).read_bytes() for name in ("model", "again"))
    assert first == second
    assert f"the weights of {card.model}, bit for bit" in again.stdout

    topic.forget(0, 200)
    eaten = streamrnn("train", *where, "--again", "--model", str(tmp_path / "model"))
    assert eaten.returncode == 1
    assert (
        "partition 0: of offsets 100 to 1400 some are gone, for retention has eaten everything before 200"
        in eaten.stderr
    )
    assert "Traceback" not in eaten.stderr


def test_a_successor_is_compared_with_its_parent_and_a_search_says_what_it_tried(
    topic: ReadingsTopic, tmp_path: Path
) -> None:
    config = write_config(tmp_path, topic.options["bootstrap_servers"], tmp_path / "parent", topic.name.split(".")[0])
    common = ["train", "--serve-config", str(config), "--runs", str(tmp_path / "runs")]
    first = streamrnn(
        *common, "--features", "flow,level", "--config", str(recipe(tmp_path)), "--to", "900", "--search", "0.05",
        "--out", str(tmp_path / "parent"),
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert "round 1  lstm 1 x 8" in first.stderr and "(default)" in first.stderr
    quick = tmp_path / "quick.yaml"
    quick.write_text("recipe: {updates: 20, lanes: 8, lane_steps: 256, burn_in: 16}\n")
    parent = ["--model", str(tmp_path / "parent"), "--config", str(quick)]
    second = streamrnn(*common, *parent, "--warm", "--last", "9999d", "--out", str(tmp_path / "child"))
    assert second.returncode == 0, second.stderr
    assert "its parent" in second.stdout
    before, card = weights.read_card(tmp_path / "parent"), weights.read_card(tmp_path / "child")
    assert card.parent == before.model and card.config == before.config and card.recipe["warm"] is True

    remade = ["train", "--serve-config", str(config), "--again", "--model", str(tmp_path / "child")]
    nowhere = streamrnn(*remade)
    assert nowhere.returncode == 1 and f"began from the weights of {before.model}: name the registry" in nowhere.stderr
    Registry(tmp_path / "registry").add(tmp_path / "child", reason="without its parent")
    remade += ["--registry", str(tmp_path / "registry"), "--out", str(tmp_path / "remade")]
    absent = streamrnn(*remade)
    assert absent.returncode == 1 and "Traceback" not in absent.stderr
    assert f"{before.model}, which was looked for in {tmp_path / 'registry'} and is not there" in absent.stderr
    Registry(tmp_path / "registry").add(tmp_path / "parent", reason="first")
    found = streamrnn(*remade)
    assert found.returncode == 0, found.stderr
    assert f"the weights of {card.model}, bit for bit" in found.stdout
    twin = weights.read_card(tmp_path / "remade")
    assert (twin.model, twin.parent, twin.recipe) == (card.model, before.model, card.recipe)

    overlap = streamrnn(*common, *parent, "--warm", "--to", "600")
    assert "the parent has learned from readings of the part that tests" in overlap.stderr
    late = streamrnn(*common, *parent, "--limit-minutes", "0.0101", "--seed", "5", "--config", str(endless(tmp_path)))
    assert late.returncode == 1
    assert "stopped by the limit of 0.0101 minutes after pass" in late.stderr and "Traceback" not in late.stderr


def test_a_model_is_made_again_of_its_own_readings_and_by_as_many_processes(
    topic: ReadingsTopic, tmp_path: Path, topic_names: Callable[[], str]
) -> None:
    where = ["--bootstrap", topic.options["bootstrap_servers"]]
    first = streamrnn(
        "train", *where, "--topic", topic.name, "--features", "flow,level", "--config", str(recipe(tmp_path)),
        "--out", str(tmp_path / "model"),
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    card = weights.read_card(tmp_path / "model")
    assert card.data is not None

    other = ReadingsTopic(topic.options["bootstrap_servers"], topic_names())
    other.fill({"b": 1, "a": 0}, 1500)
    again = ["train", *where, "--again", "--model", str(tmp_path / "model")]
    refused = streamrnn(*again, "--topic", other.name)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    said = refused.stderr.replace("\n", " ")
    assert f"does not hold what model {card.model} learned from: 3,000 readings with a digest that begins" in said
    assert f"its card says 3,000 with {card.data.digest[:12]}: the topic was made anew or compacted since" in said

    path = tmp_path / "model" / weights.CARD
    fields = json.loads(path.read_text())
    fields["recipe"]["workers"] = 1  # which gives the weights that this process gave
    path.write_text(json.dumps(fields))
    made = streamrnn(*again, "--runs", str(tmp_path / "again"))
    assert made.returncode == 0, made.stderr
    (folder,) = (tmp_path / "again").iterdir()
    assert json.loads((folder / "config.json").read_text())["workers"] == 1
    assert f"the weights of {card.model}, bit for bit" in made.stdout


def endless(folder: Path) -> Path:
    path = folder / "endless.yaml"
    path.write_text("recipe: {updates: 1000000, patience: 1000000, lanes: 8, lane_steps: 256, burn_in: 16}\n")
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--topic", "t", "table.csv"], "FILE is about a table"),
        (["--topic", "t", "--registry", "r"], "--registry says where the parent of a model lies"),
        (["--topic", "t", "--warm"], "--warm is about a model: name it with --model"),
        (["table.csv", "--time", "at", "--last", "7d"], "--last is about a topic: name one"),
        (["--topic", "t", "--last", "soon"], "--last 'soon' is neither"),
        (["--topic", "t", "--gpus"], "--gpus gives each worker a GPU: say how many with --workers"),
    ],
)
def test_what_does_not_go_together_is_said(arguments: list[str], said: str) -> None:
    run = streamrnn("train", *arguments)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert said in run.stderr
