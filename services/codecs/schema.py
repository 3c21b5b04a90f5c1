"""What a reading of one model may hold. Imports the standard library only."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SYMBOL = 3
"""Number of the vocabulary's first symbol; below are <unknown>, <begin> and <end>, which no reading can name."""
UNKNOWN_SYMBOL = 0
MAX_SYMBOL_BYTES = 256


@dataclass(frozen=True, slots=True)
class Schema:
    """Names of a reading's values in the model's order; with a vocabulary the one value is a symbol.

    Raises ValueError for repeated or no features, or several of them beside a vocabulary.
    """

    features: tuple[str, ...]
    vocabulary: tuple[str, ...] = ()  # symbols; empty: values are numbers

    def __post_init__(self) -> None:
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(f"features must be distinct and at least one, not {self.features!r}")
        if self.vocabulary and len(self.features) > 1:
            raise ValueError(f"a reading that is a symbol has one value, not {self.features!r}")

    @property
    def symbolic(self) -> bool:
        """Whether a reading is a symbol."""
        return bool(self.vocabulary)

    def numbers(self) -> dict[str, int]:
        """Symbol -> the number that stands for it in a reading's value; one that is not here is UNKNOWN_SYMBOL, or too
        long to be sent.
        """
        pairs = enumerate(self.vocabulary, FIRST_SYMBOL)
        return {symbol: number for number, symbol in pairs if len(symbol.encode()) <= MAX_SYMBOL_BYTES}
