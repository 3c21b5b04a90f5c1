"""Online adaptation: it learns what is a stream's own, does no harm where there is nothing to learn, and depends on
nothing but the stream's readings, bit for bit.
"""

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
from rnn.nn.network import Network
from rnn.serve.adapt import Adaptation, Correction
from rnn.serve.build import engine_of
from rnn.serve.engine import Engine
from rnn.serve.ordering import RESET
from rnn.serve.result import Result

NAMES = ("a", "b", "c")
STREAMS = 8


def network_of(targets: tuple[str, ...] = (), seed: int = 0, head_std: float = 0.3, **rest: object) -> Network:
    torch.manual_seed(seed)
    fields = {"interval_s": 1.0, "hidden": 12, "scaler_memory": 50, **rest}
    network = Network(ModelConfig(NAMES, targets, **fields))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.normal_(std=head_std) if head_std else parameter.zero_()
    return network


def feed(engine: Engine, x: NDArray[np.float32], slots: NDArray[np.int64] | None = None, **more: object) -> Result:
    """Readings a second apart."""
    n = len(x)
    slots = np.zeros(n, np.int64) if slots is None else slots
    return engine.run(slots, x, 1000 * np.arange(1, n + 1), np.full(n, -1), **more)  # type: ignore[arg-type]


