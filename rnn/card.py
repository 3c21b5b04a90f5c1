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
class DataRange:
    """The readings that a model was trained on."""

    from_ms: int  # time of the first reading
    to_ms: int  # time of the last reading
    rows: int
    digest: str  # sha256, hex, of what identifies the data


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
        "data": None if card.data is None else asdict(card.data),
        "scores": dict(card.scores),
        "shapes": {name: list(shape) for name, shape in card.shapes.items()},
    }
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
    data = fields["data"]
    if data is not None:
        data = DataRange(
            _as(int, data["from_ms"]), _as(int, data["to_ms"]), _as(int, data["rows"]), _as(str, data["digest"])
        )
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
    )


def _as(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
