"""Nothing that is learned from is later than anything that judges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn.train.dataset import LabeledSeries
from rnn.train.practice import Practice
from services.trainer.ranges import WrongRange
from services.trainer.split import clock, fitting, split


def series(at_ms: list[int]) -> LabeledSeries:
    n = len(at_ms)
    none = np.zeros((n, 0), np.float32)
    return LabeledSeries(np.zeros((n, 1), np.float32), np.array(at_ms, np.int64), np.zeros(n, np.uint8), none)


@given(st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=60), min_size=1, max_size=5))
def test_parts_follow_each_other_in_time_in_every_stream_at_the_same_two_times(streams: list[list[int]]) -> None:
    made = [series(at_ms) for at_ms in streams]
    try:
        parts = split(made, 0.2, 0.2)
    except WrongRange:
        clocks = np.concatenate([clock(one.at_ms) for one in made])
        assert len(clocks) < 20 or len(set(clocks.tolist())) < 0.9 * len(clocks)  # few, or many of one time
        return
    assert sum(parts.rows(made)) == sum(map(len, streams)) and min(parts.rows(made)) > 0
    for one, learned, known in zip(made, parts.learned, parts.known, strict=True):
        assert 0 <= learned <= known <= len(one)
        assert (one.at_ms[:learned] < parts.validate_ms).all()
        assert (one.at_ms[:known] < parts.test_ms).all()
        assert (clock(one.at_ms)[learned:known] >= parts.validate_ms).all()
        assert (clock(one.at_ms)[known:] >= parts.test_ms).all()


def test_shares_are_about_what_was_asked_for() -> None:
    made = [series(list(range(1000))), series(list(range(500, 1500)))]
    assert split(made, 0.1, 0.1).rows(made) == (1600, 200, 200)


def test_a_clock_of_a_week_ago_drags_nothing_with_it() -> None:
    at_ms = list(range(1000))
    at_ms[950] = -600_000
    made = [series(at_ms)]
    assert split(made, 0.1, 0.1).rows(made) == (800, 100, 100)


def test_too_few_times_are_said_to_be_too_few() -> None:
    with pytest.raises(WrongRange, match=r"3 readings cannot be parted in time .*: give a longer range"):
        split([series([5, 6, 7])], 0.1)


def test_clocks_that_went_back_in_all_streams_are_named() -> None:
    again = [*range(300), *range(100)]
    with pytest.raises(WrongRange, match=r"100 of them came with a time that is not after their stream's latest: look"):
        split([series(again)], 0.1)


def test_short_parts_shorten_the_burn_in_and_too_short_ones_are_refused() -> None:
    recipe = Practice(burn_in=64)
    parts = split([series(list(range(4000)))], 0.1)
    assert fitting(recipe, parts) is recipe
    assert fitting(recipe, split([series(list(range(500)))], 0.1)).burn_in == 10
    with pytest.raises(WrongRange, match="too few to train on"):
        fitting(recipe, split([series(list(range(50)))], 0.1))
