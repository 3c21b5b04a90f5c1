"""What is learned from, what chooses and what only tests: parts of a range, one after the other in time.

Imports numpy and rnn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rnn.train.dataset import LabeledSeries
from rnn.train.fit import least_readings
from rnn.train.practice import Practice
from services.trainer.ranges import WrongRange

TEST_SHARE = 0.1
"""Of the readings, the latest ones: scored once, when all is decided."""


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Two times, and where they fall in each series: readings [0, learned) train, [learned, known) validate, the rest
    test.
    """

    validate_ms: int  # the first time that is not learned from
    test_ms: int  # the first time that only tests
    learned: tuple[int, ...]  # of each series
    known: tuple[int, ...]  # of each series, learned from or validated on

    def rows(self, series: Sequence[LabeledSeries]) -> tuple[int, int, int]:
        """Readings to (train on, validate on, test on)."""
        learned, known = sum(self.learned), sum(self.known)
        return learned, known - learned, sum(map(len, series)) - known


def split(series: Sequence[LabeledSeries], validation: float, test: float = TEST_SHARE) -> TimeSplit:
    """Parts all series at the same two times, so that about the share `test` of all readings comes after the later one
    and the share `validation` between the two.

    A stream's clock is the latest time that it has said: it never goes back, so a part is a stretch of the series as it
    arrived, and nothing that is learned from is later than anything that judges. A reading that comes late is in the
    part in which it arrived. Raises WrongRange where the readings have too few different times.
    """
    clocks = [clock(one.at_ms) for one in series]
    times = np.sort(np.concatenate(clocks))
    n = len(times)
    test_ms, validate_ms = (int(times[min(n - 1, n - int(n * share))]) for share in (test, test + validation))
    if not times[0] < validate_ms < test_ms:
        late = sum(int((np.diff(one) == 0).sum()) for one in clocks)
        behind = f"; {late:,} of them came with a time that is not after their stream's latest" if late else ""
        raise WrongRange(
            f"{n:,} readings cannot be parted in time into what is learned from, what chooses and what tests{behind}: "
            + ("look at the sensors' clocks, or take another range" if behind else "give a longer range")
        )
    learned, known = (
        tuple(int(np.searchsorted(one, cut, side="left")) for one in clocks) for cut in (validate_ms, test_ms)
    )
    return TimeSplit(validate_ms, test_ms, learned, known)


def clock(at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """The latest time so far, [n]."""
    return np.maximum.accumulate(at_ms)


def fitting(recipe: Practice, parts: TimeSplit) -> Practice:
    """The recipe, with a shorter burn-in where the validation parts are short. Raises WrongRange where even so there is
    too little.
    """
    longest = max(known - learned for learned, known in zip(parts.learned, parts.known, strict=True))
    if longest >= least_readings(recipe):
        return recipe
    burn_in = longest // 4 - 2
    if burn_in < 0:
        raise WrongRange(
            f"{sum(parts.known):,} readings are too few to train on: the part that chooses among passes has "
            f"{longest} readings of one stream at most, and needs 8; give a longer range"
        )
    return replace(recipe, burn_in=burn_in)
