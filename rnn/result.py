"""What an engine says of readings. Imports numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Result:
    """What a run says of n readings, in the order given."""

    y: NDArray[np.float32]  # [n, targets], raw units; NaN where the stream was reset
    lo: NDArray[np.float32] | None  # [n, targets]; None for a head without a band
    hi: NDArray[np.float32] | None  # [n, targets]
    score: NDArray[np.float32]  # [n], surprise of the reading in nats per observed value; NaN = nothing was predicted
    flags: NDArray[np.uint8]  # [n], bits NEW, LATE, MISSING, DUPLICATE, RESET of rnn.clock

    @classmethod
    def blank(cls, n: int, targets: int, banded: bool) -> Result:
        """NaN and no flags."""
        y = np.full((n, targets), np.nan, dtype=np.float32)
        lo, hi = (y.copy(), y.copy()) if banded else (None, None)
        return cls(y, lo, hi, np.full(n, np.nan, dtype=np.float32), np.zeros(n, dtype=np.uint8))

    def put(self, at: NDArray[np.int64], part: Result, of: NDArray[np.int64] | slice = slice(None)) -> None:
        """Writes readings `of` of another result in places `at` of this one."""
        self.y[at], self.score[at], self.flags[at] = part.y[of], part.score[of], part.flags[of]
        if self.lo is not None and self.hi is not None and part.lo is not None and part.hi is not None:
            self.lo[at], self.hi[at] = part.lo[of], part.hi[of]
