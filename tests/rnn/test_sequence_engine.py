"""The engine of every task shape: any batching gives the same bits, and they are what the network's modules say."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve import ordering
from rnn.serve.build import engine_of
from rnn.serve.engine import Engine
from rnn.serve.result import Result
from rnn.serve.sequence_engine import END_ONLY, ENDS, SequenceEngine

FEATURES = ("a", "b", "c")
WORDS = ("the", "cat", "chased", "a", "mouse", "not")
LABELS = ("O", "PERSON", "PLACE")
SEED = 20261124

CONFIGS = {
    "one-to-one": ModelConfig(FEATURES, ("t",), task="one-to-one", predicts="now", hidden=12),
    "one-to-one symbolic": ModelConfig(vocabulary=WORDS, labels=LABELS, task="one-to-one", predicts="now",
                                       head="categorical", hidden=12),
    "one-to-many": ModelConfig(FEATURES, ("t",), task="one-to-many", predicts="now", horizon=5, head="point", layers=2),
    "one-to-many symbolic": ModelConfig(FEATURES, labels=WORDS, task="one-to-many", predicts="now", horizon=5,
                                        head="categorical", cell="gru"),
    "many-to-one": ModelConfig(FEATURES, labels=LABELS, task="many-to-one", predicts="now", head="categorical",
                               hidden=5),
    "many-to-one each": ModelConfig(vocabulary=WORDS, labels=LABELS, task="many-to-one", predicts="now", answer="each",
                                    head="categorical", cell="elman", activation="relu", max_length=6),
    "tags": ModelConfig(vocabulary=WORDS, labels=LABELS, predicts="now", head="categorical", layers=2, layer_norm=True),
    "forecast": ModelConfig(FEATURES, head="student", linear=4, layer_norm=True, layers=2, hidden=20),
    "quantile": ModelConfig(FEATURES, ("b",), head="quantile", cell="elman", activation="sigmoid"),
    "horizon": ModelConfig(FEATURES, ("a", "c"), task="encoder-decoder", horizon=4, cell="gru"),
    "translation": ModelConfig(vocabulary=WORDS, labels=("le", "chat", "souris"), task="encoder-decoder",
                               predicts="now", head="categorical", horizon=5, temperature=0.9, max_length=8),
    "next": ModelConfig(vocabulary=WORDS, head="categorical", temperature=1.0, cell="gru"),
    "concat": ModelConfig(FEATURES, ("t",), predicts="now", direction="concat", lag=3, layers=2, hidden=7),
    "sum": ModelConfig(vocabulary=WORDS, labels=LABELS, predicts="now", head="categorical", direction="sum", lag=2,
                       embedding=3),
    "short": ModelConfig(FEATURES, ("t",), predicts="now", direction="concat", lag=3, max_length=3),
    "no lag": ModelConfig(FEATURES, ("a",), predicts="now", direction="concat", lag=0, head="quantile"),
}  # fmt: skip


def network_of(config: ModelConfig) -> Network:
    torch.manual_seed(SEED)
    network = Network(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


class Series:
    """Readings of several streams, interleaved at random, some of them ends, repeated or strange."""

    def __init__(self, config: ModelConfig, streams: int = 5, n: int = 120, seed: int = SEED) -> None:
        random = np.random.default_rng(seed)
        self.slots = random.integers(0, streams, n)
        self.x = random.normal(size=(n, len(config.features))).astype(np.float32)
        self.x[random.random(self.x.shape) < 0.05] = np.nan
        if config.symbolic:
            self.x = random.integers(0, len(WORDS) + 3, size=(n, 1)).astype(np.float32)
        self.at_ms = 1_000_000 + 1000 * np.arange(n) + random.integers(-1500, 1500, n)
        self.seq = np.full(n, -1)
        twice = random.random(n) < 0.05
        for stream in range(streams):
            mine = np.flatnonzero(self.slots == stream)
            self.seq[mine] = np.maximum.accumulate(np.cumsum(~twice[mine]))
            for before, at in itertools.pairwise(mine.tolist()):
                if twice[at]:
                    self.at_ms[at] = self.at_ms[before]
        self.end = random.choice(np.array([0, 0, 0, 0, 0, 0, ENDS, END_ONLY], np.uint8), n)
        self.x[self.end == END_ONLY] = np.nan
        self.tag = np.arange(n) * 7
        self.salt = self.slots * 1_000_003

    def run(self, engine: SequenceEngine | Engine, some: np.ndarray | slice = slice(None)) -> Result:
        return engine.run(self.slots[some], self.x[some], self.at_ms[some], self.seq[some], end=self.end[some],
                          tag=self.tag[some], salt=self.salt[some])  # fmt: skip


def told(result: Result, given: np.ndarray, series: Series) -> list[tuple[object, ...]]:
    """Each prediction as bytes, with the places in the whole series."""
    of = given[np.arange(len(given)) if result.of is None else result.of]
    tag = series.tag[of] if result.tag is None else result.tag
    at_ms = series.at_ms[of] if result.at_ms is None else result.at_ms
    arrays = [result.y, result.lo, result.hi, result.score, result.flags, result.top, result.prob]
    return [
        (int(of[i]), int(tag[i]), int(at_ms[i]), *(None if array is None else array[i].tobytes() for array in arrays))
        for i in range(len(result))
    ]


FAST = {
    "fast": ModelConfig(FEATURES, ("c", "a"), cell="gru", hidden=20, linear=5),
    "fast, one wide": ModelConfig(FEATURES, hidden=20, layers=2, linear=1),
}


@pytest.mark.parametrize("name", [*CONFIGS, *FAST])
def test_any_batching_gives_the_same_bits(name: str) -> None:
    kind = Engine if name in FAST else SequenceEngine
    config = {**CONFIGS, **FAST}[name]
    network, series = network_of(config), Series(config)
    n = len(series.slots)
    engine = kind(network, 8)
    alone: list[tuple[object, ...]] = []
    for i in range(n):
        alone += told(series.run(engine, np.array([i])), np.array([i]), series)
    rows = engine.rows(np.arange(8))
    random = np.random.default_rng(SEED)
    for _ in range(3):
        engine, cut = kind(network, 8), np.sort(random.integers(0, n + 1, 4))
        together: list[tuple[object, ...]] = []
        for some in np.split(np.arange(n), cut):
            together += told(series.run(engine, some), some, series)
            spill = engine.rows(np.arange(8))  # states as bytes and back change nothing
            engine.clear(np.arange(8))
            engine.load(np.arange(8), spill)
        assert sorted(together, key=str) == sorted(alone, key=str)
        assert [row[0] for row in together] == [row[0] for row in alone]
        assert (engine.rows(np.arange(8)) == rows).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_accepted_reading_is_answered_once(name: str) -> None:
    config = CONFIGS[name]
    series = Series(config)
    engine = SequenceEngine(network_of(config), 8)
    result = series.run(engine)
    of = np.arange(len(series.slots)) if result.of is None else result.of
    tags = series.tag[of] if result.tag is None else result.tag
    if result.tag is not None:
        flushed = engine.flush(np.arange(8))
        assert flushed.of is not None and flushed.tag is not None
        tags = np.concatenate((tags, flushed.tag))
        assert not engine.waiting(np.arange(8)).any() and len(engine.flush(np.arange(8))) == 0
    assert len(set(tags.tolist())) == len(tags)
    if config.at_end:
        assert (series.end[of] > 0).all() and len(of) > 5
    else:
        readings = np.flatnonzero(series.end != END_ONLY)
        assert set(series.tag[readings].tolist()) <= set(tags.tolist())


@pytest.mark.parametrize(
    ("name", "poison"),
    [
        (name, poison)
        for name, config in CONFIGS.items()
        for poison in (np.nan, np.inf, -3e38)
        if np.isnan(poison) or not config.symbolic  # a symbol cannot be infinite
    ],
)
def test_no_reading_changes_a_neighbour(name: str, poison: float) -> None:
    config = CONFIGS[name]
    network, series, poisoned = network_of(config), Series(config), Series(config)
    poisoned.x[poisoned.slots == 3] = poison
    n = np.arange(len(series.slots))
    clean = told(series.run(SequenceEngine(network, 8)), n, series)
    with np.errstate(all="ignore"):
        strange = told(poisoned.run(SequenceEngine(network, 8)), n, series)
    others = set(np.flatnonzero(series.slots != 3).tolist())
    assert [row for row in strange if row[0] in others] == [row for row in clean if row[0] in others]


def test_forecasts_agree_with_the_fast_engine() -> None:
    for head, linear, cell in (
        ("gaussian", 0, "lstm"),
        ("point", 0, "gru"),
        ("gaussian", 3, "elman"),
        ("point", 1, "lstm"),
    ):
        config = ModelConfig(FEATURES, ("c", "a"), head=head, cell=cell, hidden=20, layers=2, linear=linear)
        network, series = network_of(config), Series(config)
        fast, general = engine_of(network, 8), SequenceEngine(network, 8)
        assert isinstance(fast, Engine)
        one, other = series.run(fast), series.run(general)
        assert one.of is not None and other.of is not None
        np.testing.assert_array_equal(one.of, other.of)
        np.testing.assert_array_equal(one.flags, other.flags)
        np.testing.assert_allclose(one.y, other.y, atol=2e-5)
        for mine, theirs in ((one.lo, other.lo), (one.hi, other.hi)):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                np.testing.assert_allclose(mine, theirs, atol=2e-5)
        np.testing.assert_allclose(one.score, other.score, atol=1e-4, rtol=1e-5)
        assert isinstance(engine_of(network_of(replace(config, max_length=5)), 8), SequenceEngine)


EMPTY_END, ENDED, NEW = ordering.EMPTY | ordering.ENDED, ordering.ENDED, ordering.NEW
OF_ENDS: dict[str, dict[int, int]] = {
    "fast": {1: NEW, 5: ENDED, 6: ordering.DUPLICATE},
    "forecast": {1: NEW, 5: ENDED, 6: ordering.DUPLICATE},
    "quantile": {1: NEW, 5: ENDED, 6: ordering.DUPLICATE},
    "limited": {1: NEW, 5: ENDED, 6: ordering.DUPLICATE},
    "tags": {0: EMPTY_END, 1: NEW, 4: EMPTY_END, 5: ENDED, 6: ordering.DUPLICATE},
    "many-to-one": {0: EMPTY_END, 2: ENDED, 4: EMPTY_END, 5: ENDED},
    "many-to-one each": {0: EMPTY_END, 1: NEW, 2: ENDED, 4: EMPTY_END, 5: ENDED, 6: ordering.DUPLICATE},
    "concat": {0: EMPTY_END, 1: NEW | ENDED, 4: EMPTY_END, 5: ENDED, 6: ordering.DUPLICATE},
}
"""Flags by place: of a bare end, a reading, its bare end, that again, one more, a reading that ends, that again."""


@pytest.mark.parametrize("name", OF_ENDS)
def test_what_is_said_of_ends(name: str) -> None:
    config = {**CONFIGS, **FAST, "limited": ModelConfig(FEATURES, max_length=9)}[name]
    engine, end = (
        engine_of(network_of(config), 1),
        np.array([END_ONLY, 0, END_ONLY, END_ONLY, END_ONLY, ENDS, ENDS], np.uint8),
    )
    assert isinstance(engine, Engine) == (name == "fast")
    place = np.array([0, 1, 2, 2, 4, 5, 5])
    x = np.full((7, len(config.features)), 3, np.float32)
    x[end == END_ONLY] = np.nan
    result = engine.run(np.zeros(7, np.int64), x, 1000 * place, place, end=end, tag=np.arange(7))
    about = result.of if result.tag is None else result.tag
    assert about is not None
    assert dict(zip(about.tolist(), result.flags.tolist(), strict=True)) == OF_ENDS[name]
    spoken = [1, 2, 5] if config.at_end or config.answer == "each" else [1, 5]
    assert set(about[~np.isnan(result.y).all(axis=1)].tolist()) == set(spoken) & set(OF_ENDS[name])


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.direction != "forward"])
def test_both_ways_all_but_what_is_repeated_is_said_in_order(name: str) -> None:
    series = Series(CONFIGS[name])
    result = series.run(SequenceEngine(network_of(CONFIGS[name]), 8))
    assert result.tag is not None
    assert (name == "short") == bool((result.flags & ordering.OVERLONG).any())
    told = result.tag[result.flags & ordering.DUPLICATE == 0]
    for stream in range(5):
        mine = told[series.slots[told // 7] == stream]
        assert len(mine) > 5 and (np.diff(mine) > 0).all()


def test_both_ways_with_a_lag_is_the_network_on_the_window() -> None:
    config = CONFIGS["concat"]
    network, n, lag = network_of(config), 12, config.lag
    x = np.random.default_rng(SEED).normal(size=(n, 3)).astype(np.float32)
    at_ms, slots = 1000 * np.arange(n), np.zeros(n, np.int64)
    engine = SequenceEngine(network, 1)
    result = engine.run(slots, x, at_ms, np.full(n, -1), end=np.array([0] * (n - 1) + [1], np.uint8), tag=at_ms)
    assert result.tag is not None and result.tag.tolist() == at_ms.tolist()
    assert result.of is not None and result.of.tolist() == [*range(lag, n), *[n - 1] * lag]
    inputs = network.inputs
    state, clock = inputs.initial(1)
    raw = [inputs.advance(state, clock, torch.from_numpy(x[t : t + 1]), torch.tensor([1000 * t]))[0] for t in range(n)]
    with torch.no_grad():
        hidden = network.initial_state(1)
        for t in range(n):
            window = torch.stack(raw[t : t + lag + 1])
            h, hidden = network.bidirectional_window(window, torch.tensor([len(window)]), hidden)
            np.testing.assert_allclose(result.y[t], network.head(h)[0][0], atol=1e-5)
    assert result.flags[-1] & ordering.ENDED and not (result.flags[:-1] & ordering.ENDED).any()


def sentence(engine: SequenceEngine, words: str) -> Result:
    """One sequence of one stream, whose last word ends it."""
    symbols = np.array([WORDS.index(word) + 3 if word in WORDS else 0 for word in words.split()], np.float32)[:, None]
    n = len(symbols)
    end = np.zeros(n, np.uint8)
    end[-1:] = 1
    return engine.run(np.zeros(n, np.int64), symbols, np.arange(n), np.full(n, -1), end=end)


def test_a_sentence_is_answered_at_its_end_and_forgotten_then() -> None:
    config = replace(CONFIGS["many-to-one"], features=("symbol",), vocabulary=WORDS)
    engine = SequenceEngine(network_of(config), 1)
    one, other = sentence(engine, "the cat chased a mouse"), sentence(engine, "a mouse chased the cat")
    again = sentence(engine, "the cat chased a mouse")
    assert one.of is not None and one.of.tolist() == [4]
    assert one.flags.tolist() == [ordering.ENDED] and other.flags[0] & ordering.ENDED
    assert one.prob is not None and other.prob is not None and again.prob is not None
    assert (one.prob == again.prob).all() and not (one.prob == other.prob).all()
    np.testing.assert_allclose(one.prob.sum(), 1, atol=1e-6)


def test_an_end_without_a_beginning_is_flagged() -> None:
    for name in ("many-to-one", "translation", "concat", "tags", "one-to-one"):
        engine = SequenceEngine(network_of(CONFIGS[name]), 1)
        width = len(CONFIGS[name].features)
        result = engine.run(np.zeros(1, np.int64), np.full((1, width), np.nan, np.float32), np.zeros(1, np.int64),
                            np.full(1, -1), end=np.array([END_ONLY], np.uint8))  # fmt: skip
        assert result.flags[0] & ordering.EMPTY and np.isnan(result.y).all(), name


def test_what_is_too_long_is_not_folded_in() -> None:
    engine = SequenceEngine(network_of(CONFIGS["many-to-one each"]), 1)
    result = sentence(engine, "the cat chased a mouse not the cat")
    over = (result.flags & ordering.OVERLONG) > 0
    assert over.tolist() == [False] * 6 + [True, True]
    assert np.isnan(result.y[6]).all() and result.y[7] == result.y[5]  # the end is answered with what was folded in


def test_unknown_symbols_and_an_answer_that_does_not_end_are_flagged() -> None:
    network = network_of(replace(CONFIGS["translation"], temperature=0.0))
    with torch.no_grad():
        network.head.linear.bias[-1] = -100.0  # it never says that it ends
    result = sentence(SequenceEngine(network, 1), "the dog")
    assert result.flags[0] & ordering.CUT and result.flags[0] & ordering.UNKNOWN and np.isfinite(result.y).all()
    with torch.no_grad():
        network.head.linear.bias[-1] = 100.0
    result = sentence(SequenceEngine(network, 1), "the cat")
    assert not result.flags[0] & ordering.CUT and np.isnan(result.y).all() and result.prob[0, 0] > 0.99


def test_sampling_depends_on_stream_and_place_alone() -> None:
    network = network_of(CONFIGS["next"])
    n = 4000
    slots, x = np.arange(n) % 40, np.full((n, 1), 4.0, np.float32)
    given = (slots, x, np.arange(n), np.full(n, -1))
    salt = slots * 977
    one, same = (SequenceEngine(network, 40).run(*given, salt=salt) for _ in range(2))
    other = SequenceEngine(network, 40).run(*given, salt=salt + 1)
    assert (one.y == same.y).all() and not (one.y == other.y).all()
    assert one.prob is not None and one.top is not None
    for rank in range(3):  # drawn as often as it is probable among those listed
        share = (one.y[:, 0] == one.top[:, rank]).mean()
        expected = (one.prob[:, rank] / one.prob.sum(axis=1)).mean()
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


def test_misfits_are_refused_by_name() -> None:
    engine = SequenceEngine(network_of(CONFIGS["next"]), 2)
    ok = [np.zeros(1, np.int64), np.full((1, 1), 3, np.float32), np.zeros(1, np.int64), np.full(1, -1)]
    with pytest.raises(ValueError, match=r"symbol numbers 0\.\.8, got 9"):
        engine.run(ok[0], ok[1] + 6, *ok[2:])
    with pytest.raises(ValueError, match=r"slots: want 0\.\.1"):
        engine.run(ok[0] + 2, *ok[1:])
    with pytest.raises(ValueError, match="x: want"):
        engine.run(ok[0], ok[1].astype(np.float64), *ok[2:])
    with pytest.raises(ValueError, match="engine_of"):
        Engine(network_of(CONFIGS["next"]), 2)


def test_the_machine_keeps_the_promise() -> None:
    for name, config in CONFIGS.items():
        assert SequenceEngine(network_of(config), 4).check() == [], name
