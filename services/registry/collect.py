"""Garbage collection in three steps, so that no alias ever names what is going away.

1. A change of aliases claims the models: `leaving`. It is compared and swapped like any other, so whoever named one of
   them meanwhile was quicker and it stays; and from then on `move` refuses to name them and `add` to bring them back.
2. Their files are removed, the card first.
3. A second change lets go of the claim. A collector that dies in between leaves it to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from rnn.io.card import ModelRefused
from services.registry.aliases import Aliases, Change, Changes
from services.registry.model_store import ModelStore
from services.registry.problems import Conflict, ModelUnknown

CLAIM_S = 600.0
"""Another collector's claim is left alone for so long; then whoever made it is taken for dead."""


def garbage(
    shelf: ModelStore, aliases: Aliases, keep: Collection[str], older_than_s: float, now_ms: int
) -> dict[str, int]:
    """Models, whole or left half by a crash, that nobody names and that came longer ago than that; when each came."""
    wanted = aliases.named() | set(keep)
    for model in sorted(aliases.named()):
        try:
            wanted.add(shelf.card(model).parent or "")
        except (ModelUnknown, ModelRefused):
            continue
    found = {}
    for model in sorted(shelf.traces().keys() - wanted):
        at_ms = shelf.added(model).at_ms or _created_ms(shelf, model)
        if now_ms - at_ms >= 1000 * older_than_s:
            found[model] = at_ms
    return found


def collect(
    shelf: ModelStore,
    changes: Changes,
    keep: Collection[str],
    older_than_s: float,
    by: str,
    clock_ms: Callable[[], int],
) -> list[str]:
    """Removes the garbage; the ids of what is gone. Raises Conflict while another one collects."""
    while True:
        latest = changes.latest()
        seen = latest.aliases if latest else Aliases()
        others = set(seen.leaving)
        if others and latest and clock_ms() - _claimed_ms(changes, latest) < 1000 * CLAIM_S:
            raise Conflict(
                f"{latest.by or 'Somebody'} is removing {', '.join(sorted(others))} at this moment. Try again later: "
                f"{CLAIM_S / 60:g} minutes after it began another one may take its work over."
            )
        came = garbage(shelf, seen, keep, older_than_s, clock_ms())
        going = sorted(others | came.keys())
        if not going:
            return []
        reason = f"nobody names them, and they came more than {older_than_s:g} s ago"
        claim = replace(seen, version=seen.version + 1, leaving=tuple(going))
        if changes.append(Change(clock_ms(), by, reason, "collecting", claim, {"models": going})):
            break
    begun_ms = clock_ms()
    gone = []
    for model in going:
        if clock_ms() - begun_ms > 1000 * CLAIM_S / 2:  # another one may soon take over; never remove beside it
            break
        if model not in others and shelf.added(model).at_ms > came[model]:
            continue  # was added again between the look and the claim
        shelf.remove(model)
        gone.append(model)
    let_go(changes, going, by, clock_ms)
    return gone


def let_go(changes: Changes, models: Collection[str], by: str, clock_ms: Callable[[], int]) -> None:
    """Ends a claim, whatever the aliases have become meanwhile."""
    while (latest := changes.latest()) is not None:
        left = tuple(model for model in latest.aliases.leaving if model not in models)
        state = replace(latest.aliases, version=latest.version + 1, leaving=left)
        if left == latest.aliases.leaving or changes.append(
            Change(clock_ms(), by, "their files are removed", "collected", state, {"models": sorted(models)})
        ):
            return


def _claimed_ms(changes: Changes, latest: Change) -> int:
    """When the claim that still holds was made."""
    at_ms = latest.at_ms
    for version in range(latest.version - 1, 0, -1):
        change = changes.change(version)
        if change.aliases.leaving != latest.aliases.leaving:
            return at_ms
        at_ms = change.at_ms
    return at_ms


def _created_ms(shelf: ModelStore, model: str) -> int:
    try:
        return shelf.card(model).created_ms
    except (ModelUnknown, ModelRefused):
        return 0
