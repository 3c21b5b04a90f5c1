"""No error of one record leaves the decoder, and no fault of anything else becomes a record's.

The errors that nobody foresaw are planted: a decoder of these tests raises for values that hold `bug`.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.driver import StreamDriver
from services.records import Reason, Records

FEATURES = ("power", "voltage")


FRAME = bytes.fromhex("ffffffff28000000100000000c00180000000400000008000c00000001000000ffffffffffffff7f") + bytes(24)
"""A message that claims a body of 2^63 - 1 bytes."""


def test_a_frame_that_claims_more_than_there_can_be_is_one_dead_letter():
    driver = StreamDriver(Network(ModelConfig(("flow",), hidden=4)))
    driver.send_record(b"a", FRAME)
    driver.send("b", 1_700_000_000_000, [1.0])
    driver.run()
    assert len(driver.predictions("b")) == 1
    assert [letter.reason for letter in driver.dead_letters()] == [Reason.BAD_ARROW]


@given(st.binary(max_size=400), st.integers(0, 60), st.binary(min_size=1, max_size=16))
def test_no_bytes_keep_a_record_from_being_weighed(raw, at, over):
    decoder = ReadingDecoder(Schema(FEATURES), 1000)
    for value in (b"\xff" + raw, FRAME[:at] + over + FRAME[at + len(over) :]):
        records = Records(0, np.zeros(1, np.int64), np.zeros(1, np.int64), [b"a"], [value])
        assert 1 <= decoder.weigh(records)[0] <= 1001


class Buggy(ReadingDecoder):
    """Raises `error` where a poll holds one of `words`."""

    def __init__(self, *words: bytes, error: type[Exception] = IndexError) -> None:
        super().__init__(Schema(FEATURES), max_rows=100)
        self._words, self._error, self.attempts = words, error, 0

    def _decode(self, records):
        self.attempts += 1
        for value in records.values:
            if any(word in (value or b"") for word in self._words):
                raise self._error(f"planted: {value!r}")
        return super()._decode(records)


def reading(n, rest=""):
    return json.dumps({"at": n, "x": [n, n]}).encode() + rest.encode()


def same(got, want):
    for name in ("offsets", "rows", "at_ms", "x", "seq", "arrived_ms", "end"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    assert got.streams == want.streams


@pytest.mark.parametrize("bad", [[0], [7], [99], [0, 1, 2], [3, 50, 98], list(range(0, 100, 2)), list(range(100))])
def test_the_records_of_a_bug_are_dead_letters_and_no_others_are(polled, bad):
    values = [reading(n, " bug" if n in bad else "") for n in range(100)]
    values[13:14] = [values[13]] if 13 in bad else [b"refused"]
    headers = {row: [("h", b"%d" % row)] for row in range(100)}
    readings, rejected = Buggy(b"bug").decode(polled(values, headers=headers))
    want, others = ReadingDecoder(Schema(FEATURES)).decode(polled(values))
    same(readings, want)
    assert rejected.records.offsets.tolist() == others.records.offsets.tolist()
    assert rejected.records.values == [values[int(offset - 100) // 2] for offset in rejected.records.offsets]
    assert [rejected.records.headers[row][0][1] for row in range(len(rejected))] == [
        b"%d" % ((offset - 100) // 2) for offset in rejected.records.offsets
    ]
    assert rejected.reasons == [
        Reason.INTERNAL if (offset - 100) // 2 in bad else Reason.NOT_JSON
        for offset in rejected.records.offsets.tolist()
    ]
    (fault,) = rejected.faults  # one of its kind, however many records had it
    assert fault.kind.startswith("IndexError at test_last_defence.py:")
    assert "raise self._error" in fault.stack
    assert len(fault.stack) <= 4000
    detail = rejected.details[rejected.reasons.index(Reason.INTERNAL)]
    assert fault.kind in detail
    assert "planted" not in detail  # what an error says may be anything


def test_one_record_is_found_in_few_attempts(polled):
    decoder = Buggy(b"bug")
    decoder.decode(polled([reading(n, " bug" if n == 700 else "") for n in range(1000)]))
    assert decoder.attempts < 30


def test_after_each_attempt_it_says_that_it_gets_on(polled):
    """Thousands of records of a bug take longer than a supervisor waits for somebody who says nothing."""
    decoder, told = Buggy(b"bug"), []
    decoder.progress = lambda: told.append(decoder.attempts)
    decoder.decode(polled([reading(n, " bug") for n in range(64)]))
    assert told == list(range(2, 2 + 2 * 63))


def test_a_packed_record_is_found_too(polled, arrow, vectors):
    good = arrow({"at": [1, 2], "x": vectors(np.ones((2, 2), np.float32))})
    bad = arrow({"stream": [b"bug", b"b"], "at": [1, 2], "x": vectors(np.ones((2, 2), np.float32))})
    readings, rejected = Buggy(b"bug").decode(polled([good, bad, reading(1), good]))
    assert readings.offsets.tolist() == [100, 100, 104, 106, 106]
    assert (rejected.reasons, rejected.records.values) == ([Reason.INTERNAL], [bad])


@pytest.mark.parametrize("error", [MemoryError, type("OutOfMemoryError", (RuntimeError,), {})])
def test_a_machine_without_memory_is_no_fault_of_a_record(polled, error):
    with pytest.raises(error):
        Buggy(b"bug", error=error).decode(polled([reading(1), reading(2, " bug")]))


@pytest.mark.parametrize("n", [1, 2, 50])
def test_where_nothing_can_be_decoded_nothing_is_a_dead_letter(polled, n):
    with pytest.raises(IndexError):
        Buggy(b"at").decode(polled([reading(i) for i in range(n)]))


def test_where_no_packed_record_can_be_decoded_none_is_a_dead_letter(polled, arrow, vectors):
    packed = arrow({"at": [1, 2], "x": vectors(np.ones((2, 2), np.float32))})
    with pytest.raises(IndexError):
        Buggy(b"\xff\xff\xff\xff").decode(polled([reading(1), packed, reading(2)]))


keys = st.one_of(st.none(), st.binary(max_size=4), st.binary(min_size=257, max_size=300))
pieces = st.sampled_from(
    [b'"at":', b'"x":', b'"seq":', b'"end":', b'"v":', b"1", b"-0.0", b"1e999", b"null", b"true", b'"\\ud800"',
     b"[1,2]", b'"2026-11-14T22:13:20', b"\\ud83d", b"\\u0000", b'Z"', b'{"power":1}', b"{", b"}", b"[", b"]", b",",
     b'"', b"\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"9" * 30, b"9" * 400, b"NaN", b"-Infinity"]
)  # fmt: skip
hostile = st.one_of(st.none(), st.binary(max_size=64), st.lists(pieces, max_size=12).map(b"".join))


@pytest.mark.parametrize("schema", [Schema(FEATURES), Schema(("word",), ("a", "b")), Schema(('a"\\', "at"))], ids=str)
def test_nothing_but_records_comes_out(schema):
    decoder = ReadingDecoder(schema, max_rows=10)

    @given(st.lists(st.tuples(keys, hostile), max_size=6))
    @settings(max_examples=300, deadline=None)
    def decoded(polled):
        steps = np.arange(len(polled), dtype=np.int64)
        records = Records(0, steps, steps, [key for key, _ in polled], [value for _, value in polled])
        readings, rejected = decoder.decode(records)
        fate = sorted([*set(readings.offsets.tolist()), *rejected.records.offsets.tolist()])
        assert fate == steps.tolist()
        assert Reason.INTERNAL not in rejected.reasons  # nothing of this is unforeseen

    decoded()
