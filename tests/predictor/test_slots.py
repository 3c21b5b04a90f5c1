"""Slots: one slot a stream, dirty ones never taken, and the oldest clean ones evicted first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.predictor.slots import NoRoom, Slots


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_a_stream_keeps_its_slot_while_nobody_needs_it() -> None:
    slots = Slots(4)
    first = slots.place(ids(7, 8))
    slots.kept()
    again = slots.place(ids(8, 9))
    assert first.fresh.all()
    assert again.slots[0] == first.slots[1]
    assert again.fresh.tolist() == [False, True]


def test_the_stream_unused_for_longest_gives_way() -> None:
    slots = Slots(3)
    for number in (1, 2, 3):
        slots.place(ids(number))
        slots.kept()
    slots.place(ids(1))
    slots.kept()
    slots.place(ids(4))  # 2 is now the oldest
    slots.kept()
    assert slots.place(ids(1, 3, 4)).fresh.sum() == 0
    assert slots.evicted == 1


def test_dirty_slots_are_never_evicted() -> None:
    slots = Slots(2)
    slots.place(ids(1, 2))
    with pytest.raises(NoRoom, match=r"state\.slots"):
        slots.place(ids(3))
    slots.check_integrity()


def test_a_dropped_epoch_frees_the_slots_it_made_dirty_and_no_others() -> None:
    slots = Slots(4)
    slots.place(ids(1))
    slots.kept()
    slots.place(ids(2))
    slots.dropped()
    assert slots.place(ids(1, 2)).fresh.tolist() == [False, True]


@given(st.lists(st.tuples(st.sets(st.integers(0, 12), min_size=1, max_size=5), st.sampled_from(["kept", "dropped"]))))
def test_integrity_holds_whatever_happens(epochs: list[tuple[set[int], str]]) -> None:
    slots = Slots(5)
    for numbers, outcome in epochs:
        placed = slots.place(ids(*sorted(numbers)))
        assert len(set(placed.slots.tolist())) == len(numbers)
        slots.check_integrity()
        getattr(slots, outcome)()
        slots.check_integrity()
    slots.forget(np.arange(13))
    slots.check_integrity()
    assert slots.used == 0
