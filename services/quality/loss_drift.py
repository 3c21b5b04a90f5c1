"""Whether a model's loss has risen, by ADWIN on one value a round. Imports numpy only; river when one is made.

Bifet & Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007.
"""

from __future__ import annotations

import math
from typing import Any

from services.quality.drift import Drift

CONFIDENCE = 0.002
"""ADWIN's delta: bounds the rate of cuts in a series that has no change."""

RISE = 1.1
"""Loss over what it was, below which a change is let pass."""

LEAST_LOSS = 1e-12
"""What a loss counts at least: logarithms of it are taken."""


class LossWatch:
    """Lives in the supervisor: one for each loss that is watched. About 10 kB, whatever it has seen.

    ADWIN keeps a window of log(loss) and cuts off its older part when the two parts' means differ by more than chance
    allows. What the loss was is the window's mean before the first cut upwards; a cut downwards to it ends the drift.
    The logarithm makes loss in any unit the same matter. A cycle in the losses is a change to ADWIN: give it a loss
    over that of persistence on the same readings, or values that each cover a cycle. A new model gets a new watch.
    """

    def __init__(self, confidence: float = CONFIDENCE, rise: float = RISE) -> None:
        import river.drift

        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence}: give an error rate between 0 and 1, such as 0.002")
        if not rise >= 1:
            raise ValueError(f"rise is {rise}: give a ratio of losses of 1 or more, such as 1.1")
        self.rise = rise
        adwin: Any = river.drift.ADWIN  # typed in part only
        self._window = adwin(delta=confidence, clock=1)
        self._before: float | None = None  # mean of log loss before it changed
        self._cut = False
        self._since_ms: int | None = None

    def add(self, loss: float, now_ms: int) -> Drift:
        """One mean loss of a round. What is not a number is passed over, and infinity counts as very much."""
        if not math.isnan(loss):
            mean = float(self._window.estimation)
            self._window.update(math.log(min(max(loss, LEAST_LOSS), 1 / LEAST_LOSS)))
            now = float(self._window.estimation)
            above = self._before is not None and now - self._before > math.log(self.rise)
            if self._window.drift_detected:
                self._cut = now > mean or (self._cut and above)
            if not self._cut:
                self._before, above = now, False
            self._since_ms = None if not above else now_ms if self._since_ms is None else self._since_ms
        return self.drift

    @property
    def drift(self) -> Drift:
        """How it stands: the value is the loss over what it was."""
        value = 1.0 if self._before is None else math.exp(float(self._window.estimation) - self._before)
        return Drift("loss", "adwin", value, self.rise, self._since_ms is not None, self._since_ms)
