"""The JSON contract as pydantic models, for documentation, JSON Schema and other people's tests. Not used when serving.

docs/wire.md explains it; `readings_contract` and `predictions` are what serves it; the tests hold the three together.
May import pydantic and this room.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from services.codecs.readings_contract import MAX_AT_MS, MAX_SEQ
from services.codecs.schema import MAX_SYMBOL_BYTES
from services.records import Flag

FLOAT32_MAX = 3.4028234663852886e38
FLAGS = tuple(str(flag.name).lower() for flag in Flag)
"""Spellings of the flags on the wire, in the order of their bits."""

TIME = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?$"
"""What a time looks like as text: RFC 3339, whose offset may be absent and then is UTC."""

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-FLOAT32_MAX, le=FLOAT32_MAX)]
"""A number that float32 can hold; neither a string nor a boolean."""


def _fits(symbol: str) -> str:
    if len(symbol.encode()) > MAX_SYMBOL_BYTES:
        raise ValueError(f"a symbol has at most {MAX_SYMBOL_BYTES} bytes of UTF-8")
    return symbol


Symbol = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_SYMBOL_BYTES), AfterValidator(_fits)]
"""A symbol, whether the model knows it or not: 1 to 256 bytes of UTF-8."""

OneSymbol = Annotated[list[Symbol | None], Field(min_length=1, max_length=1)]

_NEEDS_X: dict[str, Any] = {
    "anyOf": [{"required": ["x"]}, {"required": ["end"], "properties": {"end": {"const": True}}}]
}


class ReadingV1(BaseModel):
    """A reading: the value of one record of the readings topic. The record's key names the stream (1 to 256 bytes)."""

    model_config = ConfigDict(extra="forbid", title="Reading", json_schema_extra=_NEEDS_X)

    at: Annotated[int, Field(strict=True, ge=0, le=MAX_AT_MS)] | Annotated[str, Field(pattern=TIME)] = Field(
        description="When it was measured: milliseconds since 1970, or an ISO 8601 date and time (no offset: UTC)."
    )
    x: list[Number | None] | dict[str, Number | None] = Field(
        default_factory=list,
        description="One number per feature of the model in its order, or numbers by feature; null or absent = missing."
        " Only a bare end goes without it.",
    )
    seq: Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)] | None = Field(
        default=None, description="The producer's own counter within the stream; a repeated one is not folded in twice."
    )
    end: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, description="Whether the sequence ends with this reading; without x, that it has ended before."
    )
    v: Literal[1] = Field(default=1, description="Version of the contract.")

    @model_validator(mode="after")
    def _has_x(self) -> Self:
        if "x" not in self.model_fields_set and not self.end:
            raise ValueError("x is missing; only the end of a sequence may go without")
        return self


class SymbolReadingV1(ReadingV1):
    """A reading of a model with a vocabulary: the same, but x is a symbol."""

    model_config = ConfigDict(title="SymbolReading")

    x: Symbol | OneSymbol | dict[Literal["symbol"], Symbol | None] | None = Field(  # type: ignore[assignment]
        default=None,
        description="A symbol, alone, in an array, or under the name `symbol`; null = missing. "
        "Only a bare end goes without it.",
    )


Numbers = list[Number | None] | list[list[Number | None]]

_KINDS = (("y", "lo", "hi"), ("label", "top"), ("text", "prob"))
_ONE_KIND: dict[str, Any] = {"oneOf": [{"required": list(kind)} for kind in _KINDS]}


class PredictionV1(BaseModel):
    """A prediction: the value of one record of the predictions topic, with the reading's key and partition."""

    model_config = ConfigDict(extra="ignore", title="Prediction", json_schema_extra=_ONE_KIND)

    v: Literal[1] = Field(description="Version of the contract.")
    stream: str | None = Field(description="The reading's key; null when it is not UTF-8.")
    stream_hex: str | None = Field(
        default=None, pattern="^([0-9a-f]{2}){1,256}$", description="The key in hex digits, only where stream is null."
    )
    at: int = Field(ge=0, le=MAX_AT_MS, description="The reading's time in milliseconds since 1970.")
    partition: int = Field(ge=0, description="Partition of the reading.")
    offset: int = Field(ge=0, description="Offset of the reading; unique with the partition.")
    model: str = Field(description="Id of the model that made it.")
    y: Numbers = Field(
        default=[], description="What is expected, one number a target, or a list of them a step; null = no prediction."
    )
    lo: Numbers | None = Field(default=None, description="Lower edge of the 80 % band; null for a model without one.")
    hi: Numbers | None = Field(default=None, description="Upper edge of the 80 % band; null for a model without one.")
    label: str | None = Field(
        default=None, description="The most probable label, or the symbol that was drawn; null = no prediction."
    )
    top: list[tuple[str, Annotated[float, Field(ge=0, le=1)]]] = Field(
        default=[], description="The most probable labels with their probabilities, the most probable first."
    )
    text: list[str] | None = Field(default=None, description="The symbols of a generated answer; null = no prediction.")
    prob: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Probability of the whole generated answer; null = no prediction."
    )
    score: Number | None = Field(
        description="Surprise of the reading under the stream's previous prediction, in nats per observed value."
    )
    p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Probability that a normal reading of this stream is at least as surprising."
    )
    lasting: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="The same of all that the stream has done lately, this reading included."
    )
    flags: list[str] = Field(
        description=f"What was unusual: any of {', '.join(FLAGS)}; more may come within version 1."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in _KINDS if set(kind) & self.model_fields_set]
        if len(given) != 1 or not set(given[0]) <= self.model_fields_set:
            raise ValueError("a prediction has y, lo and hi, or label and top, or text and prob")
        return self


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of all three, under `$defs`."""
    names: dict[str, type[BaseModel]] = {
        "Reading": ReadingV1,
        "SymbolReading": SymbolReadingV1,
        "Prediction": PredictionV1,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "streamrnn wire contract, version 1",
        "$defs": {name: model.model_json_schema() for name, model in names.items()},
    }
