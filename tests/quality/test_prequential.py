"""Live figures are those of the backtest, look into no future, and add up."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backtest.ridge import RidgeVar, filled
from services.backtest.scores import StreamForecasts, scored
from services.datasets.catalogue import series_of
from services.quality.forecast_buffer import ForecastBuffer, followed
from services.quality.prequential import RunningMetrics

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=6)


def pieces(n: int, sizes: list[int]) -> Iterator[slice]:
    """Batches of these sizes, again and again, until all n readings are through."""
    at, k = 0, 0
    while at < n:
        yield slice(at, min(n, at + sizes[k % len(sizes)]))
        at, k = at + sizes[k % len(sizes)], k + 1


def plainly(numbers: list[int], truth: np.ndarray, y: np.ndarray, step: int) -> dict[int, tuple[float, float]]:
    """Row -> (what was said of it, the reading at which it was said), by a loop over readings."""
    before: dict[int, list[int]] = {}
    found = {}
    for row, number in enumerate(numbers):
        past = before.setdefault(number, [])
        if len(past) >= step:
            source = past[-step]
            found[row] = (float(y[source, step - 1, 0]), float(truth[source, 0]))
        past.append(row)
    return found


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), SIZES, st.sets(st.integers(1, 7), min_size=1))
def test_a_truth_meets_what_was_said_of_it_however_batches_fall(
    numbers: list[int], sizes: list[int], steps: set[int]
) -> None:
    n = len(numbers)
    truth = np.arange(n, dtype=np.float32)[:, None]
    y = (1000 * np.arange(n)[:, None] + np.arange(1, 8)).astype(np.float32)[:, :, None]  # says who said it, and of what
    pending, got = ForecastBuffer(1, sorted(steps)), {step: {} for step in steps}
    for some in pieces(n, sizes):
        for one in pending.match(np.array(numbers[some]), truth[some], y[some], y[some] - 0.5, y[some] + 0.5):
            assert (np.diff(one.rows) > 0).all() and one.lo is not None and one.hi is not None
            assert (one.hi - one.lo == 1).all()
            rows = (one.rows + some.start).tolist()
            got[one.step] |= dict(
                zip(rows, zip(one.y[:, 0].tolist(), one.last[:, 0].tolist(), strict=True), strict=True)
            )
    assert got == {step: plainly(numbers, truth, y, step) for step in steps}


def agree(figures: RunningMetrics, runs: list[StreamForecasts], *, banded: bool) -> None:
    """The backtest's definitions, overall and for each target; it prints six digits."""
    names = tuple("abcdefg"[: runs[0].truth.shape[1]])
    theirs = scored(runs, names)
    known = [~np.isnan(run.truth) & ~np.isnan(run.last) for run in runs]
    squares = np.concatenate([np.square(run.y - run.truth)[mask] for run, mask in zip(runs, known, strict=True)])
    assert figures.figures()["n"] == len(squares)
    assert figures.figures()["mse"] == pytest.approx(squares.mean(), rel=1e-9)
    by_target = theirs["targets"]
    assert isinstance(by_target, dict)
    for target, expected in ((None, theirs), *((k, by_target[name]) for k, name in enumerate(names))):
        ours = figures.figures(target=target)
        for name in ("mse", "mae", "persistence_mse"):
            if expected[name] is None:
                assert ours[name] is None
            else:
                assert ours[name] == pytest.approx(expected[name], rel=6e-6)
        if banded and expected["coverage_80"] is not None:
            assert ours["coverage"] == pytest.approx(expected["coverage_80"], abs=6e-5)


