"""What an engine says of readings. Imports numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Result:
    """What a run says of n readings: m predictions, in the order of the readings that made them be said.

    m = n where every reading is answered at once. A reading amid a sequence that is answered at its end makes none; an
    answer that waits for later readings comes with one of those; an end may make several.
    """

    y: NDArray[np.float32]  # [m, width], raw units, or class numbers (NaN after an answer's end); NaN = none
    lo: NDArray[np.float32] | None  # [m, width]; None for a head without a band
    hi: NDArray[np.float32] | None  # [m, width]
    score: NDArray[np.float32]  # [m], surprise of the reading in nats per observed value; NaN = nothing was predicted
    flags: NDArray[np.uint16]  # [m], bits of rnn.serve.ordering
    of: NDArray[np.int64] | None = None  # [m], the reading given that made it be said; None = one a reading, in order
    tag: NDArray[np.int64] | None = None  # [m], tag of the reading that it is about; None = the one of `of`
    at_ms: NDArray[np.int64] | None = None  # [m], time of that reading
    top: NDArray[np.int32] | None = None  # [m, k], the most probable classes, best first; None for other answers
    prob: NDArray[np.float32] | None = None  # [m, k], their probabilities; [m, 1] of a whole answer of symbols

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def blank(cls, n: int, targets: int, banded: bool) -> Result:
        """NaN and no flags."""
        y = np.full((n, targets), np.nan, dtype=np.float32)
        lo, hi = (y.copy(), y.copy()) if banded else (None, None)
        return cls(y, lo, hi, np.full(n, np.nan, dtype=np.float32), np.zeros(n, dtype=np.uint16))

    def put(self, at: NDArray[np.int64], part: Result, of: NDArray[np.int64] | slice = slice(None)) -> None:
        """Writes readings `of` of another result in places `at` of this one."""
        self.y[at], self.score[at], self.flags[at] = part.y[of], part.score[of], part.flags[of]
        if self.lo is not None and self.hi is not None and part.lo is not None and part.hi is not None:
            self.lo[at], self.hi[at] = part.lo[of], part.hi[of]
