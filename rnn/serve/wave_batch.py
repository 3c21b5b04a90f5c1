"""Waves of readings on their way in, parts of answers on their way out. Imports numpy and a type of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rnn.serve.outputs import Answers
from rnn.serve.result import Result

CONTINUES, ENDS, END_ONLY = 0, 1, 2
"""What a reading says of its sequence: it goes on; it ends with this one; it ended before this one, which is none."""


@dataclass(frozen=True, slots=True)
class WaveBatch:
    """At most one reading of each of n streams."""

    of: NDArray[np.int64]  # [n], places among the readings given
    slots: NDArray[np.int64]  # [n]
    x: NDArray[np.float32]  # [n, features]
    at_ms: NDArray[np.int64]  # [n]
    end: NDArray[np.uint8]  # [n]
    tag: NDArray[np.int64]  # [n]
    salt: NDArray[np.int64]  # [n]
    before_ms: NDArray[np.int64]  # [n], the stream's time before this reading
    length: NDArray[np.int64]  # [n], readings of its sequence before this one
    flags: NDArray[np.uint16]  # [n], added to as more is known
    fold: NDArray[np.bool_]  # [n], whether the reading changes its stream's memory
    ends: NDArray[np.bool_]  # [n], whether its sequence ends with it
    due: NDArray[np.bool_]  # [n], whether it is answered, if only with nothing
    mute: NDArray[np.bool_]  # [n], whether there is nothing to answer it with


@dataclass(frozen=True, slots=True)
class PartialResult:
    """Some predictions, in whatever order; fields as in `Result`, each [m]."""

    of: NDArray[np.int64]
    answers: Answers
    score: NDArray[np.float32]
    flags: NDArray[np.uint16]
    tag: NDArray[np.int64]
    at_ms: NDArray[np.int64]

    def chosen(self, rows: NDArray[np.int64]) -> PartialResult:
        """The rows named."""
        answers, score, flags = self.answers.chosen(rows), self.score[rows], self.flags[rows]
        return PartialResult(self.of[rows], answers, score, flags, self.tag[rows], self.at_ms[rows])


def joined(pieces: Sequence[PartialResult], n: int, lagging: bool) -> Result:
    """All pieces as one result of n readings, in the order of the readings that made them; one's own as they came."""
    of, order = sorted_by(np.concatenate([piece.of for piece in pieces]))

    def column(arrays: list[NDArray | None]) -> NDArray | None:  # type: ignore[type-arg]
        known = [array for array in arrays if array is not None]
        return np.concatenate(known)[order] if len(known) == len(pieces) else None

    made = {name: column([getattr(piece.answers, name) for piece in pieces]) for name in ("lo", "hi", "top", "prob")}
    rest = {name: column([getattr(piece, name) for piece in pieces]) for name in ("score", "flags", "tag", "at_ms")}
    y = column([piece.answers.y for piece in pieces])
    assert y is not None and rest["score"] is not None and rest["flags"] is not None
    result = Result(y, made["lo"], made["hi"], rest["score"], rest["flags"], of, rest["tag"], rest["at_ms"],
                    made["top"], made["prob"])  # fmt: skip
    if lagging:
        return result
    whole = len(of) == n and bool((of == np.arange(n)).all())
    return replace(result, of=None if whole else of, tag=None, at_ms=None)


def sorted_by(of: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(of in order, the places it came from); equal ones stay as they came."""
    order = np.argsort(of, kind="stable")
    return of[order], order
