"""How a file says to train, over the defaults. Imports rnn."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from rnn.config import ModelConfig
from rnn.train.learn import forecasts
from rnn.train.practice import Practice
from rnn.train.recipe import default_recipe
from services.tables.table_reader import WrongTable


def recipe_of(asked: Mapping[str, Any], config: ModelConfig, readings: int, seed: int | None) -> Practice:
    """The recipe asked for, the defaults for the rest; `seed` is over its own. Raises WrongTable for a field that is
    none, or a value that cannot be.
    """
    kinds = {field.name: str(field.type) for field in fields(Practice)}
    given: dict[str, Any] = {}
    for key, value in asked.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, 1, 0.0)[0]
            raise WrongTable(f"recipe.{key}: no such key; the nearest is {near!r}")
        wanted, given[key] = _number(key, kinds[key], value)
        if given[key] is None and not (value is None and key in _MAY_BE_NONE):
            raise WrongTable(f"recipe.{key}: {'null' if value is None else repr(value)} is not {wanted}")
    if seed is not None:
        wanted, given["seed"] = _number("seed", "int", seed)
        if given["seed"] is None:
            raise WrongTable(f"seed: {seed} is not {wanted}")
    usual = asdict(default_recipe(readings)) if forecasts(config) else {}
    return Practice(**{**usual, **given})


_FROM_ZERO = ("seed", "burn_in", "patience")
_MAY_BE_NONE = ("budget_s",)
_MOST_SEED = (1 << 63) - 1
_SHARES = ("validation", "averaging", "unknown", "hide")


def _number(key: str, kind: str, value: Any) -> tuple[str, float | None]:
    """(what a field of the recipe may be, the value as such a number or None)."""
    if kind == "int":
        least = 0 if key in _FROM_ZERO else 1
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if key == "seed":
            return f"a whole number from 0 to {_MOST_SEED}", value if good and value <= _MOST_SEED else None
        return f"a whole number of at least {least}", value if good else None
    share = key in _SHARES
    wanted = "a number from 0 to below 1" if share else "a number of at least 0"
    try:
        number = float("nan") if isinstance(value, bool) else float(value)  # YAML reads 1e-3 as text
    except (TypeError, ValueError, OverflowError):
        return wanted, None
    return wanted, number if 0 <= number < (1.0 if share else float("inf")) else None
