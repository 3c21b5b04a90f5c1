"""Transactions of others that hide readings: a program that died in the middle of one, or that hangs. What lies behind
shows as a lag and never comes. Looked for by the server, never by a shard.

May import brokers when it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from typing import Any

from services.predictor.ports import Refused, Retriable

HELD_S = 60.0
"""Between two looks. A transaction that is the first open one of its partition at both is told."""


class HeldReadings:
    """Over the topic of the readings. Says once that a partition is held, and once that it is no more."""

    def __init__(self, kafka: Mapping[str, Any], topic: str, notify: Callable[..., None]) -> None:
        self._kafka, self._topic, self._notify = kafka, topic, notify
        self._due_s = 0.0  # monotonic
        self._since: dict[int, int] = {}  # partition -> where the first open transaction began, at the last look
        self._told: dict[int, int] = {}  # the same, of those that were told

    def look(self, behind: Set[int]) -> None:
        """One look, if one is due, at the partitions of which something is not read, and at those that were told."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + HELD_S
        if not behind and not self._told:
            self._since = {}
            return
        from services.brokers.kafka_stable import holders

        with suppress(Retriable, Refused):
            found = holders(self._kafka, self._topic, sorted({*behind, *self._told}))
            since = {partition: one.since for partition, one in found.items()}
            for partition, offset in since.items():
                if self._since.get(partition) == offset and self._told.get(partition) != offset:
                    self._told[partition] = offset
                    self._notify("readings_held_open", partition=partition, reason=found[partition].sentence)
            for partition in [one for one, offset in self._told.items() if since.get(one) != offset]:
                del self._told[partition]
                self._notify("readings_released", partition=partition)
            self._since = since
