"""rnn.train.dataset: what is held back."""

from __future__ import annotations

import numpy as np

from rnn.train.dataset import LabeledSeries, validation_split


def silent(n: int) -> LabeledSeries:
    return LabeledSeries(
        np.zeros((n, 1), np.float32), np.arange(n), np.zeros(n, np.uint8), np.zeros((n, 0), np.float32)
    )


def test_whole_streams_are_held_back_where_there_are_many():
    one = silent(5)
    many = validation_split([one] * 20, 0.1, 0)
    assert sum(part.all() for part in many) == 2 and sum(part.any() for part in many) == 2
    (few,) = validation_split([silent(10)], 0.2, 0)
    assert few.tolist() == [False] * 8 + [True] * 2


def test_whole_groups_are_held_back():
    one, owners = silent(5), ["kim", "lee", "kim", "ada", "lee", "ada"]
    held = validation_split([one] * 6, 0.3, 0, owners)
    judged = {owner for owner, part in zip(owners, held, strict=True) if part.any()}
    assert len(judged) == 1
    assert all(part.all() == (owner in judged) for owner, part in zip(owners, held, strict=True))


def test_readings_that_stand_alone_are_drawn_from_every_stream():
    held = validation_split([silent(50)] * 12, 0.2, 0, alone=True)
    assert sum(int(part.sum()) for part in held) == 120
    assert all(0 < part.sum() < 50 for part in held)
