"""How far a shard is behind, in records and in seconds; what it has lost to retention. Imports records only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from services.records import Records


class Lag:
    """What is unread came after the last record read, and after the end was last met."""

    def __init__(self) -> None:
        # Partition -> what is unread came later than either.
        self._met_ms: dict[int, int] = {}
        self._read_ms: dict[int, int] = {}

    def see(self, polled: Sequence[Records], unread: Mapping[int, int], now_ms: int) -> float:
        """Age in seconds of the oldest of the `unread` records (partition -> how many), at most; 0: all is read. Where
        nothing says how old they are it is the time since they were first seen, 1 ms at least.
        """
        for records in polled:
            past = records.timestamps_ms[records.timestamps_ms <= now_ms]  # one from the future says nothing of others
            if len(past):
                self._read_ms[records.partition] = int(past[-1])
        for partition, n in unread.items():
            if not n or (partition not in self._met_ms and partition not in self._read_ms):
                self._met_ms[partition] = now_ms
        return max([0, *(max(1, now_ms - self._known_ms(partition)) for partition, n in unread.items() if n)]) / 1000

    def _known_ms(self, partition: int) -> int:
        return max(known[partition] for known in (self._met_ms, self._read_ms) if partition in known)


def skipped(overtaken: Mapping[int, int], position: dict[int, int], notify: Callable[..., None]) -> int:
    """Moves the position of partitions to where retention has left something to read. Returns how many are lost."""
    lost = 0
    for partition, first in overtaken.items():
        lost += first - position[partition]
        notify("readings_lost_to_retention", partition=partition, committed=position[partition], beginning=first)
        position[partition] = first
    return lost
