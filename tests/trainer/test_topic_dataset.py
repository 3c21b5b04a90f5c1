"""What is read from a topic is what the service reads; what cannot be learned from is said in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from readings_topic import ReadingsTopic, times, waves

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from rnn.serve.engine import Engine
from rnn.serve.ordering import DUPLICATE
from services.brokers.devbroker import DevBroker
from services.codecs.readings_write import encode
from services.trainer.ranges import Range, WrongRange, asked, resolve
from services.trainer.topic_dataset import TopicDataset, take
from services.trainer.topic_readers import KafkaReader


@pytest.fixture
def topic(broker: DevBroker, topic_names: Callable[[], str]) -> ReadingsTopic:
    return ReadingsTopic(broker.bootstrap, topic_names())


def taken(topic: ReadingsTopic, **more: object) -> TopicDataset:
    past = KafkaReader(topic.options, topic.name)
    return take(past, resolve(past, asked(), 0), **more)  # type: ignore[arg-type]


def named(x: np.ndarray, names: tuple[str, ...] = ("flow", "level")) -> list[bytes]:
    known = np.where(np.isnan(x), None, x.astype(object)).tolist()
    rows = zip(times(len(x)).tolist(), known, strict=True)
    return [json.dumps({"at": at, "x": dict(zip(names, row, strict=True))}).encode() for at, row in rows]


def test_streams_are_kept_apart_in_order_of_arrival(topic: ReadingsTopic) -> None:
    made = topic.fill({"a": 0, "b": 0, "c": 1}, 50)
    topic.write(1, b"a", encode(waves(3, 9), times(3)[::-1].copy()))  # the same key elsewhere, and times that go back
    found = taken(topic, features=("flow", "level"))
    assert set(found.material.streams) == {"a@0", "b", "c", "a@1"}
    series = dict(zip(found.material.streams, found.material.series, strict=True))
    np.testing.assert_array_equal(series["b"].x, made["b"])
    assert series["a@1"].at_ms.tolist() == times(3)[::-1].tolist()
    assert found.source.rows == {0: 100, 1: 53} and found.source.streams == 4
    assert found.source.partitions == {0: (0, 100), 1: (0, 53)}
    assert (found.from_ms, found.to_ms) == (int(times(50)[0]), int(times(50)[-1]))
    assert found.material.config.interval_s == 60.0
    assert found.material.digest == taken(topic, features=("flow", "level")).material.digest


def test_names_come_from_the_readings_where_no_model_says_them(topic: ReadingsTopic) -> None:
    topic.write(0, b"a", named(waves(40, 0)))
    topic.write(1, b"b", [b'{"at":1790000000000,"x":{"level":1,"heat":2}}'])
    assert taken(topic).material.config.features == ("flow", "level", "heat")
    parent = ModelConfig(features=("level", "flow"), interval_s=60.0)
    found = taken(topic, parent=parent)
    assert found.material.config is parent
    assert found.source.rejected == 1
    assert "1 records were refused (unknown_feature 1); the first one: partition 1, offset 0" in found.notes[-1]


def test_repeated_readings_count_once_as_in_service(topic: ReadingsTopic, seed: int) -> None:
    random = np.random.default_rng(seed)
    n = 400
    seq = np.cumsum(random.integers(0, 3, n))
    back = random.random(n) < 0.3
    seq[back] = np.maximum(0, seq[back] - random.integers(0, 90, back.sum()))
    at_ms = times(n) - np.where(back & (random.random(n) < 0.7), 60_000 * random.integers(1, 50, n), 0)
    x = waves(n, 3)
    x[np.isnan(x)] = 0
    values = [
        json.dumps({"at": at, "x": row.tolist(), "seq": number}).encode()
        for at, row, number in zip(at_ms.tolist(), x, seq.tolist(), strict=True)
    ]
    topic.write(0, b"a", values)
    engine = Engine(Network(ModelConfig(features=("flow", "level"))), 1)
    flags = engine.run(np.zeros(n, np.int64), x, at_ms, seq).flags
    served = x[flags & DUPLICATE == 0]
    found = taken(topic, features=("flow", "level"))
    assert 0 < found.source.repeated == n - len(served)
    np.testing.assert_array_equal(found.material.series[0].x, served)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (encode(waves(30, 0), times(30)), "readings have 2 values without names: name them in order with --features"),
        ([b'{"at":1790000000000,"x":"red"}'] * 9, "readings are symbols, and no model says which there are"),
        ([b"nonsense"] * 5, "none of the 5 records looked at is a reading"),
        (named(waves(1, 0)), "holds one reading: give a longer range"),
        (named(np.full((30, 2), np.nan)), "all values of flow, level are missing in all 30 readings"),
        (named(np.full((30, 2), 7.0)), "flow, level never changes, 7: there is nothing to learn"),
    ],
)
def test_what_cannot_be_learned_from_is_said(topic: ReadingsTopic, values: list[bytes], said: str) -> None:
    topic.write(0, b"a", values)
    with pytest.raises(WrongRange, match=said):
        taken(topic)


def test_another_models_readings_are_refused_with_the_first_reason(topic: ReadingsTopic) -> None:
    topic.fill({"a": 0}, 20, features=3)
    with pytest.raises(
        WrongRange, match=r"all 20 records were refused \(wrong_length 20\); the first one: partition 0"
    ):
        taken(topic, features=("flow", "level"))


def test_a_dead_and_a_constant_value_are_noted_and_do_no_harm(topic: ReadingsTopic) -> None:
    x = np.concatenate([waves(30, 0), np.full((30, 1), 3.0), np.full((30, 1), np.nan)], axis=1)
    topic.write(0, b"a", named(x, ("flow", "level", "still", "dead")))
    assert taken(topic).notes == ("dead is missing in the whole range", "still never changes in the whole range")


def test_networks_that_learn_from_labels_are_sent_to_a_table(topic: ReadingsTopic) -> None:
    labels = ModelConfig(features=("flow", "level"), labels=("x", "y"), head="categorical", predicts="now")
    with pytest.raises(WrongRange, match="learns from truths"):
        take(KafkaReader(topic.options, topic.name), Range(topic.name, {0: (0, 1)}), parent=labels)


def test_a_card_carries_the_range_and_cards_without_one_are_read(topic: ReadingsTopic, tmp_path: Path) -> None:
    topic.fill({"a": 0, "b": 1}, 30)
    found = taken(topic, features=("flow", "level"))
    data = weights.DataRange(found.from_ms, found.to_ms, 60, found.material.digest, found.source)
    network = Network(found.material.config)
    weights.save(tmp_path / "new", network, created_ms=1, data=data, recipe={"seed": 3, "budget_s": None})
    card = weights.read_card(tmp_path / "new")
    assert card.data == data and card.recipe == {"seed": 3, "budget_s": None}
    weights.save(tmp_path / "old", network, created_ms=1, data=weights.DataRange(1, 2, 3, "d"))
    fields = json.loads((tmp_path / "old" / weights.CARD).read_text())
    assert fields["data"] == {"from_ms": 1, "to_ms": 2, "rows": 3, "digest": "d"} and "recipe" not in fields
    assert weights.read_card(tmp_path / "old").data == weights.DataRange(1, 2, 3, "d")
