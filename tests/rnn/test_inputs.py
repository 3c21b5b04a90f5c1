"""The input side: running scaler, missing values, elapsed time; and the clock with its window of sequence numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.nn import clock as clocks
from rnn.nn.inputs import CLIP, Inputs
from rnn.serve import ordering
from rnn.serve.waves import in_waves, one_wave


def inputs_of(features: int, memory: int, interval_s: float = 1.0, mean: float = 0.0, std: float = 1.0) -> Inputs:
    config = ModelConfig(tuple(f"f{k}" for k in range(features)), scaler_memory=memory, interval_s=interval_s)
    return Inputs(config, torch.full((features,), mean), torch.full((features,), std))


def feed(inputs: Inputs, x: NDArray[np.float64], at_ms: NDArray[np.int64] | None = None) -> tuple[torch.Tensor, ...]:
    """Readings x [T, features] of one stream, one after the other; what `advance` said, stacked, and the state."""
    state, clock = inputs.initial(1)
    at_ms = np.arange(len(x)) * 1000 if at_ms is None else at_ms
    said = [
        inputs.advance(state, clock, torch.tensor(row, dtype=torch.float32).unsqueeze(0), torch.tensor([at]))
        for row, at in zip(x, at_ms.tolist(), strict=True)
    ]
    return (*(torch.cat(part) for part in zip(*said, strict=True)), state, clock)


def test_running_scaler_is_welfords_until_its_memory_is_full() -> None:
    random = np.random.default_rng(0)
    x = random.normal(5, 3, size=(90, 1))
    *_, std, mean, _, _ = feed(inputs_of(1, memory=1000, mean=2.0, std=4.0), x)
    count, expected_mean, square = 100.0, 2.0, 100.0 * 16.0  # a tenth of the memory is granted to the global scaler
    for t, value in enumerate(x[:, 0]):
        count += 1
        before = expected_mean
        expected_mean += (value - expected_mean) / count
        square += (value - before) * (value - expected_mean)
        assert mean[t].item() == pytest.approx(expected_mean, abs=1e-4)
        assert std[t].item() == pytest.approx(math.sqrt(square / count), rel=1e-4)


def test_a_full_scaler_forgets_the_past() -> None:
    random = np.random.default_rng(0)
    x = np.concatenate((random.normal(0, 1, size=(500, 1)), random.normal(50, 7, size=(500, 1))))
    *_, std, mean, _, _ = feed(inputs_of(1, memory=50), x)
    assert mean[-1].item() == pytest.approx(50, abs=5)
    assert std[-1].item() == pytest.approx(7, abs=3)


def test_no_memory_freezes_the_global_scaler() -> None:
    features, scaled_last, std, mean, *_ = feed(inputs_of(2, memory=0, mean=1.0, std=2.0), np.full((9, 2), 5.0))
    assert (mean == 1).all() and (std == 2).all() and (scaled_last == 2).all() and (features[:, :2] == 2).all()


def test_missing_values_are_marked_take_the_last_value_and_leave_the_scaler() -> None:
    x = np.array([[np.nan, 1.0], [3.0, 1.0], [np.nan, 2.0], [np.nan, np.nan]])
    features, scaled_last, std, mean, state, _ = feed(inputs_of(2, memory=20, mean=0.5, std=1.5), x)
    assert features[:, 2:4].tolist() == [[1, 0], [0, 0], [1, 0], [1, 1]]
    assert features[0, 0] == 0 and mean[0, 0] == 0.5  # a new stream's last value is the global mean
    assert (mean[1:, 0] == mean[1, 0]).all() and (std[1:, 0] == std[1, 0]).all()
    assert torch.allclose((scaled_last * std + mean)[:, 0], torch.tensor([0.5, 3, 3, 3]))
    assert torch.allclose((scaled_last * std + mean)[:, 1], torch.tensor([1.0, 1, 2, 2]))
    assert not state[:, :6].isnan().any()


def test_constant_and_wild_values_give_bounded_features() -> None:
    x = np.full((3000, 1), 7.0)
    x[-1] = 1e9
    features, *_ = feed(inputs_of(1, memory=100, mean=7.0), x)
    assert features.isfinite().all() and features.abs().max() <= CLIP
    assert not features[:-1, 0].any()


def test_elapsed_time_is_zero_at_the_usual_interval_and_never_negative_time() -> None:
    at_ms = np.array([5_000_000, 5_060_000, 5_060_000, 5_000_000, 5_060_000, 5_180_000])
    features, *_, clock = feed(inputs_of(1, memory=0, interval_s=60), np.zeros((6, 1)), at_ms)
    expected = [math.log1p(dt) - math.log(2) for dt in (1, 1, 0, 0, 0, 2)]  # no time before a stream's first reading
    assert features[:, 2].tolist() == pytest.approx(expected, abs=1e-6)
    assert clock[0, 0] == 5_180_000


def test_lanes_do_not_meet() -> None:
    inputs, random = inputs_of(2, memory=10), np.random.default_rng(1)
    x = torch.tensor(random.normal(size=(30, 5, 2)), dtype=torch.float32)
    state, clock = inputs.initial(5)
    together = [inputs.advance(state, clock, row, torch.full((5,), 1000 * t))[0] for t, row in enumerate(x)]
    alone = feed(inputs, x[:, 3].double().numpy())[0]
    assert torch.allclose(torch.stack(together)[:, 3], alone, atol=1e-6)


def judged(at_ms: list[int], seq: list[int]) -> list[int]:
    """Flags of readings of one stream, each in a call of its own."""
    clock = np.array([clocks.INITIAL] * 2, dtype=np.int64)
    slot = np.zeros(1, dtype=np.int64)
    return [
        int(ordering.check(clock, one_wave(slot), np.array([at]), np.array([number]))[0][0])
        for at, number in zip(at_ms, seq, strict=True)
    ]


def test_times_say_new_and_late() -> None:
    assert judged([10, 20, 20, 15, 21], [-1] * 5) == [ordering.NEW, 0, ordering.LATE, ordering.LATE, 0]


def test_a_repeated_number_is_a_duplicate_only_if_it_is_not_later() -> None:
    assert judged([10, 20, 10, 20, 30], [0, 1, 0, 1, 1])[2:] == [ordering.DUPLICATE, ordering.DUPLICATE, 0]


def test_numbers_may_come_out_of_order_within_the_window() -> None:
    flags = judged([10, 40, 20, 30, 20, 30], [0, 3, 1, 2, 1, 2])
    assert flags[2:] == [ordering.LATE, ordering.LATE, ordering.DUPLICATE, ordering.DUPLICATE]


def test_a_producer_that_starts_anew_is_followed() -> None:
    flags = judged([1000, 2000, 3000, 4000, 4000], [500, 501, 0, 1, 1])
    assert flags == [ordering.NEW, 0, 0, 0, ordering.DUPLICATE]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 300)), max_size=60))
def test_window_agrees_with_a_set_of_numbers(readings: list[tuple[int, int]]) -> None:
    seen: set[int] = set()
    top, last, expected = -1, clocks.NEVER_MS, []
    for at, number in readings:
        known = number in seen and top - number < ordering.WINDOW
        if known and at <= last:
            expected.append(ordering.DUPLICATE)
            continue
        expected.append(ordering.NEW if last == clocks.NEVER_MS else ordering.LATE * (at <= last))
        if number >= 0:
            if known or top - number >= ordering.WINDOW:  # the producer has started anew
                seen, top = set(), number
            seen.add(number)
            top = max(top, number)
        last = max(last, at)
    assert judged([at for at, _ in readings], [number for _, number in readings]) == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
def test_judging_many_at_once_is_judging_one_by_one(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    slots, at_ms, seq = random.integers(0, 4, n), random.integers(0, 20, n), random.integers(-1, 6, n)
    one, many = (np.array([clocks.INITIAL] * 5, dtype=np.int64) for _ in range(2))
    flags, dt_ms = ordering.check(many, in_waves(slots), at_ms, seq)
    singly = [ordering.check(one, one_wave(slots[[k]]), at_ms[[k]], seq[[k]]) for k in range(n)]
    assert flags.tolist() == [int(flag[0]) for flag, _ in singly]
    assert dt_ms.tolist() == [int(dt[0]) for _, dt in singly]
    assert (one == many).all()
