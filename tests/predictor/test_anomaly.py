"""The sketch of surprises: what it promises of probabilities, of what it can be taught, and of its rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from services.predictor.anomaly import PATIENCE, SPAN, Surprise, calibrated
from services.predictor.score_calibration import LEAST, Calibration, Tail, TooFewScores

FIXED = 20_261_125


def scores(n: int, random: np.random.Generator, scale: float = 1.0) -> NDArray[np.float64]:
    """As a model's would be: half of a heavy-tailed error's square."""
    errors: NDArray[np.float64] = scale * random.standard_t(5, n)
    return np.square(errors) / 2


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrated([scores(20_000, np.random.default_rng(FIXED))])


def one_stream(n: int) -> NDArray[np.int64]:
    return np.zeros(n, np.int64)


def test_one_in_a_thousand_is_one_in_a_thousand(calibration: Calibration) -> None:
    random, streams, each = np.random.default_rng(FIXED + 1), 200, 1000
    sketch = Surprise(calibration, streams)
    p = np.concatenate([sketch.fold(np.arange(streams), scores(streams, random)).p for _ in range(each)])
    for level, off in ((0.1, 1.05), (1e-2, 1.15), (1e-3, 1.5), (1e-4, 3.0)):
        assert level / off < (p <= level).mean() < level * off, level


def test_a_stream_of_another_scale_gets_its_own_probabilities(calibration: Calibration) -> None:
    random = np.random.default_rng(FIXED + 2)
    louder = scores(12_000, random, scale=2.0)
    p = Surprise(calibration, 1).fold(one_stream(len(louder)), louder).p
    assert (p[:300] <= 0.01).mean() > 0.03  # to the model they are strange
    assert 0.5e-2 < (p[4000:] <= 0.01).mean() < 2e-2
    assert 0.2e-3 < (p[4000:] <= 0.001).mean() < 3e-3


def test_what_is_more_surprising_is_less_probable_and_judged_before_it_is_learned(calibration: Calibration) -> None:
    sketch = Surprise(calibration, 3)
    rising = np.array([-1.0, 0.0, 0.3, 1.0, 5.0, 50.0, 1e12])
    p = [float(Surprise(calibration, 1).fold(one_stream(1), rising[k : k + 1]).p[0]) for k in range(len(rising))]
    assert p == sorted(p, reverse=True) and p[0] == 1.0 and 0 <= p[-1] < 1e-6
    made = sketch.fold(np.array([2, 0, 2]), np.array([50.0, 1.0, 50.0]))
    assert made.p[0] == p[5] < made.p[2]  # the second one was less of a surprise


def test_what_is_said_does_not_depend_on_neighbours_or_on_the_cut(calibration: Calibration, seed: int) -> None:
    random = np.random.default_rng(seed)
    slots, given = random.integers(0, 40, 3000), scores(3000, random)
    given[random.random(3000) < 0.02] = np.nan
    whole = Surprise(calibration, 40)
    at_once = whole.fold(slots, given)
    pieces, sketch = [], Surprise(calibration, 40)
    for part in np.split(np.arange(3000), np.sort(random.integers(0, 3000, 50))):
        pieces.append(sketch.fold(slots[part], given[part]))
    for name in ("p", "lasting", "evidence"):
        np.testing.assert_array_equal(np.concatenate([getattr(one, name) for one in pieces]), getattr(at_once, name))
    np.testing.assert_array_equal(sketch.table, whole.table)
    alone = Surprise(calibration, 1).fold(one_stream(int((slots == 7).sum())), given[slots == 7])
    np.testing.assert_array_equal(alone.p, at_once.p[slots == 7])
    assert np.isnan(at_once.p[np.isnan(given)]).all()


def test_rows_bring_back_the_same_bits(calibration: Calibration, seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = Surprise(calibration, 8), Surprise(calibration, 5)
    first.fold(random.integers(0, 8, 500), scores(500, random))
    rows = first.rows(np.array([6, 1]))
    assert rows.shape == (2, first.row_bytes) and first.row_bytes <= 128
    second.load(np.array([0, 4]), rows)
    np.testing.assert_array_equal(second.rows(np.array([0, 4])), rows)
    later = scores(2, random)
    np.testing.assert_array_equal(
        first.fold(np.array([6, 1]), later).p, second.fold(np.array([0, 4]), later).p
    )  # fmt: skip
    second.clear(np.array([4]))
    np.testing.assert_array_equal(second.table[4], second.table[1])
    assert first.layout == second.layout
    with pytest.raises(ValueError, match="want uint8"):
        second.load(np.array([0]), rows[:, :-4])
    with pytest.raises(ValueError, match="at least 1"):
        Surprise(calibration, 0)


def test_an_anomaly_teaches_little_and_a_change_is_learned_in_the_end(calibration: Calibration) -> None:
    random = np.random.default_rng(FIXED + 3)
    sketch = Surprise(calibration, 1)
    sketch.fold(one_stream(5000), scores(5000, random))
    before = Surprise(calibration, 1)
    before.load(one_stream(1), sketch.rows(one_stream(1)))
    anomaly = sketch.fold(one_stream(200), scores(200, random, scale=6.0))
    assert anomaly.alarm(1.0)[SPAN:].mean() > 0.95  # it stays in alarm, though single readings of it are not
    assert (anomaly.p <= 5e-4).mean() < 0.6
    after = sketch.fold(one_stream(4000), scores(4000, random))
    assert not after.alarm(1.0)[3 * SPAN : 1000].any()
    assert 0.5e-2 < (after.p <= 1e-2).mean() < 2e-2  # a lasting anomaly has not made anomalies normal
    changed = before.fold(one_stream(6000), scores(6000, random, scale=6.0)).alarm(1.0)
    assert changed[SPAN:PATIENCE].mean() > 0.95 and changed[-2000:].mean() < 0.02


def test_alarms_keep_their_budget(calibration: Calibration) -> None:
    random = np.random.default_rng(FIXED + 4)
    sketch, streams = Surprise(calibration, 200), np.arange(200)
    made = [sketch.fold(streams, scores(200, random)) for _ in range(1000)]
    for budget in (1.0, 10.0):
        share = 1000 * np.concatenate([one.alarm(budget) for one in made]).mean()
        assert budget / 2 < share < 2 * budget


def test_a_calibration_survives_json_and_refuses_what_is_none(calibration: Calibration) -> None:
    again = Calibration.from_tree(json.loads(json.dumps(calibration.to_tree())))
    values = np.array([0.0, 0.1, 3.0, 40.0, 1e9])
    for name in ("score", "lasting"):
        tail, other = getattr(calibration, name), getattr(again, name)
        np.testing.assert_array_equal(tail.surprise(values), other.surprise(values))
        assert tail.at(float(tail.surprise(np.array([tail.at(11.0)]))[0])) == pytest.approx(tail.at(11.0))
    broken = calibration.to_tree()
    for change in ({"shape": 0.0}, {"scale": float("inf")}, {"values": [2.0, 1.0], "nats": [0.0, 1.0]}):
        with pytest.raises(ValueError, match="a tail wants"):
            Calibration.from_tree(broken | {"score": broken["score"] | change})


def test_few_equal_and_absurd_scores_are_taken_or_refused() -> None:
    with pytest.raises(TooFewScores, match=f"give {LEAST} at least"):
        calibrated([np.ones(LEAST - 1), np.full(100, np.nan)])
    for odd in (np.zeros(LEAST), np.r_[np.zeros(99), 1.0], np.full(60, 1e12), np.r_[np.ones(95), 1e3, 1e6, 1e12]):
        made = Surprise(calibrated([odd]), 1).fold(one_stream(len(odd)), odd)
        assert np.isfinite(made.p).all() and ((made.p >= 0) & (made.p <= 1)).all()
    ties = Tail.fitted(np.repeat([0.0, 1.0], 50), 0.3, 10)
    np.testing.assert_allclose(ties.surprise(np.array([0.0, np.nan, 1.0])), [0, np.nan, 0.7], atol=0.06)
