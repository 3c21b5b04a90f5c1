"""How far a shard is behind, in records and in seconds. Imports records only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.records import Records


class Lag:
    """What is unread came after the last record read, and after the end was last met."""

    def __init__(self) -> None:
        self._read_up_to_ms: dict[int, int] = {}  # partition -> what is unread came later than this

    def see(self, polled: Sequence[Records], unread: Mapping[int, int], now_ms: int) -> float:
        """Age in seconds of the oldest of the `unread` records (partition -> how many), at most; 0: all is read."""
        known_ms = self._read_up_to_ms
        for records in polled:
            last_ms = int(records.timestamps_ms[-1])
            known_ms[records.partition] = max(known_ms.get(records.partition, last_ms), last_ms)
        known_ms.update({partition: now_ms for partition, n in unread.items() if not n})
        ages_ms = [now_ms - known_ms[partition] for partition, n in unread.items() if n and partition in known_ms]
        return max([0, *ages_ms]) / 1000