def drawn(random: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Readings as they may come: some missing, some wild, some that no float can bear."""
    x = random.normal(size=(n, 3)).astype(np.float32)
    x[random.random(x.shape) < 0.15] = np.nan
    x[random.random(x.shape) < 0.02] = random.choice([3e38, -3e38, np.inf, 1e30, 1e-40, 0])
    return x


def bits(result: Result) -> list[bytes]:
    arrays = (result.y, result.lo, result.hi, result.score, result.flags)
    return [np.asarray(array).tobytes() for array in arrays if array is not None]


def joined(parts: list[Result]) -> list[bytes]:
    return [b"".join(pieces) for pieces in zip(*map(bits, parts), strict=True)]


def mse(result: Result, x: NDArray[np.float32], first: int, streams: int = 1) -> float:
    """Of the readings from step `first` on of streams that take turns."""
    error: NDArray[np.float32] = result.y[(first - 1) * streams : -streams] - x[first * streams :]
    return float(np.square(error).mean())


# ---- bits ------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_grouping_and_any_restore_give_the_same_bits(data: st.DataObject) -> None:
    adapt = Adaptation(data.draw(st.sampled_from([1, 3, 7, 8, 12, 99])), data.draw(st.sampled_from([10, 200])))
    network = network_of(
        data.draw(st.sampled_from([(), ("b",), ("c", "a")])),
        cell=data.draw(st.sampled_from(sorted(CELLS))),
        head=data.draw(st.sampled_from(["gaussian", "gaussian", "point"])),
        layers=data.draw(st.integers(1, 2)),
    )
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, slots = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 30))
    x, which, at_ms = drawn(random, n), random.integers(0, slots, n), np.cumsum(random.integers(-1, 3, n)) * 500
    seq = np.where(random.random(n) < 0.5, random.integers(0, 8, n), -1)
    end = (random.random(n) < 0.1).astype(np.uint8)
    everyone = np.arange(slots)

    def run(engine: Engine, some: slice) -> Result:
        return engine.run(which[some], x[some], at_ms[some], seq[some], end=end[some])

    singly, grouped = Engine(network, slots, adapt=adapt), Engine(network, slots, adapt=adapt)
    expected = joined([run(singly, slice(i, i + 1)) for i in range(n)])
    bounds = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=4))), n]
    parts = []
    for begin, stop in itertools.pairwise(bounds):
        parts.append(run(grouped, slice(begin, stop)))
        if data.draw(st.booleans()):  # another table, other slots
            rows, grouped = grouped.rows(everyone), Engine(network, slots + 3, adapt=adapt)
            grouped.load(everyone, rows)
    assert joined(parts) == expected
    assert (grouped.rows(everyone) == singly.rows(everyone)).all()


def test_batch_size_and_place_change_no_bit() -> None:
    network, random = network_of(("b", "a"), hidden=64), np.random.default_rng(1)
    streams, adapt = 300, Adaptation(memory=20)
    x = np.stack([drawn(random, streams) for _ in range(6)])
    engine = Engine(network, streams, adapt=adapt)
    assert engine.check() == []

    def stepped(engine: Engine, some: NDArray[np.int64]) -> None:
        for i, step in enumerate(x):
            engine.run(some, step[some], np.full(len(some), 1000 * i), np.full(len(some), -1))

    for begin in range(0, streams, 8):
        stepped(engine, np.arange(begin, min(begin + 8, streams)))
    for size in (1, 9, 31, 65, 130, 300):
        some, other = random.permutation(streams)[:size], Engine(network, streams, adapt=adapt)
        stepped(other, some)
        assert (other.rows(some) == engine.rows(some)).all(), size


def test_without_adaptation_nothing_is_different() -> None:
    network, x = network_of(), drawn(np.random.default_rng(2), 300)
    plain, adapted = Engine(network, 1), Engine(network, 1, adapt=Adaptation())
    assert plain.table.row_bytes < adapted.table.row_bytes
    assert plain.table.layout != adapted.table.layout
    before = network.state_dict()
    first, second = feed(plain, x), feed(adapted, x)
    assert first.y[0].tobytes() == second.y[0].tobytes()  # nothing is known of the stream yet
    assert all((before[name] == now).all() for name, now in network.state_dict().items())
    with pytest.raises(ValueError, match="another layout"):
        adapted.load(np.zeros(1, np.int64), plain.rows(np.zeros(1, np.int64)))


# ---- what it is worth ------------------------------------------------------------------------------------------------


def autoregression(weights: NDArray[np.float64], seed: int = 3) -> NDArray[np.float32]:
    """x_t = w_t x_{t-1} + noise of 1, three of each of STREAMS streams that take turns."""
    random = np.random.default_rng(seed)
    x = np.zeros((len(weights), STREAMS, 3))
    for t in range(1, len(weights)):
        x[t] = weights[t] * x[t - 1] + random.normal(size=(STREAMS, 3))
    return x.reshape(-1, 3).astype(np.float32)


def turns(x: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.arange(len(x)) % STREAMS


def test_it_learns_a_stream_that_changes() -> None:
    x = autoregression(np.repeat((0.9, 0.1, -0.3), 250))
    network = network_of(head_std=0, seed=1)  # says that all stays as it is
    plain = feed(Engine(network, STREAMS), x, turns(x))
    adapted = feed(Engine(network, STREAMS, adapt=Adaptation(12, 100)), x, turns(x))
    assert mse(adapted, x, 500, STREAMS) < 0.85 * mse(plain, x, 500, STREAMS)
    assert adapted.lo is not None and adapted.hi is not None and plain.lo is not None and plain.hi is not None
    np.testing.assert_allclose(adapted.hi - adapted.lo, plain.hi - plain.lo, rtol=1e-4)  # the band moves as a whole
    middle = (adapted.lo + adapted.hi) / 2
    np.testing.assert_allclose(middle, adapted.y, atol=1e-4)
    assert np.nanmean(adapted.score[500 * STREAMS :]) < np.nanmean(plain.score[500 * STREAMS :])


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("directions", [8, 12])
def test_it_does_no_harm_where_there_is_nothing_to_learn(directions: int, heavy: bool) -> None:
    random = np.random.default_rng(4)
    shape = (800, STREAMS, 3)
    steps = random.standard_t(3, size=shape) if heavy else random.normal(size=shape)
    x = np.cumsum(steps, axis=0).astype(np.float32).reshape(-1, 3)
    network = network_of(head_std=0)  # is right
    plain = feed(Engine(network, STREAMS), x, turns(x))
    adapted = feed(Engine(network, STREAMS, adapt=Adaptation(directions)), x, turns(x))
    assert mse(adapted, x, 1, STREAMS) < 1.01 * mse(plain, x, 1, STREAMS)


def test_an_end_keeps_what_was_learned_and_says_nothing_of_what_follows() -> None:
    x = autoregression(np.full(400, 0.2))
    n, which, end = len(x), turns(x), (np.arange(len(x)) // STREAMS % 10 == 0).astype(np.uint8)
    network = network_of(head_std=0)
    plain = feed(Engine(network, STREAMS), x, which, end=end)
    adapted = feed(Engine(network, STREAMS, adapt=Adaptation(12, 200)), x, which, end=end)
    assert (np.isnan(adapted.score) == np.isnan(plain.score)).all()
    inside = np.flatnonzero(end[:-STREAMS] == 0)
    inside = inside[inside > n // 2]
    errors = [np.square(said.y[inside] - x[inside + STREAMS]).mean() for said in (plain, adapted)]
    assert errors[1] < 0.85 * errors[0]


def test_poison_takes_its_stream_back_to_the_start_and_no_other() -> None:
    network, random = network_of(), np.random.default_rng(5)
    x, which = random.normal(size=(200, 3)).astype(np.float32), np.arange(200) % 2
    engine, clean = Engine(network, 2, adapt=Adaptation()), Engine(network, 2, adapt=Adaptation())
    expected = feed(clean, x, which)
    x[101] = 3e38
    said = feed(engine, x, which)
    assert said.flags[101] & RESET
    assert said.y[which == 0].tobytes() == expected.y[which == 0].tobytes()
    anew = Engine(network, 2, adapt=Adaptation())
    later = np.arange(200) > 101
    again = anew.run(which[later], x[later], 1000 * (1 + np.flatnonzero(later)), np.full(later.sum(), -1))
    mine = which[later] == 1
    assert again.y[mine].tobytes() == said.y[later & (which == 1)].tobytes()


def test_a_stream_that_stands_still_stays_sound() -> None:
    network = network_of()
    engine = Engine(network, 1, adapt=Adaptation(12, 10))
    random = np.random.default_rng(6)
    x = np.ones((1500, 3), np.float32)
    x[1000:] = random.normal(size=(500, 3))
    said = feed(engine, x)
    assert np.isfinite(said.y).all()
    plain = feed(Engine(network, 1), x)
    assert mse(said, x, 1100) < 1.2 * mse(plain, x, 1100)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", [{"layer_norm": True}, {"cell": "elman", "activation": "relu"}, {"task": "encoder-decoder", "horizon": 3}]
)
def test_other_networks_are_not_adapted(what: dict[str, object]) -> None:
    network = network_of(**what)  # type: ignore[arg-type]
    engine_of(network, 1)
    with pytest.raises(ValueError, match="switch adaptation off"):
        engine_of(network, 1, adapt=Adaptation())


@pytest.mark.parametrize("wrong", [{"directions": 0}, {"memory": 3}])
def test_senseless_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: wants at least"):
        Adaptation(**wrong)


def test_all_directions_are_the_units_and_a_row_is_as_long_as_promised() -> None:
    few, all_of_them = Adaptation(8), Adaptation(500)
    lengths = [len(Correction(one, 12, 16, 3, torch.device("cpu")).initial) for one in (few, all_of_them)]
    assert lengths == [9 * 3 + 45 + 15, 13 * 3 + 91 + 15]
