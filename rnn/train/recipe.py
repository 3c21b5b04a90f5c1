"""How a network is trained, and what does well without tuning: `Recipe`, `default_config`, `default_recipe`.

Numbers only; imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnn.config import ModelConfig

FEW_READINGS = 200_000
"""With fewer than that the default config hides half of what the recurrent path says while it learns."""

WIDEST_PATH = 2048
"""Most values that the default linear path looks at; solving it costs the third power of that."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. The defaults are meant to serve without tuning from ten thousand readings up."""

    seed: int = 0
    updates: int = 1280  # steps of the optimiser, rounded up to whole epochs
    lanes: int = 128  # pieces stepped side by side, about; fewer where one would be shorter than `lane_steps`
    lane_steps: int = 1024
    window: int = 64  # steps that gradients flow back over; the state itself is carried on
    burn_in: int = 64  # first steps of a lane that do not count
    learning_rate: float = 0.01  # at its peak; warmed up over a fifth of the updates, then annealed to nothing
    weight_decay: float = 0.01
    averaging: float = 0.99  # of the weights over the updates, exponentially (Polyak and Juditsky 1992); 0 = none
    clip_norm: float = 1.0
    validation: float = 0.1  # share of the readings, the latest ones, that decide which epoch's weights are kept
    patience: int = 480  # updates without a better validation error after which training stops
    threads: int = 1  # of torch; more help little, and hurt where other work runs beside. Part of what fixes the result
    budget_s: float | None = None  # a guard: no new epoch begins after that; None for reproducible results


def default_config(
    features: Sequence[str], interval_s: float, targets: Sequence[str] = (), readings: int = FEW_READINGS
) -> ModelConfig:
    """A config that does well without tuning: one LSTM of 64 units beside a linear path over 8 readings, with a band,
    for every feature or for `targets`; for so many `readings` to learn from.

    The running scaler looks far back: on household power a memory of 10,000 readings, a week, gave 20 % below
    persistence, the frozen global scaler as much, and a memory of 1,000 only 17 %.
    """
    return ModelConfig(
        features=tuple(features),
        targets=tuple(targets),
        interval_s=float(interval_s),
        scaler_memory=10_000,
        linear=max(1, min(8, WIDEST_PATH // len(features))),
        dropout=0.5 if readings < FEW_READINGS else 0.0,
    )


def default_recipe(readings: int = FEW_READINGS, seed: int = 0) -> Recipe:
    """How to train the default config on so many readings: longer on many, where it does not overfit."""
    return Recipe(seed=seed) if readings < FEW_READINGS else Recipe(seed=seed, updates=4000, patience=1500)
