"""How improbable a reading is for its stream: a small running sketch a stream, on the host. Imports numpy only.

A score, in nats under the prediction made before, means another thing for every stream. The sketch learns what is usual
for one: `p` of a reading is the probability that a normal reading of its stream is at least as surprising, `lasting`
the same of all that its stream has done lately. The verbs are those of `rnn.serve.state_table.StateTable`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.predictor.score_calibration import LEAST, Calibration, Tail, latest

LAYOUT_VERSION = 1
"""Raise it when the meaning of a column changes while its width stays."""

KNOTS = np.array([0.0, 0.7, 1.4, 2.3, 3.5, 4.6, 5.8, 7.0])
"""Nats under the model's calibration between which a stream's own hazards are learned: p = 1, 0.5, .. 1 in 1,000."""
BINS = len(KNOTS) - 1
WIDTH_NATS = np.diff(KNOTS)  # [BINS]

SPAN = 50
"""Readings that evidence looks back over, exponentially."""
MOST_NATS = 9.2
"""More than that (1 in 10,000) one reading does not add to the evidence."""
WINDUP_NATS = 11.0
"""Evidence does not grow beyond that, so that it is over soon after what caused it."""
SUSPECT_NATS, SUSPECT_WEIGHT = 6.9, 0.1
"""While the evidence is below 1 in 1,000, readings are learned from with that weight only, .."""
PATIENCE = 300
""".. until there were so many more of them than of others: what goes on for longer is what is usual from now on."""
TOGETHER = 0.1
"""What a reading's evidence counts when hazards are learned: that of the next one is nearly the same. The same for all,
or else the hazards would be biased. From PATIENCE on it counts in full."""

PRIOR = np.repeat((50.0, 150.0), BINS)  # [2 BINS], readings that the calibration counts for, and evidence
MEMORY = 2_000.0
"""Readings after which older ones fade, of those that came as far as a bin: what is rare is remembered for longer."""
_EXPECTED = PRIOR * np.tile(np.exp(-WIDTH_NATS), 2)  # [2 BINS], of those the ones that pass the bin
_BEGIN, _END = np.tile(KNOTS[:-1], 2), np.tile(KNOTS[1:], 2)  # [2 BINS]


@dataclass(frozen=True, slots=True)
class Surprised:
    """What a fold says of n readings; NaN for a reading without a score."""

    p: NDArray[np.float64]  # [n], probability that a normal reading of the stream is at least as surprising
    lasting: NDArray[np.float64]  # [n], the same of the evidence over the latest readings, this one included
    evidence: NDArray[np.float64]  # [n], in nats a reading; 1 is usual

    def alarm(self, per_1000: float) -> NDArray[np.bool_]:
        """Which readings [n] call for an alarm, when `per_1000` of 1,000 normal ones may: each of the two probabilities
        has half of that (Bonferroni).
        """
        level = per_1000 / 2000
        return (self.p <= level) | (self.lasting <= level)  # NaN is neither


class Surprise:
    """Sketches of `slots` streams, all new at first. Not safe for use by two threads.

    A hazard is the probability that a reading which is as surprising as a bin's beginning is no more so at its end;
    each is a running share with a beta prior around the calibration's (a beta-Stacy process, Walker and Muliere 1997).
    A reading changes each count by one at most, however surprising it is: that bounds what an anomaly can teach.
    What a fold says depends on neither the other streams nor on how the readings are grouped into folds, bit for bit.
    """

    width = 4 * BINS + 2
    row_bytes = 4 * width
    layout = hashlib.sha256(f"{LAYOUT_VERSION};surprise;{KNOTS.tolist()};{width}f4".encode()).hexdigest()

    def __init__(self, calibration: Calibration | Tail, slots: int) -> None:
        """With the tail of single scores alone the evidence is gathered but not judged: `lasting` is NaN.

        Raises ValueError for no slots.
        """
        if slots < 1:
            raise ValueError(f"slots: wants at least 1, got {slots}")
        self.slots = slots
        self._score = calibration if isinstance(calibration, Tail) else calibration.score
        self._lasting = None if isinstance(calibration, Tail) else calibration.lasting
        self._windup = np.inf if self._lasting is None else self._lasting.at(WINDUP_NATS)
        self.alive: Callable[[], None] = lambda: None  # called between waves, as Engine.tell
        self._new = np.zeros(self.width, np.float32)
        self._new[-2] = 1.0  # nats of a usual reading, in the mean
        # Seen, seen of evidence, passed, passed of evidence, [BINS] each; evidence; by how many more were suspect.
        self.table = np.tile(self._new, (slots, 1))  # [slots, width]

    def fold(self, slots: NDArray[np.int64], score: NDArray[np.floating]) -> Surprised:
        """Judges n readings by what came before them, then learns from them.

        slots [n] in 0..slots-1, any number of times each (readings of one slot are taken in the order given); score
        [n] as engines give it, NaN = none, which changes nothing.
        """
        said = Surprised(*np.full((3, len(slots)), np.nan))
        known = np.flatnonzero(~np.isnan(score))
        nats = self._score.surprise(score[known])
        by_slot = np.argsort(slots[known], kind="stable")
        sorted_slots = slots[known][by_slot]
        first = np.flatnonzero(np.diff(sorted_slots, prepend=-1))
        wave = np.arange(len(known)) - np.repeat(first, np.diff(first, append=len(known)))  # which reading of its slot
        by_wave = np.argsort(wave, kind="stable")
        begin = 0
        for end in np.cumsum(np.bincount(wave)).tolist():
            here = by_slot[by_wave[begin:end]]
            begin, places = end, known[here]
            p, lasting, said.evidence[places] = self._step(slots[places], nats[here])
            said.p[places], said.lasting[places] = np.exp(-p), np.exp(-lasting)
            self.alive()
        return said

    def _step(
        self, slots: NDArray[np.int64], nats: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(nats of the reading, nats of the evidence by each stream's own hazards, the evidence); slots [n] are
        distinct.
        """
        rows = self.table[slots].astype(np.float64)
        seen, passed, before = rows[:, : 2 * BINS], rows[:, 2 * BINS : -2], rows[:, -2]
        hazard = -np.log((passed + _EXPECTED) / (seen + PRIOR))  # [n, 2 BINS], nats of passing a bin
        own = _own(nats, hazard[:, :BINS])
        evidence = np.minimum(before + (np.minimum(own, MOST_NATS) - before) / SPAN, self._windup)
        usual = lasting = np.full(len(slots), np.nan)
        weight = np.ones((len(slots), 2))  # of the reading, of the evidence
        if self._lasting is not None:
            usual = self._lasting.surprise(evidence)
            lasting = _own(usual, hazard[:, BINS:])
            suspect = lasting > SUSPECT_NATS
            rows[:, -1] = np.clip(rows[:, -1] + np.where(suspect, 1, -1), 0, PATIENCE)
            early = rows[:, -1] < PATIENCE
            weight[suspect & early, 0], weight[early, 1] = SUSPECT_WEIGHT, TOGETHER
        came = np.repeat(np.stack((nats, usual), axis=1), BINS, axis=1)  # [n, 2 BINS]
        reached = (came >= _BEGIN) * np.repeat(weight, BINS, axis=1)
        passed += reached * ((came >= _END) - passed / MEMORY)
        seen += reached * (1 - seen / MEMORY)
        rows[:, -2] = evidence
        self.table[slots] = rows
        return own, lasting, evidence

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Gives the slots [n] the sketch of a new stream."""
        self.table[slots] = self._new

    def rows(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Sketches as bytes, [n, row_bytes], little-endian."""
        return np.ascontiguousarray(self.table[slots].astype("<f4")).view(np.uint8)

    def load(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """The inverse of `rows`, bit for bit. Raises ValueError for rows of a wrong size."""
        if rows.dtype != np.uint8 or rows.shape != (len(slots), self.row_bytes):
            raise ValueError(
                f"sketch rows: want uint8 [{len(slots)}, {self.row_bytes}], got {rows.dtype} {list(rows.shape)}"
            )
        self.table[slots] = np.ascontiguousarray(rows).view("<f4")


def calibrated(scores: Sequence[NDArray[np.floating]]) -> Calibration:
    """What several series of scores [n], in time order, say; best of readings that the model did not learn from.

    Raises TooFewScores.
    """
    kept = latest(scores)
    score = Tail.fitted(np.concatenate(kept), prior_shape=0.3, prior_count=10)
    gathered = []
    for one in kept:
        one = one[np.isfinite(one)]
        evidence = Surprise(score, 1).fold(np.zeros(len(one), np.int64), one).evidence
        gathered.append(evidence[max(0, min(2 * SPAN, len(one) - LEAST)) :])  # before that it is as it began
    return Calibration(score, Tail.fitted(np.concatenate(gathered), prior_shape=0.0, prior_count=40))


def _own(nats: NDArray[np.float64], hazard: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nats under the calibration -> nats under the stream's hazards, [n]; hazard [n, BINS].

    -log P = sum over bins of the part of the bin that was passed times the nats of passing all of it; what lies beyond
    the last bin is as the calibration has it.
    """
    part = np.minimum(np.maximum((nats[:, None] - KNOTS[:-1]) / WIDTH_NATS, 0), 1)
    total: NDArray[np.float64] = (part * hazard).sum(axis=1) + np.maximum(nats - KNOTS[-1], 0)
    return total
