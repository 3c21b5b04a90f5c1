"""What happens to a pipeline's models, as records of a compacted topic: the newest of each kind stays for ever.

A record is a JSON object with `event`, `at` and the event's own fields; its key is the event's name and what it is
about. Written beside serving, at least once; when it cannot be written serving goes on.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from services.predictor.ports import Refused, Retriable
from services.redaction import scrubbed
from services.registry.aliases import plain

TOLD = {
    "champion": (),
    "challenger": (),
    "joining": ("model",),
    "verdict": ("model",),
    "model_refused": ("model",),
    "drift": ("name", "measure"),
    "retraining": (),
    "retrained": (),
    "quality": ("model",),
}
"""Events that are written, and the fields that are a part of their key."""

MOST = 10_000
"""Events that wait while the broker is away; older ones are let go."""
AGAIN_S = 5.0

Notify = Callable[..., None]


class Events:
    """The topic's writer. `told` takes an event from any thread; `flush` writes, from one."""

    def __init__(self, options: Mapping[str, Any], topic: str, notify: Notify) -> None:
        self._options, self._topic, self._notify = options, topic, notify
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MOST)
        self._producer: Any = None
        self._again_s = 0.0
        self._missing = False

    def told(self, event: str, **fields: Any) -> None:
        """Remembers an event, if it is one for the topic."""
        if event in TOLD and not self._missing:
            key = "/".join([event, *(str(fields.get(name, "")) for name in TOLD[event])])
            at_ms = time.time_ns() // 1_000_000
            self._waiting.append((key, {"event": event, "at": at_ms, **fields}))

    def also(self, notify: Notify) -> Notify:
        """`notify` that tells this topic as well."""

        def both(event: str, **fields: Any) -> None:
            notify(event, **fields)
            self.told(event, **fields)

        return both

    def flush(self) -> None:
        """Writes what waits. Never raises for a broker that is away, or a topic that is not there."""
        if not self._waiting or time.monotonic() < self._again_s:
            return
        from services.brokers.kafka_client import ColumnProducer

        some = list(self._waiting)
        try:
            if self._producer is None:
                self._producer = ColumnProducer(self._options)
            keys, values = zip(*((key.encode(), _json(fields)) for key, fields in some), strict=True)
            self._producer.append(self._topic, 0, keys, values, time.time_ns() // 1_000_000)
            self._producer.flush(10.0)
        except Retriable:
            self.close()
            self._again_s = time.monotonic() + AGAIN_S
            return
        except Refused as error:
            self._missing = True
            self._waiting.clear()
            self._notify("events_not_written", topic=self._topic, error=str(error))
            return
        for _ in some:
            self._waiting.popleft()

    def close(self) -> None:
        """Lets go of the producer; the next flush makes a new one."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None


def _json(fields: Mapping[str, Any]) -> bytes:
    shown = {name: scrubbed(value) if isinstance(value, str) else value for name, value in fields.items()}
    return json.dumps(plain(shown), allow_nan=False).encode()
