"""What a shard counts of its forecasts is what the backtest says of the same readings, whatever epochs are dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.backtest.forecast import BacktestPlan, backtest
from services.brokers.memory import Crash, FaultPoint, Faults, InjectedFault
from services.codecs.readings_write import encode
from services.datasets.catalogue import series_of
from services.datasets.series import Series
from services.driver import StreamDriver
from services.quality.prequential import ABSOLUTE, INSIDE, PERSISTENCE, SQUARED, N, RunningMetrics

AT = 1_700_000_000_000
FEATURES = ("flow", "level")


def series(n: int = 4000) -> Series:
    random = np.random.default_rng(11)
    x = np.zeros((n, 2), np.float32)
    for t in range(1, n):
        x[t] = [0.8 * x[t - 1, 0] + random.normal(), 100 + x[t - 1, 0] + 0.2 * random.normal()]
    x[random.random((n, 2)) < 0.02] = np.nan
    return Series("pump", FEATURES, 1.0, AT + 1000 * np.arange(n), x, "00", "nobody")


def household(n: int = 5000) -> Series:
    """Minutes of a real household; 38 of the last day are missing."""
    whole = series_of("household-power")[0]
    last = int(np.searchsorted(whole.at_ms, np.datetime64("2007-06-10", "ms").astype(np.int64)))
    some = slice(last - n, last)
    assert np.isnan(whole.x[last - n // 5 : last]).all(axis=1).sum() == 38
    return Series("house", whole.features, whole.interval_s, whole.at_ms[some], whole.x[some], whole.digest, "UCI")


def champions(driver: StreamDriver) -> RunningMetrics:
    assert driver.shard is not None
    found = driver.shard.outcomes.figures(driver.shard.models.champion)
    assert found is not None
    return found


@pytest.mark.parametrize("given", [series, household])
def test_live_quality_is_the_backtests(given: Callable[[], Series], tmp_path: Path) -> None:
    whole, plan = given(), BacktestPlan(recipe={"updates": 20, "least_passes": 1})
    said, (run,) = backtest([whole], plan, tmp_path / "model")
    start = len(whole) - len(run.truth)
    driver = StreamDriver(tmp_path / "model", slots=8, poll_size=lambda room: min(room, 300))  # the backtest's: 10,000

    def send(first: int, end: int) -> np.ndarray:
        for value in encode(np.asarray(whole.x[first:end]), np.asarray(whole.at_ms[first:end])):
            driver.send_record(whole.name, value)
        driver.run()
        return np.array(champions(driver).ever)

    before = send(max(0, start - 1000), start)
    sums = (send(start, len(whole)) - before)[:, 0]
    std = driver.network.scaler_std.numpy().astype(np.float64)
    theirs = np.nanstd(np.asarray(whole.x[: int(0.7 * len(whole))], np.float64), axis=0)  # the backtest's own unit
    known = ~np.isnan(run.truth) & ~np.isnan(run.last)
    assert sums[N].tolist() == known.sum(axis=0).tolist()
    error, naive = (np.where(known, one - run.truth, 0.0) for one in (run.y, run.last))
    for name, row, power, each in (
        ("mse", SQUARED, 2, np.square(error)),
        ("mae", ABSOLUTE, 1, np.abs(error)),
        ("persistence_mse", PERSISTENCE, 2, np.square(naive)),
    ):
        live = sums[row] * (std / theirs) ** power
        np.testing.assert_allclose(live / sums[N], each.sum(axis=0) / known.sum(axis=0), rtol=1e-9, err_msg=name)
        assert live.sum() / sums[N].sum() == pytest.approx(each.sum() / known.sum(), rel=1e-9), name
        for target, feature in enumerate(whole.features):  # what it prints has six digits
            printed = said["targets"][feature][name]  # type: ignore[index]
            assert live[target] / sums[N, target] == pytest.approx(printed, rel=1e-5), (name, feature)
    assert run.lo is not None and run.hi is not None
    inside = (run.lo <= run.truth) & (run.truth <= run.hi) & known
    assert sums[INSIDE].tolist() == inside.sum(axis=0).tolist()


def test_epochs_that_were_dropped_are_not_counted_twice() -> None:
    torch.manual_seed(1)
    network = Network(ModelConfig(FEATURES, hidden=4)).eval()
    steps: list[FaultPoint] = []

    def mishap(step: FaultPoint) -> InjectedFault | None:
        steps.append(step)
        return InjectedFault.LOST if len(steps) % 5 == 0 and len(steps) < 60 else None

    clean, faulty = StreamDriver(network), StreamDriver(network, faults=Faults(mishap), poll_size=lambda room: 3)
    random = np.random.default_rng(3)
    for t in range(40):
        x = random.normal(size=2).tolist()
        for driver in (clean, faulty):
            driver.send("a", at=AT + 1000 * t, x=x)
    for driver in (clean, faulty):
        try:
            driver.run()
        except Crash:
            pytest.fail("no crash was asked for")
    assert len(faulty.predictions()) == len(clean.predictions()) == 40
    np.testing.assert_allclose(champions(faulty).ever, champions(clean).ever, rtol=1e-12)
    assert champions(clean).ever[N].sum() == 2 * 39


def test_the_first_reading_of_a_sequence_is_not_scored() -> None:
    torch.manual_seed(1)
    driver = StreamDriver(Network(ModelConfig(FEATURES, hidden=4)).eval())
    for t in range(9):
        driver.send("a", at=AT + 1000 * t, x=[1.0, 2.0], end=t % 3 == 2)
    driver.run()
    assert champions(driver).ever[N].tolist() == [[6.0, 6.0]]
