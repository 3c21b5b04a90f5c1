"""What people see of a stream in the spotlight is what came, and what the predictions topic had said of it before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.brokers.memory import FaultPoint, Faults, InjectedFault
from services.driver import StreamDriver
from services.predictor.watched_streams import POINTS, Points

AT = 1_700_000_000_000
STREAMS = ("a", "b", "c")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(3)
    shape = {"task": "encoder-decoder", "horizon": 3, "answer": "each"}
    config = ModelConfig(("flow", "level", "heat"), ("heat", "flow"), cell="gru", hidden=6, head="gaussian", **shape)
    return Network(config).eval()


def points(driver: StreamDriver) -> dict[str, Points]:
    assert driver.shard is not None and driver.shard.spotlight is not None
    return {one.stream: one for one in driver.shard.spotlight.take()}


def send(driver: StreamDriver, rng: np.random.Generator, n: int, first: int = 0) -> dict[str, np.ndarray]:
    sent: dict[str, list[np.ndarray]] = {stream: [] for stream in STREAMS}
    for second in range(first, first + n):
        for stream in STREAMS:
            sent[stream].append(rng.normal(size=3).astype(np.float32))
            driver.send(stream, at=AT + second * 1000, x=sent[stream][-1], seq=second)
    return {stream: np.array(rows) for stream, rows in sent.items()}


def test_points_are_what_came_and_what_the_reading_before_had_said(network: Network, seed: int) -> None:
    rng = np.random.default_rng(seed)
    driver = StreamDriver(
        network, partitions=2, slots=8, spotlight=("c", "a"), poll_size=lambda most: int(rng.integers(1, 9))
    )
    sent = send(driver, rng, 40)
    driver.run()
    found = points(driver)
    assert found.keys() == {"a", "c"}
    for stream, its in found.items():
        said = driver.predictions(stream)
        assert its.targets == ("heat", "flow")
        assert its.at_ms.tolist() == [one.at_ms for one in said]
        assert its.actual.tobytes() == sent[stream][:, [2, 0]].tobytes()
        assert np.array_equal(its.score, np.array([one.score for one in said], np.float32), equal_nan=True)
        for name, part in (("predicted", "y"), ("lower", "lo"), ("upper", "hi")):
            first_step = np.array([getattr(one, part).reshape(-1)[:2] for one in said[:-1]], np.float32)
            assert np.isnan(getattr(its, name)[0]).all()
            assert np.array_equal(getattr(its, name)[1:], first_step), name
    assert points(driver) == {}, "what was taken does not come again"
    send(driver, rng, 2, first=40)
    driver.run()
    assert {stream: len(its) for stream, its in points(driver).items()} == {"a": 2, "c": 2}


def test_only_the_latest_are_kept_of_a_long_poll_and_of_many_short_ones(network: Network) -> None:
    for size in (10_000, 7):
        driver = StreamDriver(network, spotlight=("a",), poll_size=lambda most, size=size: size)
        sent = send(driver, np.random.default_rng(1), POINTS + 25)["a"]
        driver.run()
        its = points(driver)["a"]
        assert its.actual.tobytes() == sent[-POINTS:, [2, 0]].tobytes()
        assert its.at_ms.tolist() == [AT + 1000 * second for second in range(25, POINTS + 25)]
        assert not np.isnan(its.predicted).any()


def test_what_was_dropped_was_never_seen(network: Network) -> None:
    driver = StreamDriver(network, spotlight=("a",), faults=Faults.once(FaultPoint.BEFORE_END, InjectedFault.LOST))
    send(driver, np.random.default_rng(1), 3)
    driver.run()
    assert driver.shard is not None and driver.shard.stats.epochs["dropped"] == 1
    assert len(points(driver)["a"]) == 3


def test_repeated_readings_are_none_and_a_sequence_is_not_forecast_by_the_one_before(network: Network) -> None:
    driver = StreamDriver(network, spotlight=("a",))
    for second, end in ((0, False), (1, True), (1, False), (2, False), (3, False)):
        driver.send("a", at=AT + 1000 * second, x=[float(second), 0.0, None], seq=second, end=end)
    driver.send("a", at=AT + 3500, seq=4, end=True)  # nothing but an end
    driver.send("a", at=AT + 4000, x=[4.0, 0.0, None], seq=5)
    driver.run()
    its = points(driver)["a"]
    assert its.actual[:, 1].tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(its.actual[:, 0]).all()
    assert np.isnan(its.predicted[:, 1]).tolist() == [True, False, True, False, True]


def test_a_stream_that_was_forgotten_has_forecast_nothing_of_the_next_one_of_its_name(network: Network) -> None:
    driver = StreamDriver(network, spotlight=("a", "b"), ttl_ms=60_000)
    for stream in ("a", "b"):
        driver.send(stream, at=AT, x=[1.0, 0.0, 0.0])
    driver.run()
    for _ in range(2):  # an idle stream is found with the partition's next readings
        driver.advance(61_000)
        driver.send("b", at=AT + 1000, x=[1.0, 0.0, 0.0])
        driver.run()
    assert driver.shard is not None and driver.shard.stats.evictions["idle"] >= 1
    driver.send("a", at=AT + 2000, x=[2.0, 0.0, 0.0])
    driver.run()
    assert np.isnan(points(driver)["a"].predicted).all()


def test_a_stream_of_two_partitions_shows_both_and_an_unknown_one_nothing(network: Network) -> None:
    driver = StreamDriver(network, partitions=2, spotlight=("a", "nobody"))
    for partition in (0, 1):
        driver.send("a", at=AT, x=[float(partition), 0.0, 0.0], partition=partition)
    driver.run()
    assert sorted(points(driver)["a"].actual[:, 1].tolist()) == [0, 1]


def test_without_a_spotlight_and_for_symbols_there_is_none(network: Network) -> None:
    driver = StreamDriver(network)
    assert driver.restart().spotlight is None
    spoken = Network(ModelConfig(vocabulary=("cat", "mouse"), hidden=5, embedding=3, head="categorical")).eval()
    assert StreamDriver(spoken, spotlight=("a",)).restart().spotlight is None


def test_a_model_that_tells_kinds_shows_what_came_and_no_forecast() -> None:
    config = ModelConfig(("flow",), hidden=5, head="categorical", labels=("leak", "still"), predicts="now")
    driver = StreamDriver(Network(config).eval(), spotlight=("a",))
    for second in range(3):
        driver.send("a", at=AT + 1000 * second, x=[float(second)])
    driver.run()
    its = points(driver)["a"]
    assert its.targets == ("flow",) and its.actual[:, 0].tolist() == [0, 1, 2]
    assert np.isnan(its.predicted).all()
