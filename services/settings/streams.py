"""The section `state` of the tree: what streams carry, how many there may be, and for how long.

No reading of files or environment here.
"""

from __future__ import annotations

from pydantic import Field

from services.settings.model_lifecycle import Section


class StateSettings(Section):
    """What streams carry from reading to reading."""

    slots: int = Field(
        100_000,
        ge=8,
        le=50_000_000,
        description="Streams whose state a shard keeps on its device. More live streams than slots cost speed only.",
    )
    max_streams: int = Field(
        1_000_000,
        ge=1,
        le=100_000_000,
        description="Most streams of each partition, so that random keys do not take all memory: readings of further "
        "ones become dead letters, until silent streams are forgotten.",
    )
    ttl_days: float | None = Field(
        30.0, gt=0, description="Days without a reading after which a stream is forgotten. null: never."
    )
    recent: int = Field(
        16,
        ge=1,
        le=1000,
        description="With `registry`: latest readings of each stream that are remembered beside its state. They bring "
        "a stream over to a model that has not followed it; each costs about 4 bytes a feature and 9 more, in memory "
        "and in the changelog.",
    )
    adapt: int = Field(
        0,
        ge=0,
        le=4096,
        description="Directions of the hidden state by which forecasts are corrected within each stream, from its own "
        "errors; 8 is usual, as many as hidden units the most. 0: not at all. Measure it first, with `streamrnn "
        "backtest --adapt 8`; what a change of it asks for: docs/adaptation.md.",
    )
    adapt_memory: int = Field(
        2000, ge=10, description="With `adapt`: readings after which an error counts 1/e of a new one."
    )
    flush_after_s: float | None = Field(
        None,
        gt=0,
        description="Seconds of silence after which a stream's predictions that wait for later readings (models that "
        "read both ways) are sent without them. null: ten of the model's usual intervals, but at least 10 s.",
    )
