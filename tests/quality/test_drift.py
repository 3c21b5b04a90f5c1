"""Drift: real seasons and injected changes raise alarms, the same season and a restart do not."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from rnn.train.fit import fit
from rnn.train.recipe import Recipe
from services.codecs.readings_write import encode
from services.datasets.catalogue import series_of
from services.datasets.series import Series
from services.driver import StreamDriver
from services.predictor.deployed_models import DeployedModel
from services.quality.drift import Drift, InputWatch, RecentHistogram, ReferenceBuilder
from services.quality.loss_drift import LossWatch
from services.quality.pipeline import DriftWatch
from services.quality.reference import Reference, binned

NAMES = ("a", "b")


@pytest.fixture(scope="module")
def household() -> Series:
    return series_of("household-power")[0]


def between(series: Series, start: str, end: str) -> np.ndarray:
    first, last = np.searchsorted(series.at_ms, [np.datetime64(day, "ms").astype(np.int64) for day in (start, end)])
    return np.asarray(series.x[first:last])


def alarms(reference: Reference, x: np.ndarray, batch: int = 400) -> dict[str, int]:
    """Feature -> readings after which it was first drifted by either measure."""
    recent, watch, found = RecentHistogram(reference), InputWatch(), {}
    for at in range(0, len(x), batch):
        recent.add(x[at : at + batch])
        for one in watch.judge(recent, at + batch):
            if one.drifted:
                assert one.value > 0.8 * one.threshold and one.since_ms is not None
                found.setdefault(one.name, at + batch)
    return found


def waves(n: int, seed: int = 0) -> np.ndarray:
    """Two sensors with a day of 500 readings, of which 2 % are missing."""
    random = np.random.default_rng(seed)
    day = np.sin(2 * np.pi * np.arange(n) / 500)
    x = np.column_stack((20 + 5 * day + random.normal(size=n), random.gamma(2.0, 1.0, n))).astype(np.float32)
    x[random.random((n, 2)) < 0.02] = np.nan
    return x


@pytest.mark.parametrize("winter", [2007, 2008, 2009])
def test_a_household_changes_with_the_season_and_not_within_it(household: Series, winter: int) -> None:
    x = between(household, f"{winter - 1}-12-17", f"{winter}-03-01")
    reference = Reference.of(household.features, x[: int(0.7 * len(x))])
    assert alarms(reference, x[int(0.7 * len(x)) :]) == {}
    found = alarms(reference, between(household, f"{winter}-03-01", f"{winter}-08-31"))
    assert len(found) >= 3


@pytest.mark.parametrize("name", ["household-power", "beijing-pm25", "simbench-res"])
def test_data_that_covers_its_cycles_raises_no_alarm_afterwards(name: str) -> None:
    series = series_of(name)[0]
    end, start = int(0.7 * len(series)), int(0.8 * len(series))
    reference = Reference.of(series.features, series.x[:end])
    assert alarms(reference, np.asarray(series.x[start:]), batch=2000) == {}


def spoilt(x: np.ndarray, how: str) -> np.ndarray:
    x = x.copy()
    if how == "unit":
        x[:, 0] *= 1000
    elif how == "offset":
        x[:, 0] += 15
    elif how == "stuck":
        x[:, 0] = x[0, 0]
    else:
        x[::4, 0] = np.nan
    return x


@pytest.mark.parametrize("how", ["unit", "offset", "stuck", "missing"])
def test_a_changed_sensor_is_named_soon_and_no_other(how: str) -> None:
    reference = Reference.of(NAMES, waves(20_000))
    assert alarms(reference, waves(20_000, seed=1)) == {}
    found = alarms(reference, spoilt(waves(20_000, seed=2), how), batch=100)
    assert set(found) == {"a"}
    assert found["a"] <= reference.half_life


@pytest.mark.parametrize("how", ["unit", "offset", "stuck", "missing"])
def test_a_changed_sensor_of_the_household_is_named(household: Series, how: str) -> None:
    voltage = household.features.index("Voltage")
    reference = Reference.of(("Voltage",), between(household, "2006-12-17", "2008-12-17")[:, [voltage]])
    x = between(household, "2009-01-05", "2009-03-05")[:, [voltage]]
    assert alarms(reference, x) == {}
    assert alarms(reference, spoilt(x, how))["Voltage"] < {"unit": 20_000, "offset": 20_000}.get(how, 80_000)


def test_a_constant_in_training_that_moves_is_a_drift() -> None:
    x = np.column_stack((np.full(5000, 3.0), np.full(5000, np.nan))).astype(np.float32)
    reference = Reference.of(NAMES, x)
    assert alarms(reference, x) == {}
    for column, value in ((0, 3.001), (0, 2.999), (1, 1.0)):
        moved = x.copy()
        moved[:, column] = value
        assert set(alarms(reference, moved, batch=100)) == {NAMES[column]}


def test_a_drift_has_a_beginning_and_an_end() -> None:
    reference, watch = Reference.of(NAMES, waves(20_000)), InputWatch()
    recent = RecentHistogram(reference)
    bad = spoilt(waves(20_000, seed=1), "offset")
    told: list[Drift] = []
    for at, x in enumerate([bad[k : k + 500] for k in range(0, 5000, 500)] + [waves(500, seed=2)] * 60):
        recent.add(x)
        told.append(next(one for one in watch.judge(recent, at) if (one.name, one.measure) == ("a", "psi")))
    since = [one.since_ms for one in told if one.drifted]
    assert since and set(since) == {next(k for k, one in enumerate(told) if one.drifted)}
    assert not told[-1].drifted and told[-1].since_ms is None


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_bins_hold_every_reading_once_and_add_up(seed: int, sizes: list[int]) -> None:
    random = np.random.default_rng(seed)
    reference = Reference.of(NAMES, waves(300, seed % 1000))
    x = random.choice([np.nan, -1e9, 0.0, 20.0, 1e9], (sum(sizes), 2)).astype(np.float32)
    whole = binned(reference.edges, x)
    assert (whole >= 0).all() and (whole.sum(axis=1) == len(x)).all()
    np.testing.assert_array_equal(whole[:, -1], np.isnan(x).sum(axis=0))
    parts = [binned(reference.edges, part) for part in np.split(x, np.cumsum(sizes)[:-1])]
    np.testing.assert_array_equal(whole, np.sum(parts, axis=0))


def test_shards_add_up_to_what_one_would_see() -> None:
    reference = Reference.of(NAMES, waves(20_000))
    x = spoilt(waves(8000, seed=1), "offset")
    one, halves = RecentHistogram(reference), [RecentHistogram(reference, reference.half_life // 2) for _ in range(2)]
    for at in range(0, len(x), 200):
        one.add(x[at : at + 200])
        halves[0].add(x[at : at + 200 : 2])
        halves[1].add(x[at + 1 : at + 200 : 2])
    both = halves[0] + halves[1]
    np.testing.assert_allclose(both.counts, one.counts, rtol=0.02, atol=1)
    with pytest.raises(ValueError, match="same reference"):
        one + RecentHistogram(Reference.of(NAMES, waves(500, seed=9)))


def test_a_big_batch_forgets_as_many_small_ones_do() -> None:
    reference = Reference.of(NAMES, waves(20_000))
    x = waves(6000, seed=3)
    big, small = RecentHistogram(reference), RecentHistogram(reference)
    big.add(x)
    for row in range(0, len(x), 50):
        small.add(x[row : row + 50])
    assert big.counts.sum() == pytest.approx(small.counts.sum(), rel=1e-3)


def test_a_reference_survives_json() -> None:
    x = waves(3000)
    x[:, 1] = 7  # fewer edges than the other
    reference = Reference.of(NAMES, x)
    again = Reference.from_tree(json.loads(json.dumps(reference.tree(), allow_nan=False)))
    assert again.same_bins(reference) and again.half_life == reference.half_life
    np.testing.assert_allclose(again.shares, reference.shares, atol=1e-8)
    np.testing.assert_allclose(again.usual_psi, reference.usual_psi, rtol=1e-5)
    for where, wrong in (("edges", [3.0, 2.0]), ("shares", [2.0])):
        tree = reference.tree()
        tree["features"]["a"][where] = wrong
        with pytest.raises(ValueError, match=r"a: .*make it of the training data again"):
            Reference.from_tree(tree)
    with pytest.raises(ValueError, match="make it of the training data again"):
        Reference.from_tree({"features": {}})


def test_the_first_readings_stand_in_for_a_reference() -> None:
    first = ReferenceBuilder(NAMES, readings=5000)
    with pytest.raises(ValueError, match="made of readings"):
        first.reference()
    for at in range(0, 6000, 700):
        first.add(waves(6000)[at : at + 700])
    assert first.full
    reference = pickle.loads(pickle.dumps(first)).reference()
    np.testing.assert_array_equal(reference.shares, Reference.of(NAMES, waves(6000)[:5000]).shares)
    assert alarms(reference, waves(5000, seed=1)) == {}


def skills(random: np.random.Generator, n: int, level: float) -> np.ndarray:
    """Losses of rounds: lognormal around a level."""
    return level * np.exp(0.3 * random.normal(size=n))


def test_a_loss_that_rises_is_told_and_one_that_does_not_is_not() -> None:
    false, late = 0, []
    for seed in range(100):
        random, watch = np.random.default_rng(seed), LossWatch()
        false += any(watch.add(loss, t).drifted for t, loss in enumerate(skills(random, 300, 0.7)))
        after = [watch.add(loss, 300 + t) for t, loss in enumerate(skills(random, 200, 0.7 * 1.5))]
        assert after[-1].drifted
        late.append((after[-1].since_ms or 0) - 300)
        assert after[-1].value == pytest.approx(1.5, rel=0.15)
    assert false <= 5
    assert np.median(late) <= 50


def test_a_loss_that_falls_is_no_drift_and_recovery_ends_one() -> None:
    random, watch = np.random.default_rng(1), LossWatch()
    told = [
        watch.add(loss, t) for t, loss in enumerate(np.repeat([1.0, 0.3, 0.9, 0.3], 200) * skills(random, 800, 1.0))
    ]
    assert not any(one.drifted for one in told[:400])
    assert told[599].drifted and told[599].value > 2
    assert not told[-1].drifted and told[-1].since_ms is None


def test_a_watch_of_losses_takes_what_it_gets() -> None:
    watch = LossWatch()
    for t in range(60):
        assert not watch.add((0.5, float("nan"))[t % 2], t).drifted
    again, twin = pickle.loads(pickle.dumps(watch)), copy.deepcopy(watch)
    for t in range(60, 120):
        told = [each.add(float("inf"), t) for each in (watch, again, twin)]
    assert told[0] == told[1] == told[2] and told[0].drifted
    assert not LossWatch().add(0.0, 0).drifted
    for wrong in ({"confidence": 2.0}, {"rise": 0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LossWatch(**wrong)


class Known(StreamDriver):
    """A driver whose model comes with the reference that its trainer made."""

    def __init__(self, network: Network, reference: Reference) -> None:
        self._reference = reference
        super().__init__(network)

    def _deployed(self, network: Network, model: str) -> DeployedModel:
        return DeployedModel(model, engine_of(network, self._slots), self._reference)


def test_kilowatts_that_become_watts_are_told_of_inputs_and_of_the_loss(household: Series) -> None:
    """Eight meters, each with days of its own, through a shard; the watch gets what a server's watch gets of it. In the
    middle of them the power is sent in W. The model forecasts the other channels: of the power itself persistence
    would be as wrong, in the new unit, as the model.
    """
    trained, meters, before, readings, poll = 40_000, 8, 3000, 4500, 50
    power = household.features[0]
    first = int(np.searchsorted(household.at_ms, np.datetime64("2009-01-05", "ms").astype(np.int64)))
    train, rest = slice(first, first + trained), slice(first + trained, first + trained + meters * readings)
    x, at_ms = np.asarray(household.x[train]), np.asarray(household.at_ms[train])
    config = ModelConfig(household.features, household.features[1:], hidden=8, linear=4, scaler_memory=10_000)
    network = fit(config, x, at_ms, Recipe(updates=60)).network
    driver, watch = Known(network, Reference.of(household.features, x)), DriftWatch()
    sent = np.array(household.x[rest]).reshape(meters, readings, -1)
    sent[:, before:, 0] *= 1000
    times = household.at_ms[rest].reshape(meters, readings)

    since: dict[tuple[str, str], int] = {}  # what has drifted -> minute that it was first said to have
    for minute in range(0, readings, poll):
        for meter in range(meters):
            for value in encode(sent[meter, minute : minute + poll], times[meter, minute : minute + poll]):
                driver.send_record(f"meter-{meter}", value)
        driver.run()
        assert driver.shard is not None
        stats = driver.shard.stats
        driver.shard.outcomes.show(stats)
        assert stats.inputs is not None and stats.figures is not None
        told = watch.look(stats.model, [stats.inputs], [stats.figures], minute + poll)
        for one in told:
            if one.drifted and one.since_ms is not None:
                assert since.setdefault((one.name, one.measure), one.since_ms) == one.since_ms
        if minute + poll <= before:
            assert since == {}, minute
    assert {one.measure for one in told} == {"psi", "ks", "missing", "adwin"}
    assert set(since) == {(power, "psi"), (power, "ks"), ("loss", "adwin")}  # and of no other channel
    late = {measure: minute - before for (_, measure), minute in since.items()}
    assert 0 < late["psi"] <= 200 and 0 < late["ks"] <= 700 and 0 < late["adwin"] <= 1000, late
