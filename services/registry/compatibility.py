"""Whether one model may take another's place in front of the same readers. Imports `rnn.config` only."""

from __future__ import annotations

from typing import Any

from rnn.config import ModelConfig

READS = ("features", "vocabulary")
ANSWERS = ("task", "predicts", "targets", "labels", "horizon", "answer")


def compatible(champion: ModelConfig, other: ModelConfig) -> str | None:
    """None if `other` can take the champion's place, else a sentence that says why not.

    It must read the same features or symbols in the same order, and answer the same thing: task, what it predicts, its
    targets or labels in their order, as many steps, at the same moments. Cell, size, head and band may differ.
    """
    for name in (*READS, *ANSWERS):
        mine, its = getattr(champion, name), getattr(other, name)
        if mine != its:
            does = "read" if name in READS else "answer"
            return (
                f"{name}: the champion has {_some(mine, its)}, the other {_some(its, mine)}; "
                f"a model that takes its place must {does} the same in the same order."
            )
    return None


def _some(value: Any, other: Any) -> str:
    """Of long lists the part where they begin to differ."""
    if not isinstance(value, tuple):
        return repr(value)
    if not value:
        return "none"
    first = next((place for place, pair in enumerate(zip(value, other, strict=False)) if pair[0] != pair[1]),
                 min(len(value), len(other)))  # fmt: skip
    first = min(first, len(value) - 1)
    shown = value[max(0, first - 1) : first + 3]
    before, after = "... " if first > 1 else "", " ..." if first + 3 < len(value) else ""
    return f"{before}{', '.join(map(repr, shown))}{after} ({len(value)})"
