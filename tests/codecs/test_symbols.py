"""Readings that are symbols, and ends of sequences: as JSON and packed, alone and among others."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.codecs.contract import ReadingV1, SymbolReadingV1
from services.codecs.readings import ReadingDecoder
from services.codecs.readings_contract import JsonContract
from services.codecs.refusal import Refusal
from services.codecs.schema import Schema
from services.records import NO_SEQ, Reason, Records, SequenceEnd

WORDS = ("cat", "chased", "mouse", "é🌡", "x" * 100)
SYMBOLS = Schema(("symbol",), WORDS)
NUMBERS = Schema(("flow", "level"))


@pytest.fixture(scope="module")
def decoder():
    return ReadingDecoder(SYMBOLS, max_rows=100)


@pytest.fixture(scope="module")
def real():
    return ReadingDecoder(NUMBERS, max_rows=100)


def obj(x=None, **rest):
    return json.dumps({"at": 1, **({} if x is None else {"x": x}), **rest}).encode()


# ---- symbols as JSON ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "number"),
    [
        ('"cat"', 3),
        ('"mouse"', 5),
        ('["chased"]', 4),
        ('{"symbol":"chased"}', 4),
        ('"\\u0063at"', 3),
        ('"\\u00e9\\ud83c\\udf21"', 6),
        (f'"{"x" * 100}"', 7),
        ("null", math.nan),
        ("[null]", math.nan),
        ('{"symbol":null}', math.nan),
        ("{}", math.nan),
        ('"dog"', 0),
        ('"Cat"', 0),
        ('" cat"', 0),
        (f'"{"y" * 256}"', 0),
        ('"<unknown>"', 0),
        ('"<begin>"', 0),
        ('["<end>"]', 0),
        ('{"symbol":"cat","symbol":"dog"}', 0),
    ],
)
def test_what_a_symbol_becomes(decoder, polled, x, number):
    readings, rejected = decoder.decode(polled([b'{"at":1,"x":%s}' % x.encode()]))
    assert rejected.details == []
    assert readings.x.dtype == np.float32
    np.testing.assert_array_equal(readings.x, [[number]])
    assert readings.end.tolist() == [SequenceEnd.NONE]


REFUSED = [
    (obj(""), Reason.BAD_SYMBOL, "write null"),
    (obj([""]), Reason.BAD_SYMBOL, "write null"),
    (obj({"symbol": ""}), Reason.BAD_SYMBOL, "write null"),
    (obj("y" * 257), Reason.BAD_SYMBOL, "at most 256; send one word"),
    (obj("é" * 129), Reason.BAD_SYMBOL, "has 258 bytes"),
    (b'{"at":1,"x":"\\ud800"}', Reason.BAD_SYMBOL, "Unicode"),
    (obj(1), Reason.WRONG_SCHEMA, 'as in "x": "word"'),
    (obj(True), Reason.WRONG_SCHEMA, "a boolean"),
    (obj([1]), Reason.WRONG_SCHEMA, "must be a string or null"),
    (obj({"symbol": 3}), Reason.WRONG_SCHEMA, "must be a string or null"),
    (obj([["cat"]]), Reason.WRONG_SCHEMA, "an array"),
    (obj(["cat", "mouse"]), Reason.WRONG_LENGTH, "2 values"),
    (obj([]), Reason.WRONG_LENGTH, "0 values"),
    (obj({"symbl": "cat"}), Reason.UNKNOWN_FEATURE, "'symbol'"),
    (b'{"at":1}', Reason.WRONG_SCHEMA, "end"),
]


@pytest.mark.parametrize(("value", "reason", "says"), REFUSED, ids=lambda part: repr(part)[:40])
def test_what_is_no_symbol(decoder, polled, value, reason, says):
    _, rejected = decoder.decode(polled([value]))
    assert rejected.reasons == [reason]
    assert says in rejected.details[0]
    assert rejected.details[0].isprintable()
    assert len(rejected.details[0]) < 400


def test_bad_symbols_leave_their_neighbours_alone(decoder, polled):
    values = [part for value, _, _ in REFUSED for part in (obj("cat"), value, obj("dog", end=True))]
    readings, rejected = decoder.decode(polled(values))
    assert readings.x[:, 0].tolist() == [3, 0] * len(REFUSED)
    assert readings.end.tolist() == [0, 1] * len(REFUSED)
    assert rejected.reasons == [reason for _, reason, _ in REFUSED]


def test_a_model_of_numbers_takes_no_symbols(real, polled):
    _, rejected = real.decode(polled([obj("cat"), obj(["cat", 1]), b'{"at":1,"x":null}']))
    assert rejected.reasons == [Reason.WRONG_SCHEMA] * 3


def test_a_vocabulary_has_one_feature():
    with pytest.raises(ValueError, match="one value"):
        Schema(("a", "b"), ("cat",))


# ---- ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "end", "x"),
    [
        ({"x": [1, 2]}, SequenceEnd.NONE, [1, 2]),
        ({"x": [1, 2], "end": False}, SequenceEnd.NONE, [1, 2]),
        ({"x": [1, 2], "end": None}, SequenceEnd.NONE, [1, 2]),
        ({"x": [1, 2], "end": True}, SequenceEnd.LAST, [1, 2]),
        ({"x": {"level": 2}, "end": True}, SequenceEnd.LAST, [math.nan, 2]),
        ({"x": {}, "end": True}, SequenceEnd.LAST, [math.nan, math.nan]),
        ({"end": True}, SequenceEnd.END_ONLY, [math.nan, math.nan]),
        ({"end": True, "seq": 4.0}, SequenceEnd.END_ONLY, [math.nan, math.nan]),
        ({"end": True, "seq": 4}, SequenceEnd.END_ONLY, [math.nan, math.nan]),
    ],
)
def test_ends(real, polled, rest, end, x):
    value = json.dumps({"at": 1, **rest}).encode()
    readings, rejected = real.decode(polled([value, obj([5, 6])]))
    assert rejected.details == []
    assert readings.end.tolist() == [end, SequenceEnd.NONE]
    np.testing.assert_array_equal(readings.x, [x, [5, 6]])
    assert readings.seq.tolist() == [int(rest.get("seq", NO_SEQ)), NO_SEQ]


def test_a_bare_end_of_symbols_and_a_missing_last_symbol_differ(decoder, polled):
    readings, _ = decoder.decode(polled([obj(end=True), b'{"at":1,"x":null,"end":true}', obj("cat", end=True)]))
    assert readings.end.tolist() == [SequenceEnd.END_ONLY, SequenceEnd.LAST, SequenceEnd.LAST]
    np.testing.assert_array_equal(readings.x, [[math.nan], [math.nan], [3]])


@pytest.mark.parametrize("end", [0, 1, "true", [], {}])
def test_an_end_is_true_or_false(real, polled, end):
    _, rejected = real.decode(polled([obj([1, 2], end=end), obj(end=end)]))
    assert rejected.reasons == [Reason.WRONG_SCHEMA] * 2
    assert "true" in rejected.details[0]


def test_without_x_it_must_end(real, polled):
    _, rejected = real.decode(polled([b'{"at":1}', obj(end=False), b'{"at":1,"x":null,"end":true}', b'{"end":true}']))
    assert rejected.reasons == [Reason.WRONG_SCHEMA] * 4
    assert '"end": true' in rejected.details[0]


def test_keyless_ends_are_refused_like_other_readings(real, polled):
    readings, rejected = real.decode(polled([obj(end=True), obj([1, 2]), obj(end=True)], [b"a", None, b"b"]))
    assert readings.end.tolist() == [2, 2]
    assert rejected.reasons == [Reason.MISSING_KEY]


# ---- packed ------------------------------------------------------------------------------------------------------

TIMES = pa.array([1, 2, 3, 4], pa.timestamp("ms"))
SPOKEN = ["cat", None, "dog", "é🌡"]


@pytest.mark.parametrize("name", ["x", "symbol"])
@pytest.mark.parametrize("kind", [pa.utf8(), pa.large_utf8()])
def test_packed_symbols(decoder, polled, arrow, name, kind):
    columns = {"at": TIMES, name: pa.array(SPOKEN, kind), "end": pa.array([False, None, True, True])}
    readings, rejected = decoder.decode(polled([arrow(columns, rows=3)]))
    assert rejected.details == []
    np.testing.assert_array_equal(readings.x, [[3], [math.nan], [0], [6]])
    assert readings.end.tolist() == [0, 0, 1, 1]


def test_packed_ends_may_be_bare(real, polled, arrow, vectors):
    x = np.array([[1, 2], [np.nan, np.nan], [np.nan, np.nan], [np.nan, 4]], np.float32)
    columns = {"at": TIMES, "x": vectors(x), "end": pa.array([1, 2, 1, None], pa.uint8())}
    readings, rejected = real.decode(polled([obj(end=True), arrow(columns), obj([1, 2], end=True)]))
    assert rejected.details == []
    assert readings.end.tolist() == [2, 1, 2, 1, 0, 1]
    assert readings.rows.tolist() == [-1, 0, 1, 2, 3, -1]


@pytest.mark.parametrize(
    ("column", "reason", "says"),
    [
        ({"x": pa.array(["cat", "", "a", "b"])}, Reason.BAD_SYMBOL, "Row 1"),
        ({"x": pa.array(["cat", "é" * 129, "a", "b"])}, Reason.BAD_SYMBOL, "258 bytes"),
        ({"x": pa.array([b"cat"] * 4, pa.binary())}, Reason.WRONG_SCHEMA, "utf8"),
        ({"x": pa.array([1.0] * 4)}, Reason.WRONG_SCHEMA, "utf8"),
        ({"symbol": pa.array([1] * 4)}, Reason.WRONG_SCHEMA, "utf8"),
        ({"x": pa.array(SPOKEN), "symbol": pa.array(SPOKEN)}, Reason.WRONG_SCHEMA, "'symbol'"),
        ({"symbl": pa.array(SPOKEN)}, Reason.UNKNOWN_FEATURE, "'symbol'"),
        ({}, Reason.WRONG_SCHEMA, "neither"),
        ({"x": pa.array(SPOKEN), "end": pa.array([0, 3, 0, 0], pa.uint8())}, Reason.WRONG_SCHEMA, "end is 3"),
        ({"x": pa.array(SPOKEN), "end": pa.array([2, 0, 0, 0], pa.uint8())}, Reason.WRONG_SCHEMA, "bare"),
        ({"x": pa.array(SPOKEN), "end": pa.array([2, 0, 0, 0])}, Reason.WRONG_SCHEMA, "'end'"),
    ],
)
def test_packed_symbols_that_are_refused(decoder, polled, arrow, column, reason, says):
    _, rejected = decoder.decode(polled([arrow({"at": TIMES, **column})]))
    assert rejected.reasons == [reason]
    assert says in rejected.details[0]


def test_a_packed_record_without_rows(decoder, polled, arrow):
    value = arrow({"at": pa.array([], pa.int64()), "symbol": pa.array([], pa.utf8()), "end": pa.array([], pa.bool_())})
    readings, rejected = decoder.decode(polled([value]))
    assert (len(readings), len(rejected)) == (0, 0)


# ---- the paths agree ---------------------------------------------------------------------------------------------

symbols = st.one_of(
    st.sampled_from([*WORDS, "", "<end>", "y" * 64, "y" * 65, "y" * 256, "y" * 257, "é" * 32, "é" * 33, "é" * 128]),
    st.text(alphabet=st.characters(), max_size=70),
    st.none(),
)
odd = st.one_of(symbols, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
values_of = st.one_of(
    symbols,
    st.lists(odd, max_size=2),
    st.dictionaries(st.sampled_from(["symbol", "symbl"]), odd, max_size=2),
    odd,
)
ends = st.sampled_from([True, False, None, 0, 1, "true"])


@st.composite
def readings(draw):
    reading = {"at": 1}
    if draw(st.integers(0, 4)):
        reading["x"] = draw(values_of)
    if draw(st.booleans()):
        reading["end"] = draw(ends)
    return json.dumps(reading, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def verdicts(schema, polled):
    steps = np.arange(len(polled), dtype=np.int64)
    accepted, rejected = ReadingDecoder(schema).decode(Records(0, steps, steps, [b"k"] * len(polled), [*polled]))
    found = dict(zip(rejected.records.offsets.tolist(), rejected.reasons, strict=True))
    for row, offset in enumerate(accepted.offsets.tolist()):
        assert offset not in found
        found[offset] = (accepted.x[row].tolist(), int(accepted.end[row]))
    return [found[offset] for offset in range(len(polled))]


def spelled_out(schema, value):
    try:
        reading = JsonContract(schema).read(value)
    except Refusal as refusal:
        return refusal.why.reason
    if not isinstance(reading.x, tuple):
        return [math.nan], 2
    numbers = {None: math.nan, **schema.numbers()}
    return [float(numbers.get(symbol, 0)) for symbol in reading.x], int(reading.end)


@given(st.lists(readings(), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_symbols(polled):
    assert repr(verdicts(SYMBOLS, polled)) == repr([spelled_out(SYMBOLS, value) for value in polled])


@given(readings())
@settings(max_examples=300, deadline=None)
def test_the_published_model_accepts_the_same(value):
    (verdict,) = verdicts(SYMBOLS, [value])
    try:
        SymbolReadingV1.model_validate_json(value)
    except ValidationError:
        assert isinstance(verdict, Reason), value
    else:
        assert isinstance(verdict, tuple), value


@pytest.mark.parametrize("model", [ReadingV1, SymbolReadingV1])
def test_the_published_models_know_bare_ends(model):
    model.model_validate_json(b'{"at":1,"end":true}')
    for value in (b'{"at":1}', b'{"at":1,"end":false}', b'{"at":1,"end":1}'):
        with pytest.raises(ValidationError):
            model.model_validate_json(value)
