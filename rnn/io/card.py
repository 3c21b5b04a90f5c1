"""A model's card: what is known of it besides its weights, and its JSON text, which is checked field by field.

Imports the standard library and `rnn.config` only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rnn.config import ModelConfig

T = TypeVar("T")

FORMAT = 1
CARD = "card.json"
CARD_BYTES = 4 << 20  # more than this is not a card


class ModelRefused(Exception):
    """The folder holds no model that may be used. The message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class TrainingSource:
    """The records of a Kafka topic that readings were taken from: enough to take the same ones again."""

    topic: str
    partitions: Mapping[int, tuple[int, int]]  # partition -> offsets [from, to)
    rows: Mapping[int, int]  # partition -> readings that were accepted
    streams: int
    rejected: int  # records that hold no reading
    repeated: int  # readings that were there twice and count once


@dataclass(frozen=True, slots=True)
class DataRange:
    """The readings that a model was trained on."""

    from_ms: int  # time of the first reading
    to_ms: int  # time of the last reading
    rows: int
    digest: str  # sha256, hex, of what identifies the data
    source: TrainingSource | None = None  # where they came from, if that was a topic


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model besides its weights."""

    model: str  # the model's id: the first 12 hex digits of sha256
    sha256: str  # of model.safetensors, hex
    config: ModelConfig
    created_ms: int
    data: DataRange | None = None
    parent: str | None = None  # id of the model that training began from
    scores: Mapping[str, float] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of every tensor, by name
    recipe: Mapping[str, Any] = field(default_factory=dict)  # how it was trained, where that is known: plain JSON


def card_text(card: Card) -> str:
    """JSON of one card. Raises ValueError for a score that is not finite."""
    fields = {
        "format": FORMAT,
        "model": card.model,
        "sha256": card.sha256,
        "created_ms": card.created_ms,
        "parent": card.parent,
        "fingerprint": card.config.fingerprint(),
        "config": json.loads(card.config.to_json()),
        "data": _data_fields(card.data),
        "scores": dict(card.scores),
        "shapes": {name: list(shape) for name, shape in card.shapes.items()},
    }
    if card.recipe:
        fields["recipe"] = dict(card.recipe)
    return json.dumps(fields, indent=2, allow_nan=False) + "\n"


def read_card(folder: Path) -> Card:
    """The card in `folder`; nothing is said of the weights beside it. Raises ModelRefused."""
    path = folder / CARD
    try:
        with path.open("rb") as file:
            text = file.read(CARD_BYTES + 1)
    except OSError as error:
        raise ModelRefused(
            f"{path} cannot be read: {error.strerror}. Name the folder of a model that was saved whole."
        ) from error
    try:
        if len(text) > CARD_BYTES:
            raise ValueError(f"longer than {CARD_BYTES} bytes")
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path} is not a model's card ({error}). Copy the model's whole folder again.") from error
    if fields.get("format") != FORMAT:
        raise ModelRefused(
            f"{path} has format {fields.get('format')!r}; this release reads format {FORMAT}. "
            "Train the model again, or use the release that made it."
        )
    try:
        return _card(fields)
    except (ValueError, TypeError, KeyError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelRefused(f"{path} is not a card that this release reads: {what}. Train the model again.") from error


def _card(fields: Mapping[str, Any]) -> Card:
    sha256 = _as(str, fields["sha256"])
    model = _as(str, fields["model"])
    if model != sha256[:12]:
        raise ValueError(f"model {model!r} is not the beginning of sha256 {sha256!r}")
    data = None if fields["data"] is None else _data(_as(dict, fields["data"]))
    config = ModelConfig.from_json(json.dumps(_as(dict, fields["config"])))
    if config.fingerprint() != fields["fingerprint"]:
        raise ValueError("its config was changed by hand or by another release, for it does not have the fingerprint")
    return Card(
        model=model,
        sha256=sha256,
        config=config,
        created_ms=_as(int, fields["created_ms"]),
        data=data,
        parent=None if fields["parent"] is None else _as(str, fields["parent"]),
        scores={str(name): float(score) for name, score in _as(dict, fields["scores"]).items()},
        shapes={str(name): tuple(map(int, shape)) for name, shape in _as(dict, fields["shapes"]).items()},
        recipe=dict(_as(dict, fields.get("recipe", {}))),
    )


def _data_fields(data: DataRange | None) -> dict[str, Any] | None:
    """As JSON; without a source, what cards had before there were any."""
    if data is None:
        return None
    fields = asdict(data)
    if data.source is None:
        del fields["source"]
    return fields


def _data(fields: Mapping[str, Any]) -> DataRange:
    found, source = fields.get("source"), None
    if found is not None:
        spans = {int(one): (int(first), int(end)) for one, (first, end) in _as(dict, found["partitions"]).items()}
        rows = {int(one): _as(int, count) for one, count in _as(dict, found["rows"]).items()}
        counts = (_as(int, found[name]) for name in ("streams", "rejected", "repeated"))
        source = TrainingSource(_as(str, found["topic"]), spans, rows, *counts)
    from_ms, to_ms, count = (_as(int, fields[name]) for name in ("from_ms", "to_ms", "rows"))
    return DataRange(from_ms, to_ms, count, _as(str, fields["digest"]), source)


def _as(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
