"""State rows come back as they were, and a memory that is not what it is taken for is never loaded."""

import numpy as np
import pytest

from services.codecs import state_rows
from services.codecs.state_rows import StateRowRefused
from services.records import ModelState, Records, StateRows

LAYOUT = "0123456789abcdef" + "00" * 24
OTHER_LAYOUT = "fedcba9876543210" + "11" * 24
MODEL, OTHER = "5f0c1d2e3a4b", "c0ffee000000"


def memory(index, row_bytes=37, name=MODEL, layout=LAYOUT, seed=0):
    rows = np.random.default_rng(seed).integers(0, 256, (len(index), row_bytes)).astype(np.uint8)
    return ModelState(name, layout, np.asarray(index, np.int64), rows)


def states(n=5, partition=3, seed=0, memories=None):
    streams = [b"s%d\xff" % i for i in range(n)]
    stamps = 1_794_698_000_000 + np.arange(n)
    return StateRows(partition, streams, np.arange(n) * 10, stamps, memories or (memory(range(n), seed=seed),))


def as_records(keys, values, partition=3):
    steps = np.arange(len(keys)) + 500
    return Records(partition, steps, steps, keys, values)


def identical(got, want):
    assert got.partition == want.partition
    assert got.streams == want.streams
    for name in ("offsets", "seen_ms"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    assert {one.name for one in got.memories} == {one.name for one in want.memories if len(one.index)}
    for one in got.memories:
        wanted = want.memory(one.name)
        assert one.layout == wanted.layout[:16]
        np.testing.assert_array_equal(one.index, wanted.index)
        np.testing.assert_array_equal(one.rows, wanted.rows)


@pytest.mark.parametrize("n", [1, 5, 3000])
def test_round_trip(n):
    want = states(n)
    keys, values = state_rows.encode(want)
    assert {len(value) for value in values} == {state_rows.HEADER.itemsize + state_rows.ENTRY.itemsize + 37}
    got, tombstones = state_rows.decode(as_records(keys, values), {MODEL: (LAYOUT, 37)})
    identical(got, want)
    assert tombstones == []


def test_each_stream_has_the_memories_it_has():
    want = states(
        7,
        memories=(
            memory(range(7)),
            memory([1, 4, 6], 12, OTHER, OTHER_LAYOUT, seed=1),
            memory([0, 1, 2, 6], 5, "recent", "77" * 8, seed=2),
        ),
    )
    keys, values = state_rows.encode(want)
    got, _ = state_rows.decode(as_records(keys, values), {MODEL: (LAYOUT, 37), OTHER: (OTHER_LAYOUT, 12)})
    identical(got, want)


def test_nothing():
    assert state_rows.encode(states(0)) == ([], [])
    got, tombstones = state_rows.decode(as_records([], []), {MODEL: (LAYOUT, 37)})
    assert (len(got), tombstones) == (0, [])


def test_the_last_record_of_a_stream_wins():
    old, new = states(3, seed=1), states(3, seed=2)
    keys, values = (a + b for a, b in zip(*(state_rows.encode(s) for s in (old, new)), strict=True))
    got, tombstones = state_rows.decode(as_records([*keys, keys[1], b"other"], [*values, None, None]))
    assert got.streams == [new.streams[0], new.streams[2]]
    np.testing.assert_array_equal(got.memory(MODEL).rows, new.memory(MODEL).rows[[0, 2]])
    assert tombstones == [new.streams[1], b"other"]


def test_a_stream_that_came_back_is_no_tombstone():
    want = states(1)
    keys, values = state_rows.encode(want)
    got, tombstones = state_rows.decode(as_records([*keys, *keys], [None, *values]))
    identical(got, want)
    assert tombstones == []


def test_newest_is_compaction():
    records = as_records([b"a", b"b", b"a", b"c", b"b"], [b"1", b"2", b"3", None, None])
    kept = state_rows.newest(records)
    assert list(zip(kept.keys, kept.values, kept.offsets.tolist(), strict=True)) == [
        (b"a", b"3", 502),
        (b"c", None, 503),
        (b"b", None, 504),
    ]


def version_1(want):
    """As it was written before rows held several memories."""
    head = np.zeros(len(want), state_rows.VERSION_1)
    head["mark"], head["version"], head["layout"], head["model"] = b"SR", 1, int(LAYOUT[:16], 16), MODEL.encode()
    head["partition"], head["offset"], head["seen_ms"] = want.partition, want.offsets, want.seen_ms
    return [a.tobytes() + b.tobytes() for a, b in zip(head, want.memory(MODEL).rows, strict=True)]


def test_rows_of_version_1_are_read():
    want, newer = states(4), states(2, seed=3)
    keys, values = state_rows.encode(newer)
    got, _ = state_rows.decode(as_records(want.streams, version_1(want)), {MODEL: (LAYOUT, 37)})
    identical(got, want)
    mixed, _ = state_rows.decode(as_records([*want.streams, *keys], [*version_1(want), *values]))
    np.testing.assert_array_equal(
        mixed.memory(MODEL).rows, np.concatenate([want.memory(MODEL).rows[2:], newer.memory(MODEL).rows])
    )


def refusal(keys, values, wanted=None):
    with pytest.raises(StateRowRefused) as caught:
        state_rows.decode(as_records(keys, values), wanted or {MODEL: (LAYOUT, 37)})
    return str(caught.value)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ((OTHER_LAYOUT, 37), ("layout 0123456789abcdef", "fedcba9876543210")),
        ((LAYOUT, 40), (f"{MODEL} of 37 bytes", "expected 40")),
    ],
)
def test_a_memory_of_something_else_is_refused(expected, words):
    message = refusal(*state_rows.encode(states()), {MODEL: expected})
    for word in (*words, "changelog", "partition 3", "offset 500", "topics.changelog"):
        assert word in message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda value: b"hello", "5 bytes"),
        (lambda value: b"", "0 bytes"),
        (lambda value: b"{}" + value[2:], "starts with 7b7d"),
        (lambda value: value[:2] + b"\x03\x00" + value[4:], "version 3"),
        (lambda value: value[:-1], "86 bytes"),
        (lambda value: value + b"\x00", "88 bytes"),
        (lambda value: value[:30], "30 bytes"),
        (lambda value: value[:4] + b"\x07" + value[5:], "partition 7"),
        (lambda value: value[:24] + b"\x00\x00" + value[26:], "0 memories"),
        (lambda value: value[:24] + b"\xff\xff" + value[26:], "65535 memories"),
    ],
)
def test_a_damaged_row_is_named(damage, words):
    keys, values = state_rows.encode(states())
    values[3] = damage(values[3])
    message = refusal([*keys, b"gone"], [*values, None])
    assert words in message
    assert "offset 503" in message


def test_a_record_without_key_is_refused():
    assert "no key" in refusal([None], [b""])


@pytest.mark.parametrize(
    ("name", "layout"), [("", LAYOUT), ("x" * 13, LAYOUT), ("é", LAYOUT), (MODEL, "00"), (MODEL, "zz" * 8)]
)
def test_names_that_do_not_fit(name, layout):
    with pytest.raises(ValueError, match=r"model id|layout"):
        state_rows.encode(states(2, memories=(memory(range(2), name=name, layout=layout),)))
