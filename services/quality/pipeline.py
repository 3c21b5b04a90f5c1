"""What is known of a whole pipeline and of no shard alone: its drift, its contest, its verdicts. Imports numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.quality.drift import Drift, InputWatch, RecentHistogram
from services.quality.loss_drift import LossWatch
from services.quality.prequential import PERSISTENCE, SQUARED, N, RunningMetrics

LOOK_READINGS = 2_000
"""Scored readings that one value of the loss's watch is the mean of."""


@dataclass(slots=True)
class PipelineStats:
    """Plain numbers; Prometheus is one reader of them."""

    champion_since_s: float = 0.0  # wall clock at which the registry's champion became it; 0 = there is no registry
    verdicts: dict[str, int] = field(default_factory=dict)  # outcome -> how many, since the server started
    contest: dict[str, float] = field(default_factory=dict)  # gain, gain_low, gain_high, readings; empty: none is on
    drift: dict[str, float] = field(default_factory=dict)  # feature, or "loss" -> value over threshold, the worst
    retrainings: dict[str, int] = field(default_factory=dict)  # outcome -> how many, since the server started
    retraining: bool = False  # whether one is under way
    retraining_done: float = 0.0  # share of its passes; 0: none is under way, or its folder is not on this machine
    retraining_loss: dict[str, float] = field(default_factory=dict)  # "validation", "baseline"; empty: as above
    retrained_s: float = 0.0  # wall clock at which the last one gave a model; 0 = none has
    unread_partitions: int = 0  # of the readings, added since the fleet started
    retrain_every_s: float = 0.0  # between two retrainings by schedule; 0 = there is none


class DriftWatch:
    """Watches a champion's inputs and its loss over that of persistence, which takes out how hard the present is."""

    def __init__(self) -> None:
        self._begin("")

    def _begin(self, model: str) -> None:
        self._model = model
        self._inputs = InputWatch()
        self._loss: LossWatch | None = None
        self._sums: tuple[float, ...] = (0.0, 0.0, 0.0)  # readings, squared errors, those of persistence, at a look
        self.drifts: list[Drift] = []

    def look(
        self, model: str, inputs: Sequence[RecentHistogram], figures: Sequence[RunningMetrics], now_ms: int
    ) -> list[Drift]:
        """What all shards together show now. Another model is watched anew."""
        if model != self._model:
            self._begin(model)
        found = []
        if inputs:
            whole = inputs[0]
            try:
                for one in inputs[1:]:
                    whole = whole + one
            except ValueError:
                whole = inputs[0]  # shards that gathered references of their own: one of them speaks for all
            found += self._inputs.judge(whole, now_ms)
        if figures:
            self._look_at_loss(figures, now_ms)
        if self._loss is not None:
            found.append(self._loss.drift)
        self.drifts = found
        return found

    def _look_at_loss(self, figures: Sequence[RunningMetrics], now_ms: int) -> None:
        now = tuple(float(sum(one.ever[row].sum() for one in figures)) for row in (N, SQUARED, PERSISTENCE))
        readings, squared, naive = (a - b for a, b in zip(now, self._sums, strict=True))
        if readings < 0:  # a shard has started anew, and counts anew
            self._sums = now
            return
        if readings < LOOK_READINGS or naive <= 0:
            return
        self._sums = now
        self._loss = self._loss or LossWatch()
        self._loss.add(squared / naive, now_ms)


def worst(drifts: Sequence[Drift]) -> dict[str, float]:
    """Name -> value over threshold, the greatest of its measures: 1 and more has drifted."""
    found: dict[str, float] = {}
    for one in drifts:
        if one.threshold > 0:
            found[one.name] = max(found.get(one.name, 0.0), one.value / one.threshold)
    return found