@given(st.integers(0, 2**32 - 1), SIZES, st.booleans())
def test_the_figures_are_those_of_the_backtest(seed: int, sizes: list[int], banded: bool) -> None:
    random = np.random.default_rng(seed)
    streams, readings = 4, 60
    mean, std = random.normal(0, 100, 3), random.uniform(0.1, 100, 3)
    x = (mean + std * random.normal(size=(streams, readings, 3)).cumsum(axis=1)).astype(np.float32)
    x[random.random(x.shape) < 0.2] = np.nan
    y = np.nan_to_num(x, nan=5.0) + (std * random.normal(size=x.shape)).astype(np.float32)
    width = (std * random.exponential(size=x.shape)).astype(np.float32)
    z = [(each.astype(np.float64) - mean) / std for each in (x, y, y - width, y + width)]
    runs = [
        StreamForecasts(
            z[0][s, 1:], z[0][s, :-1], z[1][s, :-1], *(each[s, :-1] if banded else None for each in z[2:]), z[1][s, 1:]
        )
        for s in range(streams)
    ]
    numbers = np.tile(np.arange(streams), readings)
    x, y, lo, hi = (each.swapaxes(0, 1).reshape(-1, 3) for each in (x, y, y - width, y + width))
    pending, figures = ForecastBuffer(3, banded=banded), RunningMetrics(std)
    for some in pieces(len(numbers), sizes):
        band = (lo[some], hi[some]) if banded else (None, None)
        figures.add_matched(x[some], pending.match(numbers[some], x[some], y[some], *band))
    agree(figures, runs, banded=banded)
    assert banded or figures.figures()["coverage"] is figures.figures()["pinball"] is None


def test_the_figures_are_those_of_the_backtest_on_a_household() -> None:
    series = series_of("household-power")[0]
    x = np.asarray(series.x[:60_000])  # with gaps
    mean, std = np.nanmean(x[:40_000], axis=0, dtype=np.float64), np.nanstd(x[:40_000], axis=0, dtype=np.float64)
    z = (x.astype(np.float64) - mean) / std
    said = RidgeVar([filled(z[:40_000])]).predict(filled(z), 40_000)  # of each reading from there on
    y = np.full_like(x, np.nan)
    y[39_999:-1] = said * std + mean
    band = [y - np.float32(0.5) * std.astype(np.float32), y + np.float32(0.5) * std.astype(np.float32)]
    pending, figures = ForecastBuffer(x.shape[1]), RunningMetrics(std)
    for some in pieces(len(x), [1, 700, 3000]):
        figures.add_matched(x[some], pending.match(np.zeros(some.stop - some.start, np.int64), x[some], y[some],
                                                   band[0][some], band[1][some]))  # fmt: skip
    run = [(each[39_999:-1].astype(np.float64) - mean) / std for each in (y, *band)]
    agree(figures, [StreamForecasts(z[40_000:], z[39_999:-1], *run, said)], banded=True)
    assert figures.figures()["unsaid"] > 0  # what came before the first prediction


def test_only_what_was_known_when_it_was_said_is_compared() -> None:
    """Persistence three readings ahead is the reading at which it was said, not the one before the truth."""
    truth = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    pending, figures = ForecastBuffer(1, (1, 3), banded=False), RunningMetrics(np.ones(1), (1, 3))
    figures.add_matched(truth, pending.match(np.zeros(4, np.int64), truth, np.full((4, 3), 5.0, np.float32)))
    assert figures.figures(3)["persistence_mse"] == 49 and figures.figures(3)["mse"] == 4
    assert figures.figures(1)["persistence_mse"] == pytest.approx((1 + 4 + 16) / 3)


def test_what_a_truth_or_a_prediction_lacks_does_not_count() -> None:
    nan, inf = np.nan, np.inf
    truth, last = np.array([[nan], [1.0], [1.0], [1.0]]), np.array([[0.0], [nan], [0.0], [0.0]])
    y = np.array([[1.0], [1.0], [inf], [3.0]])
    figures = RunningMetrics(np.array([2.0]))
    figures.add(truth, y, y - 3, y + 3, last)
    told = figures.figures()
    assert (told["n"], told["unsaid"], told["mse"], told["persistence_mse"], told["coverage"]) == (1, 1, 1, 0.25, 1)
    np.testing.assert_array_equal(figures.losses(truth, y, last), [nan, nan, inf, 1.0])
    json.dumps(told, allow_nan=False)
    assert RunningMetrics(np.ones(2)).figures(target=1)["mse"] is None


def test_pinball_is_least_for_a_band_of_its_level() -> None:
    random = np.random.default_rng(5)
    truth, zero = random.normal(size=(20_000, 1)), np.zeros((20_000, 1))
    costs = {}
    for half in (0.8, 1.2816, 1.8):  # 1.2816 is the normal distribution's 90th percentile
        figures = RunningMetrics(np.ones(1), level=0.8)
        figures.add(truth, zero, zero - half, zero + half, zero)
        costs[half] = figures.figures()["pinball"]
    assert min(costs, key=lambda half: costs[half]) == 1.2816
    assert costs[1.2816] == pytest.approx(0.1755, rel=0.03)  # density at that percentile


