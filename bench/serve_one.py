"""Our pipeline in one process, without Ray: the very shard that an actor runs, over all partitions.

Called with the settings as JSON. Says `ready` and, after SIGTERM, `stopped` with its numbers.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import Any

from services.fleet.assembly import build_shard, device_of
from services.fleet.model_loader import ModelLoader
from services.fleet.status import ModelAssignment
from services.settings import Settings


def say(event: str, **fields: Any) -> None:
    """One JSON line."""
    print(json.dumps({"event": event, **fields}, default=str), flush=True)


def main() -> None:
    """Serves until SIGTERM."""
    settings = Settings(**json.loads(sys.argv[1]))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    models = ModelLoader(settings, device_of(settings.device))
    shard = build_shard(settings, 0, settings.topics.partitions, ModelAssignment(), models, pause=stop.wait, notify=say)
    try:
        shard.start()
        while not stop.is_set():
            shard.turn()
    finally:
        shard.close()
    stats = shard.stats
    say(
        "stopped",
        readings=stats.readings,
        rejected=sum(stats.rejected.values()),
        live_streams=stats.live_streams,
        restore_s=stats.restore_s,
        epochs=stats.epochs,
        phase_s={phase: round(seen.total, 4) for phase, seen in stats.phase_s.items()},
        flagged=stats.flagged,
    )


if __name__ == "__main__":
    main()
