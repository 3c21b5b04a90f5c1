"""The JSON contract as pydantic models, for documentation, JSON Schema and other people's tests. Not used when serving.

docs/wire.md explains it; `readings_contract` and `predictions` are what serves it; the tests hold the three together.
May import pydantic and this room.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.codecs.readings_contract import MAX_AT_MS, MAX_SEQ
from services.records import Flag

FLOAT32_MAX = 3.4028234663852886e38
FLAGS = tuple(str(flag.name).lower() for flag in Flag)
"""Spellings of the flags on the wire, in the order of their bits."""

TIME = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?$"
"""What a time looks like as text: RFC 3339, whose offset may be absent and then is UTC."""

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-FLOAT32_MAX, le=FLOAT32_MAX)]
"""A number that float32 can hold; neither a string nor a boolean."""


class ReadingV1(BaseModel):
    """A reading: the value of one record of the readings topic. The record's key names the stream (1 to 256 bytes)."""

    model_config = ConfigDict(extra="forbid", title="Reading")

    at: Annotated[int, Field(strict=True, ge=0, le=MAX_AT_MS)] | Annotated[str, Field(pattern=TIME)] = Field(
        description="When it was measured: milliseconds since 1970, or an ISO 8601 date and time (no offset: UTC)."
    )
    x: list[Number | None] | dict[str, Number | None] = Field(
        description="One number per feature of the model in its order, or numbers by feature; null or absent = missing."
    )
    seq: Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)] | None = Field(
        default=None, description="The producer's own counter within the stream; a repeated one is not folded in twice."
    )
    v: Literal[1] = Field(default=1, description="Version of the contract.")


class PredictionV1(BaseModel):
    """A prediction: the value of one record of the predictions topic, with the reading's key and partition."""

    model_config = ConfigDict(extra="ignore", title="Prediction")

    v: Literal[1] = Field(description="Version of the contract.")
    stream: str | None = Field(description="The reading's key; null when it is not UTF-8.")
    stream_hex: str | None = Field(
        default=None, pattern="^([0-9a-f]{2}){1,256}$", description="The key in hex digits, only where stream is null."
    )
    at: int = Field(ge=0, le=MAX_AT_MS, description="The reading's time in milliseconds since 1970.")
    partition: int = Field(ge=0, description="Partition of the reading.")
    offset: int = Field(ge=0, description="Offset of the reading; unique with the partition.")
    model: str = Field(description="Id of the model that made it.")
    y: list[Number | None] = Field(description="What is expected next, one number a target; null = no prediction.")
    lo: list[Number | None] | None = Field(description="Lower edge of the 80 % band; null for a model without one.")
    hi: list[Number | None] | None = Field(description="Upper edge of the 80 % band; null for a model without one.")
    score: Number | None = Field(
        description="Surprise of the reading under the stream's previous prediction, in nats per observed value."
    )
    flags: list[str] = Field(
        description=f"What was unusual: any of {', '.join(FLAGS)}; more may come within version 1."
    )


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of both, under `$defs`."""
    names: dict[str, type[BaseModel]] = {"Reading": ReadingV1, "Prediction": PredictionV1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "streamrnn wire contract, version 1",
        "$defs": {name: model.model_json_schema() for name, model in names.items()},
    }
