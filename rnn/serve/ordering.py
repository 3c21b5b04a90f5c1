"""What a reading's time and sequence number say: new, late, or seen before. Imports numpy only.

Streams' clocks: `rnn.nn.clock`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rnn.nn.clock import NEVER_MS
from rnn.serve.waves import Waves

NEW, LATE, MISSING, DUPLICATE, RESET = 1, 2, 4, 8, 16
UNKNOWN, EMPTY, OVERLONG, CUT, ENDED = 32, 64, 128, 256, 512
"""Bits of a result's flags."""

WINDOW = 64  # sequence numbers that a stream remembers


def check(
    clock: NDArray[np.int64], waves: Waves, at_ms: NDArray[np.int64], seq: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Moves the clocks of the readings' streams on, in place, and returns (flags [n], dt_ms [n]: the time since the
    stream's last reading, 0 for a late one, negative for a stream's first).

    clock [slots + 1, 3]; seq [n], negative = none given. A reading is a DUPLICATE if its number is in the stream's
    window and its time is not after the last one; it leaves the clock as it was. A number that was seen, or that lies
    before the window, at a *later* time is a producer that has started anew: the window starts anew with it.
    """
    flags, dt_ms = np.empty(len(at_ms), dtype=np.uint16), np.empty(len(at_ms), dtype=np.int64)
    numbered = bool(seq.max() >= 0)
    last = clock[waves.slots, 0]
    top, bits = (clock[waves.slots, 1], clock[waves.slots, 2]) if numbered else (last[:0], last[:0])
    end = 0
    for active in waves.active:
        begin, end = end, end + active
        reading = slice(begin, end) if isinstance(waves.order, slice) else waves.order[begin:end]
        at, was = at_ms[reading], last[:active]
        dt, new = at - was, was == NEVER_MS
        late = dt <= 0
        flag = new.view(np.uint8) + 2 * late.view(np.uint8)  # NEW or LATE, never both
        dt[late], dt[new] = 0, -1
        dt_ms[reading] = dt
        if numbered:
            twice = _count(top[:active], bits[:active], seq[reading], late)
            flag[twice] = DUPLICATE
        flags[reading] = flag
        np.maximum(was, at, out=was)  # a duplicate is late, so it changes nothing here
    clock[waves.slots, 0] = last
    if numbered:
        clock[waves.slots, 1], clock[waves.slots, 2] = top, bits
    return flags, dt_ms


def _count(
    top: NDArray[np.int64], bits: NDArray[np.int64], seq: NDArray[np.int64], late: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Enters one number a stream into the windows, in place; returns which are duplicates."""
    behind = top - seq
    ahead = (seq >= 0) & (behind < 0)
    inside = (seq >= 0) & (behind >= 0) & (behind < WINDOW)
    place = np.clip(behind, 0, WINDOW - 1)
    seen = inside & ((bits >> place) & 1 == 1)
    twice: NDArray[np.bool_] = seen & late
    anew = ((seq >= 0) & (behind >= WINDOW)) | (seen & ~late) | (ahead & (behind <= -WINDOW))
    moved = bits << np.clip(-behind, 0, WINDOW - 1) | 1
    bits[:] = np.select([anew, ahead, inside], [1, moved, bits | (np.int64(1) << place)], bits)
    top[:] = np.where(anew | ahead, seq, top)
    return twice
