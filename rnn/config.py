"""What a network is: `ModelConfig`, its JSON form and its fingerprint. Imports the standard library only."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

TASKS = ("one-to-one", "one-to-many", "many-to-one", "many-to-many", "encoder-decoder")
PREDICTS = ("next", "now")
CELLS = ("elman", "lstm", "gru", "mingru")
ACTIVATIONS = ("tanh", "sigmoid", "relu")
DIRECTIONS = ("forward", "concat", "sum")
HEADS = ("point", "gaussian", "student", "quantile", "categorical")
ANSWERS = ("end", "each")

UNKNOWN, BEGIN, END = "<unknown>", "<begin>", "<end>"
SPECIALS = (UNKNOWN, BEGIN, END)
"""Symbols 0, 1 and 2 of every vocabulary; `ModelConfig.vocabulary[i]` is symbol i + 3."""

SYMBOL = "symbol"
"""Name of the one feature of a symbolic reading: its symbol's number in the vocabulary, as a float."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Architecture and input conventions of one model; everything a state row's meaning depends on but the weights.

    Raises ValueError, naming the field and what it may be, for a config that no network can be built from.
    """

    features: tuple[str, ...] = ()  # names of the values of a reading, in order; ("symbol",) where it is a symbol
    targets: tuple[
        str, ...
    ] = ()  # what is predicted: features where it is the next reading's (empty = all), else names
    cell: str = "lstm"  # "elman" | "lstm" | "gru" | "mingru"
    hidden: int = 64  # units of every layer
    layers: int = 1
    head: str = "gaussian"  # "point" | "gaussian" | "student" | "quantile" | "categorical"
    band: float = 0.8  # probability that [lo, hi] is meant to hold
    interval_s: float = 1.0  # usual time between two readings of a stream
    scaler_memory: int = 1000  # readings that a stream's running scaler looks back on; 0 = the global one, frozen
    task: str = "many-to-many"  # the lecture's shapes: "one-to-one" | "one-to-many" | "many-to-one" | ...
    predicts: str = "next"  # "next": the next reading's targets; "now": what is true of the readings so far
    vocabulary: tuple[str, ...] = ()  # symbols that a reading may be; empty = readings are real-valued
    labels: tuple[str, ...] = ()  # classes, or symbols of the answer; categorical head only
    embedding: int = 32  # width of a symbol's vector
    direction: str = "forward"  # or both ways, outputs put side by side ("concat") or added ("sum")
    lag: int = 0  # later readings that a prediction waits for; both ways only
    horizon: int = 1  # steps of the answer; for symbols the most there may be
    linear: int = 0  # latest readings of the linear autoregressive path beside the recurrent one; 0 = no such path
    activation: str = "tanh"  # of Elman cells and of feed-forward layers
    dropout: float = 0.0  # share of a layer's outputs hidden from the next one and from the head in training
    layer_norm: bool = False  # normalises each layer's output (Ba et al. 2016)
    answer: str = "end"  # many-to-one: "end" of a sequence, or after "each" reading what is known so far
    max_length: int = 0  # readings of a sequence; later ones are not folded in; 0 = no limit
    temperature: float = 0.0  # of sampling next symbols; 0 = the most probable one
    top_k: int = 3  # most probable labels that are listed, and sampled among

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            _one_of(name, getattr(self, name), known)
        for name in ("features", "targets", "vocabulary", "labels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._complete()
        for name in ("features", "targets", "vocabulary", "labels"):
            names = getattr(self, name)
            if not all(isinstance(n, str) and n for n in names) or len(set(names)) != len(names):
                raise ValueError(f"{name}: wants names, none empty, none twice; got {_some(names)}")
            if special := [n for n in names if n in SPECIALS]:
                raise ValueError(f"{name}: {special[0]!r} is there without being named")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}: wants a whole number of at least {least}; got {value!r}")
        for name, (above, below) in _REAL.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < below:
                raise ValueError(f"{name}: wants a number above {max(above, 0):g} and below {below:g}; got {value!r}")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one config, with one fingerprint
        if not isinstance(self.layer_norm, bool):
            raise ValueError(f"layer_norm: wants true or false; got {self.layer_norm!r}")
        self._agree()

    def _complete(self) -> None:
        """What need not be written because only one thing can be meant."""
        if self.vocabulary and not self.features:
            object.__setattr__(self, "features", (SYMBOL,))
        if self.head == "categorical":
            if not self.labels and self.vocabulary and self.task == "many-to-many" and self.predicts == "next":
                object.__setattr__(self, "labels", self.vocabulary)
        elif not self.targets and self.predicts == "next":
            object.__setattr__(self, "targets", self.features)

    def _agree(self) -> None:
        """Raises ValueError where two fields contradict each other."""
        if not self.features:
            raise ValueError("features: missing from the model config; or name a vocabulary")
        if self.symbolic and self.features != (SYMBOL,):
            raise ValueError(f"features: a reading that is a symbol has none; got {_some(self.features)}")
        if (self.head == "categorical") != bool(self.labels):
            raise ValueError("labels: a categorical head wants some, no other head has any")
        if (self.head == "categorical") == bool(self.targets):
            raise ValueError("targets: a categorical head has labels instead, every other head wants some")
        if self.targets and self.predicts == "next":
            if self.symbolic or self.task not in ("many-to-many", "encoder-decoder"):
                raise ValueError(f"predicts: 'next' means the next reading; {self.task} on symbols or one reading "
                                 "has none: set predicts to 'now'")  # fmt: skip
            unknown = [name for name in self.targets if name not in self.features]
            if unknown:
                raise ValueError(
                    f"targets: {unknown[0]!r} is not a feature; features are {', '.join(self.features)}. "
                    "To predict something else set predicts to 'now'"
                )
        if self.labels and self.predicts == "next" and (self.task != "many-to-many" or self.labels != self.vocabulary):
            raise ValueError("labels: those of the next symbol are the vocabulary, and a many-to-many network says it; "
                             "set predicts to 'now' for others")  # fmt: skip
        if self.direction != "forward" and (self.task != "many-to-many" or self.predicts != "now"):
            raise ValueError("direction: reading both ways needs task 'many-to-many' and predicts 'now'")
        if self.lag and self.direction == "forward":
            raise ValueError("lag: waits for later readings, which direction 'forward' never looks at; use 'concat'")
        decodes = self.task in ("one-to-many", "encoder-decoder")
        if self.horizon > 1 and not decodes:
            raise ValueError("horizon: more than one step needs task 'one-to-many' or 'encoder-decoder'")
        if self.linear and not self.residual:
            raise ValueError("linear: the linear path predicts the next reading: predicts 'next', real targets")
        if self.task == "encoder-decoder" and self.predicts == "now" and self.targets:
            raise ValueError("predicts: an encoder-decoder with real targets says the 'next' readings")

    @property
    def symbolic(self) -> bool:
        """Whether a reading is a symbol."""
        return bool(self.vocabulary)

    @property
    def residual(self) -> bool:
        """Whether the answer is a change against the last reading: forecasts of real values."""
        return self.predicts == "next" and bool(self.targets)

    @property
    def recurrent(self) -> bool:
        """Whether a stream carries a hidden state from reading to reading."""
        return self.task not in ("one-to-one", "one-to-many")

    @property
    def decodes(self) -> bool:
        """Whether the answer is made step by step, by a decoder."""
        return self.task in ("one-to-many", "encoder-decoder")

    @property
    def generates(self) -> bool:
        """Whether the answer is made of symbols and ends by itself."""
        return bool(self.labels) and (self.decodes or (self.predicts == "next" and self.task == "many-to-many"))

    @property
    def at_end(self) -> bool:
        """Whether a sequence is answered once, when it ends."""
        whole = self.task == "many-to-one" or (self.task == "encoder-decoder" and bool(self.labels))
        return whole and self.answer == "end"

    @property
    def classes(self) -> tuple[str, ...]:
        """What the numbers of a categorical answer stand for: the labels, then `END` where an answer ends by itself."""
        return (*self.labels, END) if self.generates else self.labels

    @property
    def width(self) -> int:
        """Values of one answer: horizon x targets, or horizon x 1 class."""
        return self.horizon * max(1, len(self.targets))

    @property
    def target_index(self) -> tuple[int, ...]:
        """Position of each target among the features; empty where targets are no features."""
        return tuple(self.features.index(name) for name in self.targets) if self.residual else ()

    def to_json(self) -> str:
        """Canonical JSON: equal configs give equal text. A field that came after the first release of the format is
        written only where it is not its default, so that the fingerprints of older models stay.
        """
        tree = asdict(self)
        for field in fields(self)[_FIRST_FIELDS:]:
            if tree[field.name] == field.default:
                del tree[field.name]
        return json.dumps(tree, sort_keys=True, separators=(",", ":"))

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
        lists = {name: tree[name] for name in ("features", "targets", "vocabulary", "labels") if name in tree}
        for name, value in lists.items():
            if not isinstance(value, (list, tuple)):
                raise ValueError(f"{name}: wants a list of names; got {value!r}")
        given: dict[str, Any] = {**tree, **{name: tuple(value) for name, value in lists.items()}}
        return cls(**given)

    def fingerprint(self) -> str:
        """sha256 of the canonical JSON, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


_CHOICES = {
    "task": TASKS,
    "predicts": PREDICTS,
    "cell": CELLS,
    "activation": ACTIVATIONS,
    "direction": DIRECTIONS,
    "head": HEADS,
    "answer": ANSWERS,
}
_WHOLE = {"hidden": 1, "layers": 1, "scaler_memory": 0, "embedding": 1, "lag": 0, "horizon": 1, "linear": 0,
          "max_length": 0, "top_k": 1}  # fmt: skip
_REAL = {"band": (0.0, 1.0), "interval_s": (0.0, math.inf), "dropout": (-1e-9, 1.0), "temperature": (-1e-9, 100.0)}
_FIRST_FIELDS = 9


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.0)[0]
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(known)}; the nearest is {near!r}")


def _some(names: tuple[str, ...]) -> str:
    return repr(names if len(names) <= 8 else (*names[:8], "..."))