def test_the_present_forgets_and_ever_does_not() -> None:
    figures, ones, zeros = RunningMetrics(np.ones(1), half_life=100), np.ones((100, 1)), np.zeros((100, 1))
    for error in [3.0] * 20 + [1.0] * 10:
        figures.add(zeros, error * ones, None, None, zeros)
    assert figures.figures(present=True)["mse"] == pytest.approx(1, abs=0.01)
    assert figures.figures()["mse"] == pytest.approx((20 * 9 + 10) / 30)


@given(st.integers(0, 2**32 - 1))
def test_shards_add_up(seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [[random.normal(size=(random.integers(0, 20), 2)) for _ in range(1)] for _ in range(4)]
    whole, sum_of = RunningMetrics(np.ones(2)), RunningMetrics(np.ones(2))
    for (truth,) in parts:
        y = random.normal(size=truth.shape)
        whole.add(truth, y, y - 1, y + 1, truth * 0)
        one = RunningMetrics(np.ones(2))
        one.add(truth, y, y - 1, y + 1, truth * 0)
        sum_of = sum_of + pickle.loads(pickle.dumps(copy.deepcopy(one)))
    np.testing.assert_allclose(sum_of.ever, whole.ever, atol=1e-9)
    with pytest.raises(ValueError, match="different models"):
        whole + RunningMetrics(np.array([1.0, 2.0]))


def test_a_stream_that_ends_is_predicted_anew_and_others_go_on() -> None:
    pending = ForecastBuffer(1, (2,), banded=False)

    def said(value: float, numbers: list[int]) -> dict[int, float]:
        column = np.full((len(numbers), 1), value, np.float32)
        (one,) = pending.match(np.array(numbers), column, np.repeat(column, 2, axis=1))
        return {numbers[row]: float(y) for row, y in zip(one.rows, one.y[:, 0], strict=True)}

    assert said(1.0, [0, 1, 5000]) == said(2.0, [0, 1]) == {}  # the third one is silent from here on
    pending.forget(np.array([0, 99_999]))
    assert said(3.0, [0, 1]) == {1: 1.0}
    assert said(4.0, [0, 1]) == {1: 2.0}
    assert said(5.0, [0, 1]) == {0: 3.0, 1: 3.0}
    assert said(6.0, [5000]) == {}
    assert said(7.0, [5000]) == {5000: 1.0}  # its next but one reading after all that time
    again = pickle.loads(pickle.dumps(pending))
    assert again.match(np.array([0]), np.ones((1, 1), np.float32), np.ones((1, 2), np.float32))[0].y.tolist() == [[4.0]]


@pytest.mark.parametrize(("steps", "banded"), [((1,), True), ((1, 2, 4), True), ((24,), False)])
def test_memory_is_what_is_said_of_it(steps: tuple[int, ...], banded: bool) -> None:
    pending = ForecastBuffer(3, steps, banded=banded)
    n = 4096
    y = np.zeros((n, max(steps), 3), np.float32)
    for _ in range(60):
        pending.match(np.arange(n), np.zeros((n, 3), np.float32), y, y, y)
    assert len(pickle.dumps(pending)) == pytest.approx(n * pending.bytes_per_stream, rel=0.02)


def test_followed_steps_are_few() -> None:
    assert followed(1) == (1,) and followed(24) == (1, 2, 4, 8, 16, 24) and followed(8) == (1, 2, 4, 8)
    for horizon in range(1, 200):
        assert sum(followed(horizon)) < 3 * horizon + 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="have 2 steps"):
        ForecastBuffer(1, (3,)).match(np.zeros(1, np.int64), np.zeros((1, 1), np.float32), np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match="from 1 on"):
        ForecastBuffer(1, (0,))
    with pytest.raises(ValueError, match="std is"):
        RunningMetrics(np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="step 2 is not one of"):
        RunningMetrics(np.ones(1)).add(np.ones((1, 1)), np.ones((1, 1)), None, None, np.ones((1, 1)), step=2)
