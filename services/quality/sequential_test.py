"""Whether a challenger is better than the champion, decided on rounds of paired losses. Imports numpy only.

The answer may be looked at after every round, for as long as one likes, and keeps its error rate (ADR 11).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.quality.betting_test import Bets
from services.quality.rounds import Round, Rounds

__all__ = ["Contest", "ContestOutcome", "Round", "Rounds", "Terms", "Verdict"]


class ContestOutcome(enum.StrEnum):
    """How a contest stands. All but the first are final."""

    UNDECIDED = "undecided"
    PROMOTED = "promoted"  # the challenger is better by more than the margin
    REJECTED = "rejected"  # it is not
    EXPIRED = "expired"  # readings or time ran out before either was shown


@dataclass(frozen=True, slots=True)
class Terms:
    """What a challenger must show."""

    margin: float = 0.02  # share of the champion's loss that it must save
    alpha: float = 0.05  # greatest probability of promoting one that does not
    least_readings: int = 10_000  # scored, before one is promoted
    most_readings: int = 10_000_000  # scored, after which the contest is over
    deadline_ms: int | None = None  # wall clock at which it is over; None: never

    def __post_init__(self) -> None:
        if not -1 < self.margin < 1:
            raise ValueError(f"margin is {self.margin}: give the share of the loss to be saved, such as 0.02")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}: give an error rate above 0 and below 0.5, such as 0.05")
        if not 0 <= self.least_readings <= self.most_readings:
            raise ValueError(
                f"least_readings ({self.least_readings}) must not be above most_readings ({self.most_readings})"
            )


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a contest stands, with its numbers; all of them finite."""

    outcome: ContestOutcome
    better: float  # e-value against "the challenger saves at most the margin"; promoted at 1 / alpha
    not_better: float  # e-value against "it saves at least the margin"; rejected at 1 / alpha
    gain: float  # mean share of the champion's loss that the challenger saves; below 0: it costs
    gain_low: float  # with probability 1 - alpha, the gain lies between the two at every time one looks
    gain_high: float
    readings: int  # scored
    rounds: int
    champion_loss: float  # mean of a scored reading, in the loss's own unit; 0 before the first
    challenger_loss: float

    @property
    def final(self) -> bool:
        """Nothing that is added later will change it."""
        return self.outcome is not ContestOutcome.UNDECIDED

    def __str__(self) -> str:
        return (
            f"{self.outcome}: the challenger saves {self.gain:.1%} of the champion's loss ({self.gain_low:.1%} to "
            f"{self.gain_high:.1%}) over {self.readings} readings in {self.rounds} rounds; "
            f"e-values {self.better:.3g} for it, {self.not_better:.3g} against it"
        )


class Contest:
    """Lives in the supervisor; takes rounds of any shard.

    One observation g is the mean gain, by readings, of rounds that were open at the same time: one comes of every
    `shards` shards' rounds, or of twice as many rounds where a shard is silent. With m = margin / (2 - margin), which
    is the gain of a loss lowered by just the margin, `Bets` tests E[g | past] <= m and E[g | past] >= m.

    To see after a promotion whether the old champion would do better, start a contest and rounds with the old one as
    challenger: `promoted` then says roll back.
    """

    def __init__(self, terms: Terms | None = None, shards: int = 1) -> None:
        if shards < 1:
            raise ValueError(f"a contest needs at least one shard, not {shards}")
        self.terms, self.shards = terms or Terms(), shards
        self._bets = Bets(np.array([_symmetric(self.terms.margin)]))
        spread = np.linspace(-1, 1, 401)
        self._about = Bets(0.09 * spread + 0.9 * spread**3)  # finest around 0; ends at 0.99
        self._open: list[Round] = []
        self._readings, self._rounds, self._champion, self._challenger = 0, 0, 0.0, 0.0
        self._outcome = ContestOutcome.UNDECIDED
        self.verdict = self._stand()  # how it stands now

    def add(self, rounds: Sequence[Round], now_ms: int | None = None) -> Verdict:
        """Folds in closed rounds, each once, in the order of their shard; after a final verdict they are let be."""
        for each in rounds:
            if self._outcome is not ContestOutcome.UNDECIDED:
                break
            self._open.append(each)
            if len({one.shard for one in self._open}) >= self.shards or len(self._open) >= 2 * self.shards:
                self._observe()
        if self._outcome is ContestOutcome.UNDECIDED and now_ms is not None and self._late(now_ms):
            self._outcome = ContestOutcome.EXPIRED
            self.verdict = replace(self.verdict, outcome=self._outcome)
        return self.verdict

    def _stand(self) -> Verdict:
        low, high = self._about.interval(self.terms.alpha)
        count = max(self._readings, 1)
        return Verdict(
            self._outcome,
            _value(self._bets.log_up[0]),
            _value(self._bets.log_down[0]),
            _relative(max(self._about.total / max(self._about.n, 1), -0.99)),
            _relative(low),
            _relative(high),
            self._readings,
            self._rounds,
            self._champion / count,
            self._challenger / count,
        )

    def _observe(self) -> None:
        readings = sum(one.readings for one in self._open)
        g = sum(one.gain * one.readings for one in self._open) / readings
        self._bets.add(g)
        self._about.add(g)
        self._readings += readings
        self._rounds += len(self._open)
        self._champion += sum(one.champion_loss for one in self._open)
        self._challenger += sum(one.challenger_loss for one in self._open)
        self._open = []
        enough = -math.log(self.terms.alpha)
        if self._bets.log_up[0] >= enough and self._readings >= self.terms.least_readings:
            self._outcome = ContestOutcome.PROMOTED
        elif self._bets.log_down[0] >= enough:
            self._outcome = ContestOutcome.REJECTED
        elif self._readings >= self.terms.most_readings:
            self._outcome = ContestOutcome.EXPIRED
        self.verdict = self._stand()

    def _late(self, now_ms: int) -> bool:
        return self.terms.deadline_ms is not None and now_ms >= self.terms.deadline_ms


def _symmetric(gain: float) -> float:
    """(L - M) / (L + M) where M = (1 - gain) L."""
    return gain / (2 - gain)


def _relative(symmetric: float) -> float:
    """1 - M / L where (L - M) / (L + M) is given, above -1."""
    return 2 * symmetric / (1 + symmetric)


def _value(log: float) -> float:
    return math.exp(min(log, 700.0))
