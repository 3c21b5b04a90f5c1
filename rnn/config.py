"""What a network is: `ModelConfig`, its JSON form and its fingerprint. Imports the standard library only."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

CELLS = ("elman", "lstm", "gru")
HEADS = ("point", "gaussian")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Architecture and input conventions of one model; everything a state row's meaning depends on but the weights.

    Raises ValueError, naming the field and what it may be, for a config that no network can be built from.
    """

    features: tuple[str, ...]  # names of the values of a reading, in order
    targets: tuple[str, ...] = ()  # features that are predicted; empty = all of them
    cell: str = "lstm"  # "elman" | "lstm" | "gru"
    hidden: int = 64  # units of every layer
    layers: int = 1
    head: str = "gaussian"  # "point" | "gaussian"
    band: float = 0.8  # probability that [lo, hi] is meant to hold; gaussian head only
    interval_s: float = 1.0  # usual time between two readings of a stream
    scaler_memory: int = 1000  # readings that a stream's running scaler looks back on; 0 = the global one, frozen

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        object.__setattr__(self, "targets", tuple(self.targets) or self.features)
        for name in ("features", "targets"):
            names = getattr(self, name)
            if not names or not all(isinstance(n, str) and n for n in names) or len(set(names)) != len(names):
                raise ValueError(f"{name}: wants at least one name, none empty, none twice; got {names!r}")
        unknown = [name for name in self.targets if name not in self.features]
        if unknown:
            raise ValueError(f"targets: {unknown[0]!r} is not a feature; features are {', '.join(self.features)}")
        _one_of("cell", self.cell, CELLS)
        _one_of("head", self.head, HEADS)
        for name, least in (("hidden", 1), ("layers", 1), ("scaler_memory", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}: wants a whole number of at least {least}; got {value!r}")
        for name, below in (("band", 1.0), ("interval_s", math.inf)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < below:
                raise ValueError(f"{name}: wants a number above 0 and below {below:g}; got {value!r}")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one config, with one fingerprint

    @property
    def target_index(self) -> tuple[int, ...]:
        """Position of each target among the features."""
        return tuple(self.features.index(name) for name in self.targets)

    def to_json(self) -> str:
        """Canonical JSON: equal configs give equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelConfig:
        """The config that `to_json` wrote. Raises ValueError for anything else, naming the field."""
        tree = json.loads(text)
        if not isinstance(tree, dict):
            raise ValueError("a model config is a JSON object")
        return cls.from_tree(tree)

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> ModelConfig:
        """As `from_json`, from parsed JSON."""
        known = [field.name for field in fields(cls)]
        for key in tree:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown key {key!r} in a model config; the nearest known one is {near!r}")
        if "features" not in tree:
            raise ValueError("features: missing from the model config")
        lists = {name: tree[name] for name in ("features", "targets") if name in tree}
        for name, value in lists.items():
            if not isinstance(value, (list, tuple)):
                raise ValueError(f"{name}: wants a list of names; got {value!r}")
        given: dict[str, Any] = {**tree, **{name: tuple(value) for name, value in lists.items()}}
        return cls(**given)

    def fingerprint(self) -> str:
        """sha256 of the canonical JSON, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.0)[0]
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(known)}; the nearest is {near!r}")
