"""Which streams go on in another partition once a topic has more of them. May import numpy and the state store.

Producers put a record where the hash of its key says, modulo the number of partitions. Which hash that is depends on
the client: the one that explains where the streams are is taken.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from services.predictor.state_store import NO_ROW, StateStore

NAMED = 10
"""So many of them are named in the log."""
EXPLAINED = 0.9
"""Share of the streams that a hash must put where they are to be taken for the producers'."""


def murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """The hash of Kafka's own producers, of each key [n], as 31 bits; keys of one length at a time."""
    found = np.zeros(len(keys), np.uint32)
    rows: dict[int, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[len(key)].append(row)
    for length, mine in rows.items():
        data = np.frombuffer(b"".join([keys[row] for row in mine]), np.uint8).reshape(len(mine), length)
        found[mine] = _murmur2(data)
    return found & np.uint32(0x7FFFFFFF)


def _murmur2(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Of keys of one length, [n, bytes]. Numbers of 32 bits overflow as the algorithm wants."""
    n, length = data.shape
    by, whole = np.uint32(0x5BD1E995), length // 4
    hashed = np.full(n, 0x9747B28C ^ length, np.uint32)
    words = np.ascontiguousarray(data[:, : 4 * whole]).view("<u4").reshape(n, whole)
    for word in words.T:
        mixed = word * by
        hashed = hashed * by ^ (mixed ^ mixed >> np.uint32(24)) * by
    if length % 4:
        for place in range(length % 4):
            hashed ^= data[:, 4 * whole + place].astype(np.uint32) << np.uint32(8 * place)
        hashed *= by
    hashed = (hashed ^ hashed >> np.uint32(13)) * by
    return hashed ^ hashed >> np.uint32(15)


def crc32(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """The hash of librdkafka's producers, of each key [n]."""
    return np.array([zlib.crc32(key) for key in keys], np.uint32)


def moved(keys: Sequence[bytes], at: NDArray[np.int32], before: int, now: int) -> NDArray[np.int64]:
    """Rows of the streams [n], found in partitions `at` [n], whose keys lead elsewhere since `before` partitions have
    become `now`. None where no hash explains where they are: then producers choose partitions in a way of their own.
    """
    hashes = [hashed(keys) for hashed in (murmur2, crc32)]
    explained = [int(np.count_nonzero(one % np.uint32(before) == at)) for one in hashes]
    best = int(np.argmax(explained))
    if explained[best] < EXPLAINED * len(keys):
        return np.zeros(0, np.int64)
    hashed = hashes[best]
    return np.flatnonzero((hashed % np.uint32(before) == at) & (hashed % np.uint32(now) != at))


def tell_moved(store: StateStore, before: int, now: int, notify: Callable[..., None]) -> None:
    """Counts and names the streams of a store that go on in another partition, where there are any."""
    live = np.flatnonzero(store.offsets != NO_ROW)
    keys = store.names(live)
    if rows := moved(keys, store.partitions[live], before, now).tolist():
        named = [keys[row].decode("utf-8", "backslashreplace") for row in rows[:NAMED]]
        notify("streams_moved", streams=len(rows), named=named, before=before, partitions=now)
