"""rnn.train.learn: every shape learns a small task well above chance, and what was trained is what is served."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.io.checkpoint import CheckpointMismatch
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from rnn.serve.result import Result
from rnn.train.course import Pass
from rnn.train.dataset import LabeledSeries
from rnn.train.learn import learn
from rnn.train.practice import Practice

QUICK = Practice(updates=200, learning_rate=0.02, lanes=16, lane_steps=128, window=32, burn_in=8, sequences=32)
WORDS = ("a", "b", "c", "d")


def spoken(sequences: list[list[int]], truth: list[list[list[float]]]) -> LabeledSeries:
    """Sequences of symbols, one after another in one stream; truth of each reading of each."""
    x = np.array([[symbol + 3.0] for one in sequences for symbol in one], np.float32)
    end = np.concatenate([np.eye(len(one), dtype=np.uint8)[-1] for one in sequences])
    rows = [row for one in truth for row in one]
    return LabeledSeries(x, np.arange(len(x)) * 1000, end, np.array(rows, np.float32).reshape(len(x), -1))


def measured(x: np.ndarray, truth: np.ndarray | None = None, end: np.ndarray | None = None) -> LabeledSeries:
    n = len(x)
    x = x.reshape(n, -1).astype(np.float32)
    given = np.zeros((n, 0), np.float32) if truth is None else truth.reshape(n, -1).astype(np.float32)
    return LabeledSeries(x, np.arange(n) * 1000, np.zeros(n, np.uint8) if end is None else end, given)


def served(network: Network, one: LabeledSeries) -> Result:
    n = len(one)
    engine = engine_of(network, 1)
    return engine.run(np.zeros(n, np.int64), one.x, one.at_ms, np.full(n, -1), end=one.end)


def ends(lengths: list[int]) -> np.ndarray:
    return np.concatenate([np.eye(k, dtype=np.uint8)[-1] for k in lengths])


def sentences(count: int, seed: int, low: int = 2, high: int = 7) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 4, random.integers(low, high)).tolist() for _ in range(count)]


def test_one_to_one_fits_a_curve():
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (1500, 2))
    truth = 50 + 7 * np.sin(2 * x[:, 0]) * x[:, 1]
    config = ModelConfig(
        features=("a", "b"), targets=("power",), predicts="now", task="one-to-one", hidden=32, layers=2
    )
    network = learn(config, [measured(x, truth)], QUICK).network
    x = random.uniform(-2, 2, (300, 2))
    truth = 50 + 7 * np.sin(2 * x[:, 0]) * x[:, 1]
    result = served(network, measured(x))
    assert np.square(result.y[:, 0] - truth).mean() < 0.2 * truth.var()
    assert result.lo is not None and result.hi is not None
    assert 0.65 < ((result.lo[:, 0] < truth) & (truth < result.hi[:, 0])).mean() < 0.93


def test_one_to_many_draws_a_profile():
    random = np.random.default_rng(0)

    def profiles(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = random.uniform(0, 1, (n, 2))
        return x, 100 + 10 * x[:, :1] * np.sin(np.arange(6) + 3 * x[:, 1:])

    config = ModelConfig(features=("size", "phase"), targets=("load",), predicts="now", task="one-to-many", horizon=6,
                         hidden=32, cell="gru", head="point")  # fmt: skip
    network = learn(config, [measured(*profiles(800))], QUICK).network
    x, truth = profiles(100)
    assert np.square(served(network, measured(x)).y - truth).mean() < 0.15 * truth.var()


def test_one_to_many_spells_a_name():
    random = np.random.default_rng(0)
    names = [[0, 1, 2], [3], [2, 2, 1, 0]]

    def seen(n: int) -> tuple[np.ndarray, list[int]]:
        kinds = random.integers(0, 3, n)
        return np.eye(3)[kinds] + 0.2 * random.normal(size=(n, 3)), kinds.tolist()

    x, kinds = seen(600)
    truth = np.array([names[k] + [np.nan] * (5 - len(names[k])) for k in kinds])
    config = ModelConfig(features=("p", "q", "r"), labels=WORDS, head="categorical", predicts="now", task="one-to-many",
                         horizon=5, hidden=24, embedding=8)  # fmt: skip
    network = learn(config, [measured(x, truth)], QUICK).network
    x, kinds = seen(60)
    y = served(network, measured(x)).y
    right = [said[~np.isnan(said)].astype(int).tolist() == names[k] for said, k in zip(y, kinds, strict=True)]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize("answer", ["end", "each"])
def test_many_to_one_knows_which_came_first(answer: str):
    """The order of symbols decides: a bag of words would be at chance."""
    told = [one for one in sentences(1200, 0, 3, 8) if 0 in one and 1 in one]
    mood = [[[np.nan]] * (len(one) - 1) + [[float(one.index(0) < one.index(1))]] for one in told]
    config = ModelConfig(vocabulary=WORDS, labels=("no", "yes"), head="categorical", task="many-to-one", predicts="now",
                         hidden=24, embedding=8, answer=answer, cell="gru")  # fmt: skip
    learned = learn(config, [spoken(told[:-80], mood[:-80])], QUICK)
    assert learned.best.accuracy is not None and learned.best.accuracy > (0.9 if answer == "end" else 0.75)
    test = spoken(told[-80:], mood[-80:])
    result = served(learned.network, test)
    y = result.y[:, 0] if answer == "end" else result.y[test.end > 0, 0]
    assert len(y) == 80
    assert (y == test.truth[test.end > 0, 0]).mean() > 0.9


def test_tags_of_each_symbol_and_of_ones_never_seen():
    told = sentences(600, 1)

    def tags(one: list[int]) -> list[list[float]]:
        return [[float(k > 0 and one[k - 1] == 0)] for k in range(len(one))]  # what stands after an a

    config = ModelConfig(vocabulary=WORDS, labels=("other", "named"), head="categorical", task="many-to-many",
                         predicts="now", hidden=24, embedding=8)  # fmt: skip
    network = learn(config, [spoken(told, [tags(one) for one in told])], QUICK).network
    test = spoken([[0, -3, 2], [1, -3, 0, -3]], [tags([0, 9, 2]), tags([1, 9, 0, 9])])  # -3: <unknown>
    assert served(network, test).y[:, 0].tolist() == [0, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(("direction", "layers"), [("concat", 1), ("sum", 1), ("concat", 2)])
def test_both_ways_look_at_what_comes(direction: str, layers: int):
    """The tag of a reading is told by the one after it; a stream without ends, served with a lag."""
    random = np.random.default_rng(0)
    x = random.normal(size=3000)
    truth = np.append(x[1:] > 0, 0.0)
    config = ModelConfig(features=("x",), labels=("falls", "rises"), head="categorical", task="many-to-many",
                         predicts="now", direction=direction, lag=2, hidden=12, layers=layers)  # fmt: skip
    network = learn(config, [measured(x, truth)], QUICK).network
    test = measured(random.normal(size=200))
    result = served(network, test)
    assert len(result.y) == 198  # the rest waits
    assert (result.y[:, 0] == (test.x[1:199, 0] > 0)).mean() > 0.93


def test_gaps_are_filled_from_both_sides():
    t = np.arange(3000)
    true = 20 + 5 * np.sin(t / 6)
    x = true.copy()
    x[np.random.default_rng(0).random(3000) < 0.3] = np.nan
    config = ModelConfig(features=("v",), targets=("true_v",), task="many-to-many", predicts="now", direction="concat",
                         lag=4, hidden=16, scaler_memory=0)  # fmt: skip
    network = learn(config, [measured(x, true)], dataclasses.replace(QUICK, hide=0.05)).network
    result = served(network, measured(x[:600]))
    gaps = np.isnan(x[: len(result.y)])
    assert np.square(result.y[:, 0] - true[: len(gaps)])[gaps].mean() < 0.05 * true.var()


def test_labels_of_readings_without_ends():
    random = np.random.default_rng(0)
    level = np.repeat(random.integers(0, 3, 150), 20)
    x = level[:, None] * np.array([1.0, -0.5]) + 0.7 * random.normal(size=(3000, 2))
    config = ModelConfig(features=("a", "b"), labels=("low", "middle", "high"), head="categorical", task="many-to-one",
                         predicts="now", answer="each", hidden=16, scaler_memory=0)  # fmt: skip
    network = learn(config, [measured(x, level.astype(float))], dataclasses.replace(QUICK, balance=0.5)).network
    assert (served(network, measured(x)).y[:, 0] == level).mean() > 0.85


@pytest.mark.parametrize("head", ["gaussian", "student", "quantile", "point"])
def test_an_encoder_decoder_foretells_several_steps(head: str):
    t = np.arange(4000)
    x = 200 + 30 * np.sin(2 * np.pi * t / 24) + 3 * np.random.default_rng(0).normal(size=4000)
    config = ModelConfig(features=("wave",), task="encoder-decoder", horizon=12, hidden=24, cell="gru", head=head,
                         scaler_memory=500)  # fmt: skip
    learned = learn(config, [measured(x)], dataclasses.replace(QUICK, updates=300))
    assert learned.best.validation_loss < 0.3 * learned.best.baseline_loss
    result = served(learned.network, measured(x[:1000]))
    truth = np.stack([x[300 + k : 980 + k] for k in range(1, 13)], axis=1)
    assert np.square(result.y[300:980] - truth).mean() < 0.25 * np.square(truth - x[300:980, None]).mean()
    if head != "point":
        assert result.lo is not None and result.hi is not None
        inside = (result.lo[300:980] < truth) & (truth < result.hi[300:980])
        assert 0.7 < inside.mean() < 0.9


def test_an_encoder_decoder_with_a_linear_path_learns_it_too():
    random = np.random.default_rng(0)
    x = np.zeros(4000)
    for k in range(2, 4000):
        x[k] = 1.6 * x[k - 1] - 0.8 * x[k - 2] + random.normal()
    config = ModelConfig(features=("x",), task="encoder-decoder", horizon=3, hidden=16, linear=4, head="point",
                         scaler_memory=0)  # fmt: skip
    learned = learn(config, [measured(x)], QUICK)
    y = served(learned.network, measured(x[:800])).y
    assert np.square(y[50:-1, 0] - x[51:800]).mean() < 1.5  # the noise has a variance of 1


def test_translation_reverses_a_sentence():
    told = sentences(1500, 2, 1, 5)
    answers = [[[np.nan] * 5] * (len(one) - 1) + [one[::-1] + [np.nan] * (5 - len(one))] for one in told]
    config = ModelConfig(vocabulary=WORDS, labels=("A", "B", "C", "D"), head="categorical", task="encoder-decoder",
                         predicts="now", horizon=5, hidden=48, embedding=12)  # fmt: skip
    recipe = dataclasses.replace(QUICK, updates=700, unknown=0.0)
    network = learn(config, [spoken(told[:-100], answers[:-100])], recipe).network
    y = served(network, spoken(told[-100:], answers[-100:])).y
    right = [said[~np.isnan(said)].tolist() == one[::-1] for said, one in zip(y, told[-100:], strict=True)]
    assert np.mean(right) > 0.9


def test_the_next_symbol_and_the_end():
    told = [([0, 1, 2, 3] * 3)[start : start + length] for start in range(4) for length in (3, 6)] * 60
    none = [np.zeros((len(one), 0)).tolist() for one in told]
    config = ModelConfig(vocabulary=WORDS, head="categorical", hidden=24, embedding=8, cell="elman")
    one = spoken(told, none)
    network = learn(config, [one], QUICK).network
    result = served(network, one)
    followed = one.end[:200] == 0
    y, after = result.y[:200, 0][followed], (one.x[:200, 0][followed] - 3 + 1) % 4
    assert ((y == after) | (y == 4)).all()
    assert (y == after).mean() > 0.7  # after three symbols it may have ended


def test_equal_seeds_give_equal_weights_and_others_do_not():
    told = sentences(80, 3)
    one = spoken(told, [[[float(s == 0)] for s in words] for words in told])
    config = ModelConfig(vocabulary=WORDS, labels=("n", "y"), head="categorical", predicts="now", hidden=8, layers=2,
                         dropout=0.3, embedding=4)  # fmt: skip
    short = dataclasses.replace(QUICK, updates=10, least_passes=1)
    state = torch.get_rng_state()
    first, again = (learn(config, [one], short).network.state_dict() for _ in range(2))
    other = learn(config, [one], dataclasses.replace(short, seed=1)).network.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())


def test_training_goes_on_where_it_stood(tmp_path: Path):
    told = sentences(120, 4)
    one = spoken(told, [[[float(s == 0)] for s in words] for words in told])
    config = ModelConfig(vocabulary=WORDS, labels=("n", "y"), head="categorical", predicts="now", hidden=8, layers=2,
                         dropout=0.3, embedding=4)  # fmt: skip
    short = dataclasses.replace(QUICK, updates=30)
    whole = learn(config, [one], short)
    file = tmp_path / "standing.safetensors"

    class Cut(Exception):
        pass

    def cut(done: Pass) -> None:
        if done.number == 3:
            raise Cut

    with pytest.raises(Cut):
        learn(config, [one], short, cut, file)
    assert file.exists()
    with pytest.raises(CheckpointMismatch, match="another config"):
        learn(config, [one], dataclasses.replace(short, seed=5), None, file)
    numbers: list[int] = []
    resumed = learn(config, [one], short, lambda done: numbers.append(done.number), file)
    assert numbers[0] == 4
    assert not file.exists()
    ours, theirs = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [one.validation_loss for one in whole.epochs] == [one.validation_loss for one in resumed.epochs]


def test_what_cannot_be_learned_from_is_said():
    config = ModelConfig(vocabulary=WORDS, labels=("n", "y"), head="categorical", predicts="now")
    told = sentences(30, 5)
    truth = [[[0.0]] * len(words) for words in told]
    good = spoken(told, truth)
    wrong, x = good.truth.copy(), good.x.copy()
    wrong[2], x[1] = 2, 7
    with pytest.raises(ValueError, match="series 0, reading 2: class 2 is none of the 2"):
        learn(config, [dataclasses.replace(good, truth=wrong)])
    with pytest.raises(ValueError, match="series 0, reading 1: symbol 7 is none of the 7"):
        learn(config, [dataclasses.replace(good, x=x)])
    with pytest.raises(ValueError, match=r"truth wants \[\d+, 1\]"):
        learn(config, [dataclasses.replace(good, truth=good.truth[:, :0])])
    still = measured(np.random.default_rng(0).uniform(-2, 2, (500, 1)), np.full(500, 4.0))
    with pytest.raises(ValueError, match="learned from power never changes, 4: there is nothing to learn"):
        learn(ModelConfig(features=("a",), targets=("power",), predicts="now", task="one-to-one"), [still])
    with pytest.raises(ValueError, match="no reading has a truth to learn from"):
        learn(config, [dataclasses.replace(good, truth=good.truth * np.nan)])
    with pytest.raises(ValueError, match="too few"):
        learn(config, [dataclasses.replace(good, truth=np.where(np.arange(len(good)) < 9, good.truth.T, np.nan).T)])
    with pytest.raises(ValueError, match="no series"):
        learn(config, [])


def test_bare_ends_end_the_reading_before_them():
    told = sentences(40, 6)
    plain = spoken(told, [[[float(s == 0)] for s in words] for words in told])
    at = np.flatnonzero(plain.end) + 1
    end = np.insert(np.where(plain.end, 0, 0), at, 2).astype(np.uint8)
    bare = LabeledSeries(np.insert(plain.x, at, np.nan, axis=0), np.insert(plain.at_ms, at, 0), end,
                    np.insert(plain.truth, at, np.nan, axis=0))  # fmt: skip
    config = ModelConfig(vocabulary=WORDS, labels=("n", "y"), head="categorical", predicts="now", hidden=8)
    short = dataclasses.replace(QUICK, updates=3, least_passes=1)
    ours, theirs = (learn(config, [one], short).network.state_dict() for one in (plain, bare))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_jitter_is_drawn_by_the_seed_and_leaves_the_task_learnable():
    random = np.random.default_rng(0)
    level = np.repeat(random.integers(0, 2, 60), 10)
    x = np.stack([level, 1 - level], axis=1) + 0.3 * random.normal(size=(600, 2))
    config = ModelConfig(features=("a", "b"), labels=("low", "high"), head="categorical", predicts="now", hidden=8,
                         scaler_memory=0)  # fmt: skip
    plain, first, again = (
        learn(config, [measured(x, level.astype(float))], dataclasses.replace(QUICK, jitter=jitter))
        for jitter in (0.0, 0.2, 0.2)
    )
    weights = [learned.network.state_dict() for learned in (plain, first, again)]
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])
    assert torch.equal(weights[0]["scaler_std"], weights[1]["scaler_std"])  # what is served is scaled as ever
    assert not torch.equal(weights[0]["head.linear.weight"], weights[1]["head.linear.weight"])
    assert (served(first.network, measured(x)).y[:, 0] == level).mean() > 0.9


def test_a_decoder_learns_from_sequences_shorter_than_its_stride():
    x = np.tile(np.array([[0.0], [1.0], [2.0], [3.0], [4.0]]), (60, 1))
    end = (np.arange(len(x)) % 5 == 4).astype(np.uint8)
    one = LabeledSeries(x.astype(np.float32), 1000 * np.arange(len(x)), end, np.zeros((len(x), 0), np.float32))
    config = ModelConfig(features=("v",), task="encoder-decoder", horizon=2, hidden=8, cell="gru", scaler_memory=0)
    learned = learn(config, [one], dataclasses.replace(QUICK, updates=120, stride=8, burn_in=0, patience=1000))
    assert 0 < learned.best.validation_loss < 0.5 * learned.best.baseline_loss
