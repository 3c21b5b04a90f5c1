"""The engine: what it predicts, and that a stream's result depends on nothing but its own readings, bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.nn.cells import CELLS
from rnn.nn.heads import band_width
from rnn.nn.network import Network
from rnn.serve.engine import Engine, Result
from rnn.serve.ordering import DUPLICATE, LATE, MISSING, NEW, RESET

NAMES = ("a", "b", "c", "d", "e")


def network_of(features: int = 3, targets: tuple[str, ...] = (), seed: int = 0, **rest: object) -> Network:
    """A network whose weights are large enough to matter, with a global scaler that is not the identity."""
    torch.manual_seed(seed)
    network = Network(ModelConfig(NAMES[:features], targets, **{"interval_s": 1.0, **rest}))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.normal_(std=0.3)
        network.scaler_mean.normal_()
        network.scaler_std.uniform_(0.5, 2)
    return network


class Log:
    """Readings in the order they came, and any way to feed them to an engine."""

    def __init__(
        self, slots: NDArray[np.int64], x: NDArray[np.float32], at_ms: NDArray[np.int64], seq: NDArray[np.int64]
    ):
        self.slots, self.x, self.at_ms, self.seq = slots, x, at_ms, seq

    @classmethod
    def drawn(cls, random: np.random.Generator, n: int, slots: int, features: int, nasty: bool = True) -> Log:
        x = random.normal(size=(n, features)).astype(np.float32)
        at_ms, seq = np.cumsum(random.integers(-1, 3, n)) * 500 + 10_000, np.full(n, -1)
        if nasty:
            x[random.random(x.shape) < 0.15] = np.nan
            x[random.random(x.shape) < 0.02] = random.choice([3e38, -3e38, np.inf, 1e30, 1e-40])
            numbered = random.random(n) < 0.5
            seq[numbered] = random.integers(0, 8, n)[numbered]
        return cls(random.integers(0, slots, n), x, at_ms, seq)

    def feed(self, engine: Engine, cuts: list[int]) -> Result:
        """Runs the parts between cuts one after the other; the results, joined."""
        bounds = [0, *sorted(cuts), len(self.slots)]
        parts = [
            engine.run(*(array[a:b] for array in (self.slots, self.x, self.at_ms, self.seq)))
            for a, b in itertools.pairwise(bounds)
        ]
        lo, hi = (
            None if parts[0].lo is None else np.concatenate([getattr(part, edge) for part in parts])
            for edge in ("lo", "hi")
        )
        y, score, flags = (np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "score", "flags"))
        return Result(y, lo, hi, score, flags)

    def only(self, chosen: NDArray[np.bool_]) -> Log:
        return Log(self.slots[chosen], self.x[chosen], self.at_ms[chosen], self.seq[chosen])


def bits(result: Result, chosen: NDArray[np.bool_] | slice = slice(None)) -> list[bytes | None]:
    arrays = (result.y, result.lo, result.hi, result.score, result.flags)
    return [None if array is None else array[chosen].tobytes() for array in arrays]


def unrolled(network: Network, x: NDArray[np.float32], at_ms: NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
    """What training code says of readings x [T, n, features]: y and scale in raw units, std, each [T, n, targets]."""
    inputs = network.inputs
    state, clock = inputs.initial(x.shape[1])
    said = [
        inputs.advance(state, clock, torch.from_numpy(row), torch.from_numpy(at))
        for row, at in zip(x, at_ms, strict=True)
    ]
    features, last, std, mean = (torch.stack(part) for part in zip(*said, strict=True))
    target = list(network.config.target_index)
    with torch.no_grad():
        change, scale = network.head(network.unroll(features)[0])
    std = std[..., target]
    y = (last[..., target] + change) * std + mean[..., target]
    return y, y.new_zeros(y.shape) if scale is None else scale * std, std


@pytest.mark.parametrize("head", ["gaussian", "point"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_engine_says_what_an_offline_unroll_says(cell: str, layers: int, head: str) -> None:
    network = network_of(3, ("c", "a"), cell=cell, layers=layers, head=head, hidden=12, scaler_memory=30)
    random = np.random.default_rng(0)
    steps, streams = 40, 7
    x = random.normal(size=(steps, streams, 3)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    at_ms = np.arange(steps)[:, None] * 1000 + random.integers(0, 2500, (steps, streams))
    y, scale, std = (part.double().numpy() for part in unrolled(network, x, at_ms))

    engine = Engine(network, streams)
    log = Log(np.tile(np.arange(streams), steps), x.reshape(-1, 3), at_ms.reshape(-1), np.full(steps * streams, -1))
    result = log.feed(engine, [])
    assert np.allclose(result.y.reshape(y.shape), y, atol=1e-5)
    if result.lo is None or result.hi is None:
        assert head == "point" and np.isnan(result.score).all()
        return
    width = band_width(network.config.band)
    assert np.allclose(result.lo.reshape(y.shape), y - width * scale, atol=1e-5)
    assert np.allclose(result.hi.reshape(y.shape), y + width * scale, atol=1e-5)
    truth, observed = x[1:, :, [2, 0]], ~np.isnan(x[1:, :, [2, 0]])
    nats = 0.5 * ((truth - y[:-1]) / scale[:-1]) ** 2 + np.log(scale[:-1] / std[:-1]) + 0.5 * np.log(2 * np.pi)
    with np.errstate(invalid="ignore"):
        expected = np.where(observed, nats, 0).sum(axis=2) / observed.sum(axis=2)
    score = result.score.reshape(steps, streams)
    assert np.isnan(score[0]).all()
    assert np.allclose(score[1:], expected, atol=1e-4, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_grouping_gives_the_same_bits(data: st.DataObject) -> None:
    network = network_of(
        features := data.draw(st.integers(1, 5)),
        data.draw(st.permutations(NAMES[:features]).flatmap(lambda p: st.integers(0, features).map(lambda k: p[:k]))),
        cell=data.draw(st.sampled_from(sorted(CELLS))),
        hidden=data.draw(st.sampled_from([1, 3, 7, 8, 13, 24, 33, 64])),
        layers=data.draw(st.integers(1, 2)),
        head=data.draw(st.sampled_from(["gaussian", "gaussian", "point"])),
        scaler_memory=data.draw(st.sampled_from([0, 1, 8, 100])),
    )
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, slots = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 30))
    log = Log.drawn(random, n, slots, features, nasty=data.draw(st.booleans()))
    one_by_one, grouped = Engine(network, slots), Engine(network, slots)
    singly = log.feed(one_by_one, list(range(1, n)))
    cuts = data.draw(st.lists(st.integers(0, n), max_size=4))
    assert bits(log.feed(grouped, cuts)) == bits(singly)
    assert (grouped.rows(np.arange(slots)) == one_by_one.rows(np.arange(slots))).all()


@pytest.mark.parametrize(("cell", "hidden"), [("lstm", 64), ("gru", 20), ("elman", 9), ("mingru", 12)])
def test_batch_size_and_place_change_no_bit(cell: str, hidden: int) -> None:
    network = network_of(5, ("b",), cell=cell, hidden=hidden, layers=2)
    random = np.random.default_rng(1)
    streams = 1100
    rounds = [Log.drawn(random, streams, 1, 5) for _ in range(2)]
    alone = Engine(network, streams)
    expected = []
    for log in rounds:
        log.slots = np.arange(streams)
        expected.append(log.feed(alone, list(range(8, streams, 8))))
    for size in (1, 7, 9, 17, 31, 33, 57, 63, 65, 73, 100, 127, 129, 200, 321, 500, 777, 1025, 1100):
        engine, some = Engine(network, streams), random.permutation(streams)[:size]
        for log, result in zip(rounds, expected, strict=True):
            part = engine.run(log.slots[some], log.x[some], log.at_ms[some], log.seq[some])
            assert bits(part) == bits(result, some), size  # type: ignore[arg-type]
        assert (engine.rows(some) == alone.rows(some)).all()


def test_long_backlogs_are_the_same_as_single_readings() -> None:
    network = network_of(hidden=16, cell="gru")
    log = Log.drawn(np.random.default_rng(2), 3000, 5, 3)
    log.slots[log.slots > 2] = 0  # some streams have many more readings than others
    whole, parts = Engine(network, 5), Engine(network, 5)
    assert bits(log.feed(whole, [])) == bits(log.feed(parts, list(range(1, 3000, 3))))
    assert (whole.rows(np.arange(5)) == parts.rows(np.arange(5))).all()


def test_more_readings_than_fit_at_once() -> None:
    network = network_of(hidden=512, layers=1, cell="lstm")
    log = Log.drawn(np.random.default_rng(3), 1500, 700, 3)
    whole, parts = Engine(network, 700), Engine(network, 700)
    assert bits(log.feed(whole, [])) == bits(log.feed(parts, list(range(100, 1500, 100))))


def test_number_of_threads_changes_no_bit_and_is_left_as_it_was() -> None:
    network, random = network_of(hidden=65), np.random.default_rng(4)
    log = Log.drawn(random, 1500, 1400, 3)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(bits(log.feed(Engine(network, 1400), [])))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


def test_poison_resets_its_stream_and_no_other() -> None:
    network, random = network_of(hidden=10), np.random.default_rng(5)
    log = Log.drawn(random, 200, 6, 3, nasty=False)
    clean = log.feed(Engine(network, 6), [])
    hit = np.flatnonzero(log.slots == 4)[5]
    log.x[hit] = 3e38
    engine = Engine(network, 6)
    result = log.feed(engine, [])
    others = log.slots != 4
    assert bits(result, others) == bits(clean, others)
    assert result.flags[hit] & RESET and np.isnan(result.y[hit]).all() and np.isnan(result.score[hit])
    assert result.lo is not None and np.isnan(result.lo[hit]).all()
    assert ((result.flags & RESET) != 0).sum() == 1

    after = log.only((log.slots == 4) & (np.arange(200) > hit))
    anew = after.feed(Engine(network, 6), [])
    assert bits(anew) == bits(result, (log.slots == 4) & (np.arange(200) > hit))
    assert anew.flags[0] & NEW


def test_a_reset_stream_has_the_initial_row() -> None:
    engine = Engine(network_of(), 3)
    fresh = engine.rows(np.arange(3))
    x = np.ones((3, 3), np.float32)
    engine.run(np.arange(3), x, np.arange(3), np.arange(3))
    x[1] = 3e38
    flags = engine.run(np.arange(3), x, np.arange(3) + 10, np.arange(3) + 10).flags
    assert flags.tolist() == [0, RESET, 0]
    assert (engine.rows(np.array([1])) == fresh[1]).all() and (engine.rows(np.array([0])) != fresh[0]).any()


def test_a_stream_of_nothing_but_poison_is_survived() -> None:
    engine = Engine(network_of(), 2)
    n = 300
    slots = np.arange(n) % 2
    x = np.where(slots[:, None] == 0, np.float32(3e38), np.float32(0.5)) * np.ones((1, 3), np.float32)
    result = engine.run(slots, x, np.arange(n), np.full(n, -1))
    assert (result.flags[slots == 0] == NEW | RESET).all()
    assert np.isfinite(result.y[slots == 1]).all() and not (result.flags[slots == 1] & RESET).any()


def test_a_poisoned_feature_that_is_no_target_is_found_with_a_frozen_scaler() -> None:
    engine = Engine(network_of(2, ("a",), scaler_memory=0), 1)
    result = engine.run(
        np.zeros(1, np.int64), np.array([[1, np.inf]], np.float32), np.zeros(1, np.int64), np.full(1, -1)
    )
    assert result.flags[0] & RESET and np.isnan(result.y).all()


@pytest.mark.parametrize("together", [True, False])
def test_a_duplicate_repeats_the_prediction_and_changes_nothing(together: bool) -> None:
    network = network_of()
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    x[2] = 99  # another value under a number already seen
    log = Log(np.zeros(4, np.int64), x, np.array([1000, 2000, 2000, 3000]), np.array([5, 6, 6, 7]))
    engine, plain = Engine(network, 1), Engine(network, 1)
    result = log.feed(engine, [] if together else [1, 2, 3])
    assert result.flags.tolist() == [NEW, 0, DUPLICATE, 0]
    assert result.y[2].tobytes() == result.y[1].tobytes() and np.isnan(result.score[2])
    assert result.lo is not None and result.lo[2].tobytes() == result.lo[1].tobytes()
    without = log.only(np.array([True, True, False, True])).feed(plain, [])
    assert bits(without) == bits(result, np.array([True, True, False, True]))
    assert (engine.rows(np.zeros(1, np.int64)) == plain.rows(np.zeros(1, np.int64))).all()


def test_flags_say_what_was_unusual() -> None:
    x = np.ones((4, 3), np.float32)
    x[0, 1] = x[3, 2] = np.nan
    log = Log(np.zeros(4, np.int64), x, np.array([1000, 2000, 1500, 1500]), np.full(4, -1))
    assert log.feed(Engine(network_of(), 1), []).flags.tolist() == [NEW | MISSING, 0, LATE, LATE | MISSING]


def test_nothing_observed_has_no_score() -> None:
    x = np.ones((3, 3), np.float32)
    x[1], x[2, 0] = np.nan, np.nan
    score = Log(np.zeros(3, np.int64), x, np.arange(3), np.full(3, -1)).feed(Engine(network_of(), 1), []).score
    assert np.isnan(score[:2]).all() and np.isfinite(score[2])


def test_scores_do_not_depend_on_units() -> None:
    random = np.random.default_rng(6)
    log = Log.drawn(random, 200, 3, 3, nasty=False)
    network = network_of()
    plain = log.feed(Engine(network, 3), [])
    network.scaler_mean *= 1000
    network.scaler_std *= 1000
    log.x *= 1000
    large = log.feed(Engine(network, 3), [])
    assert np.allclose(plain.score, large.score, atol=2e-3, equal_nan=True)
    assert np.allclose(plain.y * 1000, large.y, rtol=1e-3, atol=0.5)


def test_an_unlikely_reading_surprises() -> None:
    random = np.random.default_rng(7)
    x = random.normal(size=(100, 3)).astype(np.float32)
    x[90] += 40
    score = (
        Log(np.zeros(100, np.int64), x, np.arange(100) * 1000, np.full(100, -1)).feed(Engine(network_of(), 1), []).score
    )
    assert score[90] > 5 * np.nanmax(np.delete(score, [90, 91]))


def test_results_stay_when_the_engine_goes_on() -> None:
    engine = Engine(network_of(1), 2)
    one = np.ones((2, 1), np.float32)
    result = engine.run(np.arange(2), one, np.arange(2), np.full(2, -1))
    kept = bits(result)
    engine.run(np.arange(2), one * 50, np.arange(2) + 1, np.full(2, -1))
    assert bits(result) == kept and result.y.flags.c_contiguous


def test_the_padding_row_stays_initial() -> None:
    engine = Engine(network_of(), 40)
    padding = {name: part[-1].clone() for name, part in engine.table.parts.items()}
    Log.drawn(np.random.default_rng(8), 500, 40, 3).feed(engine, [100, 101, 350])
    for name, part in engine.table.parts.items():
        assert part[-1].numpy().tobytes() == padding[name].numpy().tobytes()


def test_weights_are_copied() -> None:
    network = network_of()
    engine, log = Engine(network, 3), Log.drawn(np.random.default_rng(9), 20, 3, 3)
    expected = bits(log.feed(Engine(network, 3), []))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.scaler_mean.zero_()
    assert bits(log.feed(engine, [])) == expected


def test_no_readings_are_no_predictions() -> None:
    result = Engine(network_of(), 1).run(
        np.empty(0, np.int64), np.empty((0, 3), np.float32), *[np.empty(0, np.int64)] * 2
    )
    assert result.y.shape == (0, 3) and result.score.shape == (0,)


@pytest.mark.parametrize(
    ("slots", "x", "named"),
    [
        (np.array([3]), np.ones((1, 3), np.float32), "slots"),
        (np.array([-1]), np.ones((1, 3), np.float32), "slots"),
        (np.array([0]), np.ones((1, 2), np.float32), "x: want float32"),
        (np.array([0]), np.ones((1, 3), np.float64), "x: want float32"),
        (np.array([0], np.int32), np.ones((1, 3), np.float32), "slots: want int64"),
    ],
)
def test_misfits_are_refused_before_anything_is_stepped(
    slots: NDArray[np.int64], x: NDArray[np.float32], named: str
) -> None:
    engine = Engine(network_of(), 3)
    with pytest.raises(ValueError, match=named):
        engine.run(slots, x, np.zeros(1, np.int64), np.zeros(1, np.int64))


@pytest.mark.parametrize("cell", CELLS)
def test_this_machine_keeps_the_promise_of_independence(cell: str) -> None:
    assert Engine(network_of(cell=cell, hidden=48), 4).check() == []


@pytest.fixture
def gpu() -> str:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: torch.cuda.is_available() is false here")
    return "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_agrees_with_the_cpu(gpu: str, cell: str) -> None:
    network = network_of(cell=cell, layers=2, hidden=20)
    log = Log.drawn(np.random.default_rng(10), 2000, 300, 3)
    here, there = Engine(network, 300), Engine(network, 300, gpu)
    ours, theirs = log.feed(here, [700]), log.feed(there, [700])
    assert (ours.flags == theirs.flags).all()
    assert np.allclose(ours.y, theirs.y, atol=1e-3, rtol=1e-3, equal_nan=True)
    rows = there.rows(np.arange(300))
    here.load(np.arange(300), rows)
    assert (here.rows(np.arange(300)) == rows).all()


def test_a_gpu_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match="device: 'cuda'"):
        Engine(network_of(), 1, "cuda")
