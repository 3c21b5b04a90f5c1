"""The archiver's life: one round, or one every so often until it is stopped; and waiting while the broker is away."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.archive.archiver import Archiver
from services.archive.places import ArchiveStorage, NotWritten
from services.predictor.ports import Retriable

TRIES = 3
"""How often `once` begins anew when the broker does not answer, or retention eats what was to be read next."""

AWAY_S = 2.0


def once(archiver: Archiver, place: ArchiveStorage, stop: threading.Event, notify: Callable[..., None]) -> None:
    """Archives up to the present stable end. Raises what `Archiver.round` does, Retriable after a few tries."""
    place.claim()
    for attempt in range(1, TRIES + 1):
        try:
            return archiver.round(stop.is_set)
        except Retriable as error:
            if attempt == TRIES or stop.is_set():
                raise
            notify("broker_away", error=str(error))
            stop.wait(AWAY_S)


def forever(archiver: Archiver, place: ArchiveStorage, every_s: float, stop: threading.Event,
            notify: Callable[..., None]) -> None:  # fmt: skip
    """A round every `every_s` until `stop` is set; then ends with the file under way. Waits while the broker is away or
    there is no room, and says so. Raises Taken, Damaged, Refused: a person must act.
    """
    place.claim()
    trouble = False
    while not stop.is_set():
        before = archiver.told.records
        try:
            archiver.round(stop.is_set)
        except Retriable as error:
            if not trouble:
                notify("broker_away", error=str(error))
            trouble = True
            stop.wait(AWAY_S)
            continue
        except NotWritten as error:
            notify("not written", error=str(error), again_s=every_s)
            stop.wait(every_s)
            continue
        if trouble:
            notify("broker_back")
            trouble = False
        notify("up to date", records=archiver.told.records - before, lag=archiver.lag)
        stop.wait(every_s)
