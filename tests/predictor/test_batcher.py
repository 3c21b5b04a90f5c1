"""Batches: no more streams than slots, no holes in the offsets, no record torn apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.predictor.batcher import batches, part_of
from services.predictor.state_store import StateStore
from services.records import Readings, Reason, Records, Rejected

# One record of a poll: None is a rejected one, a list names the streams of its rows.
polls = st.lists(st.one_of(st.none(), st.lists(st.integers(0, 9), min_size=1, max_size=4)), min_size=1, max_size=30)


def part(partition: int, poll: list, store: StateStore):
    n = len(poll)
    records = Records(partition, np.arange(10, 10 + n), np.zeros(n, np.int64), [b"k"] * n, [b"v"] * n)
    rows = [(10 + i, row, b"s%d" % name) for i, names in enumerate(poll) if names for row, name in enumerate(names)]
    m = len(rows)
    readings = Readings(
        partition,
        np.array([offset for offset, _, _ in rows], np.int64),
        np.array([row for _, row, _ in rows], np.int32),
        [name for _, _, name in rows],
        np.zeros(m, np.int64),
        np.zeros((m, 1), np.float32),
        np.full(m, -1, np.int64),
        np.zeros(m, np.int64),
        np.zeros(m, np.uint8),
    )
    bad = [i for i, names in enumerate(poll) if names is None]
    refused = Records(partition, np.array([10 + i for i in bad], np.int64), np.zeros(len(bad), np.int64),
                      [b"k"] * len(bad), [b"%d" % i for i in bad])  # fmt: skip
    return part_of(records, readings, Rejected(refused, [Reason.NOT_JSON] * len(bad), [""] * len(bad)), 10, store)


@given(st.lists(polls, min_size=1, max_size=3), st.integers(4, 12))
def test_a_poll_is_cut_without_loss(partitions: list[list], slots: int) -> None:
    store = StateStore()
    parts = [part(partition, poll, store) for partition, poll in enumerate(partitions)]
    cut = list(batches(parts, slots))
    position = dict.fromkeys(range(len(parts)), 10)
    seen: dict[int, list] = {partition: [] for partition in position}
    rejected: dict[int, list] = {partition: [] for partition in position}
    for batch in cut:
        assert len(np.unique(batch.numbers())) <= slots
        for piece in batch.parts:
            assert piece.started == position[piece.partition]
            assert piece.next_offset > piece.started
            inside = (piece.readings.offsets >= piece.started) & (piece.readings.offsets < piece.next_offset)
            assert inside.all()
            position[piece.partition] = piece.next_offset
            seen[piece.partition] += list(
                zip(piece.readings.offsets, piece.readings.rows, piece.readings.streams, strict=True)
            )
            rejected[piece.partition] += piece.rejected.records.values
            assert store.names(piece.numbers) == piece.readings.streams
    for whole in parts:
        everything = list(zip(whole.readings.offsets, whole.readings.rows, whole.readings.streams, strict=True))
        assert seen[whole.partition] == everything
        assert rejected[whole.partition] == whole.rejected.records.values
        assert position[whole.partition] == whole.next_offset


def test_a_poll_that_fits_is_one_batch() -> None:
    store = StateStore()
    parts = [part(partition, [[1, 2], None, [3]], store) for partition in range(2)]
    assert len(list(batches(parts, 6))) == 1
