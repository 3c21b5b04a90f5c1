"""The losses of a champion and a challenger on the same readings, folded into rounds. Imports numpy only.

A round is what the contest takes for one observation: whatever shook many streams at once shook one round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

READINGS = 200
"""Scored readings after which a round closes, at the end of the batch that brings them."""

PRIOR = 8.0
"""A stream's usual loss is that of this many readings of the mean stream, until its own outnumber them."""

LEAST_USUAL = 1e-9
"""Share of the mean stream's loss that a stream's usual loss is at least: rounding errors of a constant are no loss."""

WORST = 1e30
"""What a loss counts at most, so that a sum stays a number."""

_FIRST_CAPACITY = 1024


@dataclass(frozen=True, slots=True)
class Round:
    """One closed round of one shard."""

    shard: int
    readings: int  # scored
    streams: int  # with a scored reading
    gain: float  # (champion - challenger) / (champion + challenger), losses over their streams' usual; in [-1, 1]
    champion_loss: float  # sum over the readings, in the loss's own unit
    challenger_loss: float


class Rounds:
    """Lives in a shard. 40 bytes a stream.

    In a round, with L and M the two losses of a reading and u_s what was usual for its stream before the round,

        gain = sum (L - M) / u_s  /  sum (L + M) / u_s

    so that a stream counts by its readings, not by its unit or its noise. u_s is the mean of the smaller of the two
    losses; a new stream's is drawn towards that of all streams, on a scale of logarithms. So a model that explodes
    changes nothing about who counts how much. When a round closes depends on how many readings came, never on how they
    were predicted.
    """

    def __init__(self, shard: int = 0, readings: int = READINGS) -> None:
        if readings < 1:
            raise ValueError(f"a round needs at least one reading, not {readings}")
        self.shard, self.readings = shard, readings
        self._open = np.zeros((2, 0))  # [2, streams], champion's and challenger's losses in this round
        self._scored = np.zeros(0, np.int64)  # [streams], readings of this round
        self._loss = np.zeros(0)  # [streams], smaller losses of the rounds before
        self._count = np.zeros(0, np.int64)  # [streams], readings of the rounds before
        self._total, self._readings = 0.0, 0  # of all streams, those forgotten included, in the rounds before
        self.waiting = 0  # scored readings of the round that is open

    def add(
        self, numbers: NDArray[np.int64], champion_loss: NDArray[np.floating], challenger_loss: NDArray[np.floating]
    ) -> list[Round]:
        """Takes a batch: stream numbers and losses >= 0, all [n]; returns the round that closes with it, or nothing.

        A loss that is NaN on either side is not scored. A model that said nothing where there is a truth should be
        given inf. Raises ValueError for a negative loss.
        """
        scored = ~(np.isnan(champion_loss) | np.isnan(challenger_loss))
        numbers = numbers[scored]
        if not len(numbers):
            return []
        losses = np.minimum(np.stack((champion_loss[scored], challenger_loss[scored])).astype(np.float64), WORST)
        if losses.min() < 0:
            raise ValueError(f"a loss of {losses.min()} was given: losses are not negative")
        self._grow(int(numbers.max()) + 1)
        np.add.at(self._open[0], numbers, losses[0])
        np.add.at(self._open[1], numbers, losses[1])
        np.add.at(self._scored, numbers, 1)
        self.waiting += len(numbers)
        return [self._close()] if self.waiting >= self.readings else []

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Streams that ended, whose numbers others will get: what is open of them is not scored."""
        numbers = np.unique(numbers[numbers < len(self._scored)])
        self.waiting -= int(self._scored[numbers].sum())
        for each in (self._open[0], self._open[1], self._scored, self._loss, self._count):
            each[numbers] = 0

    def _close(self) -> Round:
        who = np.flatnonzero(self._scored)
        losses, scored = self._open[:, who], self._scored[who]
        shares = losses / self._usual(who)
        one, other = shares.sum(axis=1)
        sums = losses.sum(axis=1)
        smaller = losses.min(axis=0)
        self._loss[who] += smaller
        self._count[who] += scored
        self._total += float(smaller.sum())
        self._readings += self.waiting
        self._open[:, who], self._scored[who] = 0, 0
        readings, self.waiting = self.waiting, 0
        gain = float((one - other) / (one + other)) if one + other > 0 else 0.0
        return Round(self.shard, readings, len(who), gain, float(sums[0]), float(sums[1]))

    def _usual(self, who: NDArray[np.int64]) -> NDArray[np.float64]:
        """What a reading of these streams [k] was usually mispredicted by; all alike where nothing is known yet."""
        mean = self._total / max(self._readings, 1)
        if mean <= 0:
            return np.ones(len(who))
        own = np.maximum(self._loss[who] / np.maximum(self._count[who], 1), LEAST_USUAL * mean)
        count = self._count[who]
        usual: NDArray[np.float64] = mean * np.exp(count / (PRIOR + count) * np.log(own / mean))
        return usual

    def _grow(self, streams: int) -> None:
        used = len(self._scored)
        if streams <= used:
            return
        more = max(_FIRST_CAPACITY, 2 * used, streams) - used
        self._open = np.concatenate((self._open, np.zeros((2, more))), axis=1)
        self._loss = np.concatenate((self._loss, np.zeros(more)))
        self._scored, self._count = (
            np.concatenate((each, np.zeros(more, np.int64))) for each in (self._scored, self._count)
        )
