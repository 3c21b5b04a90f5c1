"""What a shard may be told. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Notify = Callable[..., None]
"""`notify(event, **fields)`: something a person may want to read."""


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """What a shard may be told; see services.settings for what the numbers mean to an operator."""

    exactly_once: bool = True
    max_readings: int = 10_000  # of one epoch, unless a packed record alone has more
    epoch_s: float = 7.5  # how long the readings of one epoch may take to be stepped, as far as that can be foreseen
    max_streams: int = 1_000_000  # of each partition
    ttl_ms: int | None = None  # a stream silent for longer is forgotten; None = never
    flush_after_ms: int | None = (
        None  # silence after which what waits is sent; None = ten usual intervals, 10 s at least
    )
    recent: int = 0  # latest readings of each stream that are remembered, to bring streams over to another model
    shards: int = 1  # of the pipeline, whose sketches of inputs are added up
    spotlight: tuple[str, ...] = ()  # streams whose latest values are kept, to be looked at
    renew_ms: int | None = None  # an owner that has committed nothing for so long commits where it stands; None = never
    held_open_s: float = 60.0  # longest wait for a transaction of somebody else that hides a part of the changelog
    poll_s: float = 0.2  # longest wait for a reading; bounds how late a stop is noticed

    def is_to_sign(self, signed_ms: int | None, now_ms: int) -> bool:
        """Whether the offsets of all partitions are due, which were last committed at `signed_ms` (None: were not).
        Kafka forgets each by itself, also beside busy ones.
        """
        return signed_ms is None or (self.renew_ms is not None and abs(now_ms - signed_ms) >= self.renew_ms)
