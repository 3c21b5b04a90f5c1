"""Whether there is room for a model on this machine, asked before it is read: else the kernel would say it, to a shard.

Imports rnn and torch when called.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnn.io.memory import free_bytes, size
from services.predictor.ports import Refused
from services.settings import Settings

if TYPE_CHECKING:
    from rnn.io.card import Card
    from rnn.serve.adapt import Adaptation
    from rnn.serve.footprint import Footprint

TURN_S = 60.0
"""So long a shard waits while another one of this machine loads a model, where there is no room for all at once."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that are free, and where; None where that cannot be told."""

    host: int | None
    gpu: int | None = None


def adaptation(settings: Settings) -> Adaptation | None:
    """What engines are to adapt by."""
    from rnn.serve.adapt import Adaptation

    state = settings.state
    return Adaptation(state.adapt, state.adapt_memory) if state.adapt else None


def footprint_of(card: Card, settings: Settings, device: str) -> Footprint:
    """What one shard takes for the card's model. Raises ModelRefused for a card of no network."""
    from rnn.serve.footprint import footprint

    return footprint(card, settings.state.slots, device, adaptation(settings), settings.epoch.max_readings)


def room(device: str) -> Room:
    """Looks. On a GPU what torch holds back in this process is free, too."""
    if not device.startswith("cuda"):
        return Room(free_bytes())
    import torch

    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Room(free_bytes(), free)


def want_of_room(card: Card, need: Footprint, there: Room, slots: int, shards: int = 1) -> str:
    """Why `shards` such engines cannot be; empty: they can."""
    places = (("on this machine or in this container", need.host, there.host), ("on the GPU", need.gpu, there.gpu))
    for where, one, free in places:
        if free is not None and shards * one > free:
            each = f" in each of {shards} shards" if shards > 1 else ""
            table = f", a state table of {size(need.table)} for {slots:,} slots, {size(need.scratch)} to work in"
            return (
                f"model {card.model} needs {size(one)} of memory{each} (weights of {size(need.weights)}, several times "
                f"while they are loaded{table if slots else ''}); {size(free)} are free {where}. "
                "Take a smaller model, lower state.slots, or give more memory"
            )
    return ""


@contextmanager
def taken(card: Card, settings: Settings, device: str) -> Iterator[None]:
    """The model may be loaded inside. Where all shards at once would not find room they take turns, so that each sees
    what is left. Raises Refused with the reason where there is none, ModelRefused for a card of no network.
    """
    need, slots, shards = footprint_of(card, settings, device), settings.state.slots, settings.fleet.shards
    if not want_of_room(card, need, room(device), slots, shards):
        yield
        return
    with _turn():
        if why := want_of_room(card, need, room(device), slots):
            raise Refused(why)
        yield


@contextmanager
def _turn() -> Iterator[None]:
    """Alone among this user's processes on this machine, or after TURN_S, or where no file can be had, beside them."""
    path = Path(tempfile.gettempdir()) / f"streamrnn-{os.getuid()}.loading"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        end_s = time.monotonic() + TURN_S
        while time.monotonic() < end_s:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)  # and with it the lock; so does a SIGKILL


def unforeseen(error: Exception) -> str:
    """An error that a model led to and nobody has foreseen, in a sentence."""
    words = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate memory" in words:
        return f"there is no memory for it ({words or 'none is left'}). Take a smaller model, or lower state.slots"
    return f"{type(error).__name__}: {words}. Save or train it again; if others fail alike, please report it"
