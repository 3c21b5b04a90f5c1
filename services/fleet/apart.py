"""Why a fleet is not ready: what is starting, and what is set aside while the rest is served. Imports nothing heavy.

A partition is set aside where its next records cannot be read, a shard where going on would break a promise. Nothing
of either is skipped: they are tried again, and whoever looks is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from services.fleet.shard_handle import ShardHandle
from services.predictor.ports import Refused


def set_aside(member: ShardHandle) -> list[str]:
    """A sentence for the shard, or for each of its partitions, that is set aside."""
    if member.refused:
        return [f"shard {member.shard} is set aside: {member.refused}"]
    if member.status is None:
        return []
    return [f"partition {p} is set aside: {why}" for p, why in sorted(member.status.stats.unreadable.items())]


def unready(members: Iterable[ShardHandle], patience_s: float) -> list[str]:
    """Why the fleet is not ready, a sentence each. A shard may be without progress for `patience_s`."""
    why = []
    now_s = time.monotonic()
    for member in members:
        why += set_aside(member)
        if not member.refused:
            why += member.unready(now_s, patience_s)
    return why


def check_left(members: Iterable[ShardHandle]) -> None:
    """Raises Refused, with the reasons, when nothing is served any more and nothing may be soon."""
    reasons: dict[str, None] = {}
    for member in members:
        stats = None if member.status is None else member.status.stats
        if member.refused:
            reasons[member.refused] = None
        elif stats is None or not stats.lag or len(stats.unreadable) < len(stats.lag):
            return
        else:
            reasons |= dict.fromkeys(stats.unreadable.values())
    shown = list(reasons)[:3]
    if shown:
        raise Refused("; ".join([*shown, *([f"and {len(reasons) - 3} more"] if len(reasons) > 3 else [])]))
