"""How sequences are trained on: the recipe of forecasts, and what only other shapes need. Imports rnn.train.recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rnn.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Practice(Recipe):
    """A `Recipe`, and what sequences, classes and decoders ask for."""

    sequences: int = 64  # learned from side by side; long streams are cut into lanes, `lanes` side by side
    stride: int = 8  # a decoder that answers every reading learns from every so many-th one
    unknown: float = 0.05  # share of symbols hidden behind <unknown>, so that a new one is nothing unheard of
    hide: float = 0.0  # share of real values made missing, for networks that are to fill gaps
    balance: float = 0.0  # a class weighs frequency^-balance: 0 = as it comes, 1 = rare ones as much as common ones
    jitter: float = 0.0  # of classes' features, lane by lane: so much of every other one, and of an offset, comes in
    least_passes: int = 8  # over all data, where `updates` would not give as many

    @classmethod
    def of(cls, recipe: Recipe | None) -> Practice:
        """The recipe itself if it is one, else with the defaults for the rest."""
        if isinstance(recipe, cls):
            return recipe
        return cls(**asdict(recipe)) if recipe is not None else cls()
