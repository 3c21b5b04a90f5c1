"""The contest: who is not better is not promoted, who is clearly better is, however often one looks."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.quality.betting_test import Bets
from services.quality.sequential_test import Contest, ContestOutcome, Round, Rounds, Terms, Verdict

TRIALS = 100
SHORT = Terms(least_readings=2_000, most_readings=60_000)


def losses(
    random: np.random.Generator, ratio: float, streams: int, batches: int = 600, per_batch: int = 100
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Squared errors of two models of which the second one's expected loss is `ratio` of the first one's.

    Truths have heavy tails, streams differ in scale by orders of magnitude, volatility of each stream and of all
    streams wanders, and a shock that all streams share moves every batch.
    """
    scale, wander, together = np.exp(random.normal(0, 1.5, streams)), np.zeros(streams), 0.0
    for _ in range(batches):
        together = 0.9 * together + 0.3 * random.normal()
        wander = 0.95 * wander + 0.2 * random.normal(size=streams)
        numbers = random.integers(0, streams, per_batch)
        width = scale[numbers] * np.exp(wander[numbers] + together)
        common = random.standard_t(4, per_batch) + 0.5 * random.normal()
        one, other = (common + 0.3 * random.standard_t(4, per_batch) for _ in range(2))
        yield numbers, np.square(width * one), ratio * np.square(width * other)


