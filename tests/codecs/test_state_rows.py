"""State rows come back as they were, and a row that is not this model's is never loaded."""

import numpy as np
import pytest

from services.codecs import state_rows
from services.codecs.state_rows import StateRowRefused
from services.records import Records, StateRows

LAYOUT = "0123456789abcdef" + "00" * 24
MODEL = "5f0c1d2e3a4b"


def states(n=5, row_bytes=37, partition=3, seed=0):
    rows = np.random.default_rng(seed).integers(0, 256, (n, row_bytes)).astype(np.uint8)
    streams = [b"s%d\xff" % i for i in range(n)]
    return StateRows(partition, streams, np.arange(n) * 10, 1_794_698_000_000 + np.arange(n), rows)


def as_records(keys, values, partition=3):
    steps = np.arange(len(keys)) + 500
    return Records(partition, steps, steps, keys, values)


def identical(got, want):
    assert got.partition == want.partition
    assert got.streams == want.streams
    for name in ("offsets", "saved_ms", "rows"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


@pytest.mark.parametrize("n", [1, 5, 3000])
def test_round_trip(n):
    want = states(n)
    keys, values = state_rows.encode(want, MODEL, LAYOUT)
    assert {len(value) for value in values} == {state_rows.HEADER.itemsize + 37}
    got, tombstones = state_rows.decode(as_records(keys, values), LAYOUT, MODEL, row_bytes=37)
    identical(got, want)
    assert tombstones == []


def test_nothing():
    assert state_rows.encode(states(0), MODEL, LAYOUT) == ([], [])
    got, tombstones = state_rows.decode(as_records([], []), LAYOUT, MODEL, 37)
    assert (len(got), tombstones) == (0, [])


def test_the_last_record_of_a_stream_wins():
    old, new = states(3, seed=1), states(3, seed=2)
    keys, values = (a + b for a, b in zip(*(state_rows.encode(s, MODEL, LAYOUT) for s in (old, new)), strict=True))
    got, tombstones = state_rows.decode(as_records([*keys, keys[1], b"other"], [*values, None, None]), LAYOUT, MODEL)
    assert got.streams == [new.streams[0], new.streams[2]]
    np.testing.assert_array_equal(got.rows, new.rows[[0, 2]])
    assert tombstones == [new.streams[1], b"other"]


def test_a_stream_that_came_back_is_no_tombstone():
    want = states(1)
    keys, values = state_rows.encode(want, MODEL, LAYOUT)
    got, tombstones = state_rows.decode(as_records([*keys, *keys], [None, *values]), LAYOUT, MODEL)
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


def refusal(keys, values, **expected):
    with pytest.raises(StateRowRefused) as caught:
        state_rows.decode(as_records(keys, values), **({"layout": LAYOUT, "model": MODEL, "row_bytes": 37} | expected))
    return str(caught.value)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"layout": "fedcba9876543210"}, ("layout 0123456789abcdef", "fedcba9876543210")),
        ({"model": "aaaaaaaaaaaa"}, (f"model {MODEL}", "aaaaaaaaaaaa")),
        ({"row_bytes": 40}, ("81 bytes", "expected 84")),
    ],
)
def test_rows_of_something_else_are_refused(expected, words):
    message = refusal(*state_rows.encode(states(), MODEL, LAYOUT), **expected)
    for word in (*words, "changelog", "partition 3", "offset 500", "topics.changelog"):
        assert word in message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda value: b"hello", "5 bytes"),
        (lambda value: b"", "0 bytes"),
        (lambda value: b"{}" + value[2:], "starts with 7b7d"),
        (lambda value: value[:2] + b"\x02\x00" + value[4:], "version 2"),
        (lambda value: value[:-1], "80 bytes"),
        (lambda value: value[:24] + b"\x07" + value[25:], "partition 7"),
    ],
)
def test_a_damaged_row_is_named(damage, words):
    keys, values = state_rows.encode(states(), MODEL, LAYOUT)
    values[3] = damage(values[3])
    message = refusal([*keys, b"gone"], [*values, None])
    assert words in message
    assert "offset 503" in message


def test_a_record_without_key_is_refused():
    assert "no key" in refusal([None], [b""])


@pytest.mark.parametrize(
    ("model", "layout"), [("", LAYOUT), ("x" * 13, LAYOUT), ("é", LAYOUT), (MODEL, "00"), (MODEL, "zz" * 8)]
)
def test_names_that_do_not_fit(model, layout):
    with pytest.raises(ValueError, match=r"model id|layout"):
        state_rows.encode(states(), model, layout)
