"""State rows that can be read and yet cannot be of this pipeline: of another partition, layout or model, or of readings
that have not been. A few are set aside, each as its stream's trouble; many are a person's mistake, and refused.
Imports ports, topic ids, the state store and `aside`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from services.predictor.aside import Aside
from services.predictor.ports import Refused
from services.predictor.state_store import NO_ROW, StateStore
from services.predictor.topic_ids import START_OVER
from services.records import RECENT

MOST = 10
"""Strays that a shard sets aside, where it has more rows of its own; more are a mistake of whoever pointed it here."""
ONE_IN = 100
"""So many rows of its own excuse one more: beside very many, a handful is no mistake of that kind."""


def check_foreign(store: StateStore, aside: Aside, foreign: Mapping[int, str]) -> None:
    """Sets the streams aside whose rows are of another partition or layout: by number, what was found. Raises Refused
    with the first such sentence where they are many.
    """
    if foreign:
        if not _are_few(len(foreign), store.live):
            raise Refused(next(iter(foreign.values())))
        for number, sentence in foreign.items():
            aside.stray(number, sentence)


def check_memories(store: StateStore, aside: Aside, model: str, remembers: bool) -> None:
    """Sets streams aside that `model` has no memory of, and no latest readings to give it one. Raises Refused where
    they are many.
    """
    live = store.offsets != NO_ROW
    lost = live & ~store.held(model).has
    if remembers:
        lost &= ~store.held(RECENT).has
    if not lost.any():
        return
    number = int(np.argmax(lost))
    others = sorted(name for name in store.named() if name not in (model, RECENT))
    sentence = (
        f"the changelog holds states of {int(lost.sum())} streams that model {model} has not made "
        f"(partition {int(store.partitions[number])}, stream {store.names(np.array([number]))[0]!r}; made by model "
        f"{', '.join(others) or 'unknown'}), and none of their latest readings to bring them over with. Serve the "
        "model that made them; set `registry` and change models there, which keeps the streams' memory; or start "
        f"over with `{START_OVER}`."
    )
    _set_aside(store, aside, np.flatnonzero(lost), sentence)


def check_ahead(store: StateStore, aside: Aside, partition: int, end: int) -> None:
    """Sets streams of the partition aside whose rows hold readings at or behind offset `end`, which have not been.
    Raises Refused where they are many.
    """
    ahead = np.flatnonzero((store.partitions == partition) & (store.offsets >= end))
    if len(ahead):
        sentence = (
            f"partition {partition}: the changelog holds states up to offset {int(store.offsets[ahead].max())}, but "
            f"there are no readings from offset {end} on. The readings were lost or deleted, or topics.changelog "
            f"belongs to another pipeline. Put either right, or start over with `{START_OVER}`."
        )
        _set_aside(store, aside, ahead, sentence)


def _set_aside(store: StateStore, aside: Aside, numbers: NDArray[np.int64], sentence: str) -> None:
    if not _are_few(len(numbers), store.live - len(numbers)):
        raise Refused(sentence)
    for number in numbers.tolist():
        aside.stray(number, sentence)


def _are_few(strays: int, own: int) -> bool:
    return strays <= min(max(MOST, own // ONE_IN), own - 1)