def trial(seed: int, ratio: float, streams: int, terms: Terms = SHORT, shards: int = 1) -> Verdict:
    """One contest that is looked at after every batch. Streams are spread over shards, which see the same shocks."""
    rounds = [Rounds(shard, 100) for shard in range(shards)]
    contest = Contest(terms, shards)
    for numbers, champion, challenger in losses(np.random.default_rng(seed), ratio, streams):
        for shard in range(shards):
            mine = numbers % shards == shard
            verdict = contest.add(rounds[shard].add(numbers[mine] // shards, champion[mine], challenger[mine]))
            if verdict.final:
                return verdict
    return contest.verdict


@pytest.mark.parametrize(("streams", "shards", "trials"), [(1, 1, TRIALS), (20, 1, TRIALS), (60, 3, TRIALS // 2)])
def test_a_worse_challenger_is_never_promoted(streams: int, shards: int, trials: int) -> None:
    found = [trial(seed, 1.05, streams, shards=shards) for seed in range(trials)]
    count = Counter(one.outcome for one in found)
    assert count[ContestOutcome.PROMOTED] == 0
    assert count[ContestOutcome.REJECTED] > 0.75 * trials  # and mostly it is told so before the readings run out


@pytest.mark.parametrize("streams", [1, 20])
def test_an_equal_challenger_is_promoted_no_more_often_than_alpha(streams: int) -> None:
    """Without a margin, the hardest case: nothing but luck tells the two apart."""
    terms = replace(SHORT, margin=0.0, most_readings=20_000)
    found = Counter(trial(seed, 1.0, streams, terms).outcome for seed in range(TRIALS))
    allowed = SHORT.alpha * TRIALS
    assert found[ContestOutcome.PROMOTED] <= allowed
    assert (
        found[ContestOutcome.REJECTED] <= allowed
    )  # of "not better than by nothing", which is true as well as its opposite


@pytest.mark.parametrize(("streams", "shards", "trials"), [(1, 1, TRIALS), (20, 1, TRIALS), (60, 3, TRIALS // 2)])
def test_a_clearly_better_challenger_is_promoted(streams: int, shards: int, trials: int) -> None:
    found = [trial(seed, 0.9, streams, shards=shards) for seed in range(trials)]
    promoted = [one for one in found if one.outcome is ContestOutcome.PROMOTED]
    assert len(promoted) >= 0.95 * trials
    assert all(one.readings >= SHORT.least_readings and one.better >= 20 for one in promoted)
    assert np.median([one.gain for one in promoted]) == pytest.approx(0.1, abs=0.03)
    inside = np.mean([one.gain_low <= 0.1 <= one.gain_high for one in found])
    assert inside >= 0.95


def test_looking_all_the_time_costs_nothing_where_a_usual_test_breaks() -> None:
    """Fair coins of +-0.2, 500 looks: a z-test at 5 % is fooled in a third of the trials, bets in a twentieth."""
    fooled, usual = 0, 0
    for seed in range(200):
        g = 0.2 * np.random.default_rng(seed).choice([-1.0, 1.0], 500)
        bets, best = Bets(np.zeros(1)), 0.0
        for one in g:
            bets.add(float(one))
            best = max(best, float(bets.log_up[0]))
        fooled += best >= math.log(20)
        n = np.arange(20, 501)
        usual += bool((np.cumsum(g)[19:] / np.sqrt(n) / 0.2 > 1.645).any())
    assert fooled <= 10
    assert usual > 40


def test_the_interval_holds_the_mean_at_all_times_and_narrows() -> None:
    misses = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        bets, out = Bets(np.linspace(-0.99, 0.99, 199)), False
        for t, g in enumerate(np.clip(0.1 + 0.3 * random.standard_t(5, 400), -1, 1)):
            bets.add(float(g))
            if t % 20 == 0:
                low, high = bets.interval(0.1)
                out |= not low <= 0.1 <= high
        misses += out
        assert high - low < 0.25
    assert misses <= 10


def test_after_a_promotion_the_old_champion_may_come_back() -> None:
    """The same contest turned round: the old one, now in the shadow, is better, and `promoted` means roll back."""
    verdict = trial(3, 1 / 1.2, 5, Terms(margin=0.0, least_readings=1000))
    assert verdict.outcome is ContestOutcome.PROMOTED
    assert verdict.challenger_loss < verdict.champion_loss


def test_a_verdict_is_final_and_readable() -> None:
    contest = Contest(Terms(least_readings=0))
    good = [Round(0, 100, 1, 0.5, 3.0, 1.0)] * 50
    verdict = contest.add(good)
    assert verdict.outcome is ContestOutcome.PROMOTED and verdict.final
    assert contest.add([Round(0, 100, 1, -1.0, 0.0, 9.0)] * 500) == verdict
    assert str(verdict).startswith("promoted: the challenger saves 66.7% of the champion's loss (")
    assert verdict.champion_loss == pytest.approx(3 / 100) and verdict.challenger_loss == pytest.approx(1 / 100)
    json.dumps(asdict(verdict), allow_nan=False)
    json.dumps(asdict(Contest().verdict), allow_nan=False)


def test_readings_and_time_run_out() -> None:
    even = [Round(0, 100, 1, 0.0, 1.0, 1.0)]
    assert Contest(Terms(least_readings=0, most_readings=300)).add(3 * even).outcome is ContestOutcome.EXPIRED
    contest = Contest(Terms(deadline_ms=1000))
    assert contest.add(even, now_ms=999).outcome is ContestOutcome.UNDECIDED
    assert contest.add([], now_ms=1000).outcome is ContestOutcome.EXPIRED


def test_rounds_of_one_time_are_one_observation_and_a_silent_shard_does_not_hang_it() -> None:
    contest = Contest(shards=3)
    contest.add([Round(0, 100, 1, 0.3, 1.0, 1.0), Round(0, 100, 1, 0.3, 1.0, 1.0), Round(1, 300, 1, 0.1, 1.0, 1.0)])
    assert contest.verdict.rounds == 0  # the third one may still come
    verdict = contest.add([Round(2, 500, 1, 0.0, 1.0, 1.0)])
    assert (verdict.rounds, verdict.readings) == (4, 1000)
    silent = Contest(shards=3)
    assert silent.add([Round(0, 100, 1, 0.1, 1.0, 1.0)] * 6).rounds == 6


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e6), st.floats(0, 1e6)), max_size=30), max_size=20))
def test_no_reading_is_lost_between_rounds(batches: list[list[tuple[int, float, float]]]) -> None:
    rounds, closed = Rounds(readings=20), []
    for batch in batches:
        numbers, one, other = (np.array(column) for column in zip(*batch, strict=True)) if batch else [np.zeros(0)] * 3
        closed += rounds.add(numbers.astype(np.int64), one, other)
    assert sum(one.readings for one in closed) + rounds.waiting == sum(map(len, batches))
    assert all(-1 <= one.gain <= 1 and one.readings >= 20 for one in closed)


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_the_unit_of_a_loss_does_not_matter(seed: int, unit: float) -> None:
    random = np.random.default_rng(seed)
    plain, scaled = Rounds(readings=50), Rounds(readings=50)
    for _ in range(10):
        numbers, one, other = random.integers(0, 4, 50), random.random(50), random.random(50)
        (a,), (b,) = plain.add(numbers, one, other), scaled.add(numbers, unit * one, unit * other)
        assert a.gain == pytest.approx(b.gain, abs=1e-9)


def test_a_loud_stream_weighs_no_more_than_a_quiet_one() -> None:
    """From the second round on; in the first nobody knows what is usual."""
    rounds = Rounds(readings=100)
    numbers = np.repeat([0, 1], 50)
    champion = np.repeat([1e6, 1.0], 50)
    challenger = champion * np.repeat([0.8, 1.2], 50)
    for _ in range(40):
        (last,) = rounds.add(numbers, champion, challenger)
    assert abs(last.gain) < 0.03


def test_unknown_losses_do_not_count_and_silence_costs_everything() -> None:
    rounds = Rounds(readings=2)
    nan, inf = np.nan, np.inf
    assert rounds.add(np.array([0, 0]), np.array([nan, 1.0]), np.array([1.0, nan])) == []
    (closed,) = rounds.add(np.array([0, 1, 2]), np.array([1.0, 1.0, nan]), np.array([inf, 0.5, 1.0]))
    assert closed.readings == 2 and closed.gain == pytest.approx(-1)
    assert math.isfinite(closed.challenger_loss)
    (after,) = rounds.add(np.array([0, 1]), np.array([1.0, 1.0]), np.array([0.5, 0.5]))
    assert after.gain == pytest.approx(1 / 3)  # one explosion does not make the stream count for nothing
    with pytest.raises(ValueError, match="not negative"):
        rounds.add(np.array([0]), np.array([-1.0]), np.array([1.0]))


def test_a_number_that_is_used_again_starts_anew() -> None:
    rounds = Rounds(readings=10)
    rounds.add(np.array([7, 7, 3]), np.ones(3), np.ones(3))
    rounds.forget(np.array([7, 90_000]))
    assert rounds.waiting == 1


def test_what_lives_in_a_shard_can_be_sent_and_copied() -> None:
    rounds, contest = Rounds(), Contest()
    rounds.add(np.arange(100), np.ones(100), np.ones(100))
    contest.add([Round(0, 100, 1, 0.1, 1.0, 1.0)])
    again = pickle.loads(pickle.dumps(rounds))
    assert again.add(np.arange(100), np.ones(100), np.ones(100)) == rounds.add(
        np.arange(100), np.ones(100), np.ones(100)
    )
    assert copy.deepcopy(contest).verdict == contest.verdict == pickle.loads(pickle.dumps(contest)).verdict


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"margin": 1.0}, "margin"), ({"alpha": 0.0}, "alpha"), ({"least_readings": 9, "most_readings": 8}, "most")],
)
def test_terms_that_make_no_sense_are_refused(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Terms(**wrong)  # type: ignore[arg-type]
