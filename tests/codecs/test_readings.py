"""What a JSON reading may look like, what becomes of everything else, and that nothing touches its neighbours."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from services.codecs.readings import ReadingDecoder
from services.codecs.refusal import HINTS
from services.codecs.schema import Schema
from services.records import NO_SEQ, Reason

FEATURES = ("power", "voltage", 'a"b\\ é')
GOOD = b'{"at":1794698000500,"x":[1.5,2.5,3.5]}'


def obj(at="1", x="[1,2,3]", rest=""):
    return f'{{"at":{at},"x":{x}{rest}}}'.encode()


@pytest.fixture(scope="module")
def decoder():
    return ReadingDecoder(Schema(FEATURES), max_rows=100)


def one(decoder, polled, value, key=b"house-1"):
    readings, rejected = decoder.decode(polled([value], [key]))
    assert len(readings) + len(rejected) == 1
    return readings, rejected


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ("[1,2.5,-3e2]", [1, 2.5, -300]),
        ("[null,0,-0.0]", [math.nan, 0, -0.0]),
        ("[1e-400,4e-46,0.1]", [0, 0, np.float32(0.1)]),
        (
            "[3.4028234663852886e38,3.4028235677973362e38,-3.4e38]",
            [3.4028234663852886e38, 3.4028234663852886e38, -3.4e38],
        ),
        (
            "[123456789012345678901234567890,18446744073709551616,-9223372036854775809]",
            [1.2345679e29, 2.0**64, -(2.0**63)],
        ),
        ('{"voltage":2}', [math.nan, 2, math.nan]),
        ('{"a\\"b\\\\ \\u00e9":3,"power":null}', [math.nan, math.nan, 3]),
        ("{}", [math.nan] * 3),
        ('{"power":1,"power":2}', [2, math.nan, math.nan]),
    ],
)
def test_values(decoder, polled, x, expected):
    readings, rejected = one(decoder, polled, obj(x=x))
    assert rejected.details == []
    assert readings.x.dtype == np.float32
    np.testing.assert_array_equal(readings.x, np.array([expected], np.float32))
    assert list(np.signbit(readings.x[0][~np.isnan(readings.x[0])])) == [
        v < 0 or str(v) == "-0.0" for v in expected if v == v
    ]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("1794698000500", 1794698000500),
        ("1794698000500.0", 1794698000500),
        ("1.7946980005e12", 1794698000500),
        ("0", 0),
        ("-0", 0),
        ("253402300799999", 253402300799999),
        ('"2026-11-14T22:33:20.5Z"', 1794695600500),
        ('"2026-11-14T22:33:20.500999"', 1794695600500),
        ('"2026-11-14 23:33:20.500+01:00"', 1794695600500),
        ('"2026-11-14t17:33:20.500123456-0500"', 1794695600500),
        ('"\\u0032026-11-14T22:33:20.500z"', 1794695600500),
        ('"2026-11-14T22:33:20.4999999Z"', 1794695600500),
        ('"1970-01-01T00:00:00"', 0),
    ],
)
def test_times(decoder, polled, at, expected):
    readings, rejected = one(decoder, polled, obj(at=at))
    assert rejected.details == []
    assert readings.at_ms.tolist() == [expected]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", NO_SEQ),
        (',"seq":null', NO_SEQ),
        (',"seq":0', 0),
        (',"seq":3.0', 3),
        (',"seq":9223372036854775807', 2**63 - 1),
        (',"v":1', NO_SEQ),
        (',"v":1.0,"seq":7', 7),
    ],
)
def test_sequence_numbers_and_versions(decoder, polled, rest, expected):
    readings, rejected = one(decoder, polled, obj(rest=rest))
    assert rejected.details == []
    assert readings.seq.tolist() == [expected]


REFUSED = [
    (None, Reason.TOMBSTONE),
    (b"", Reason.NOT_JSON),
    (b" ", Reason.NOT_JSON),
    (b"hello", Reason.NOT_JSON),
    (b"\x00\x00\x00\x00\x01abc", Reason.NOT_JSON),
    (b"\xef\xbb\xbf" + GOOD, Reason.NOT_JSON),
    (GOOD.decode().encode("utf-16-le"), Reason.NOT_JSON),
    (GOOD + GOOD, Reason.NOT_JSON),
    (GOOD + b"\n" + GOOD, Reason.NOT_JSON),
    (GOOD + b",", Reason.NOT_JSON),
    (GOOD + b"\x00", Reason.NOT_JSON),
    (GOOD[:-1], Reason.NOT_JSON),
    (b"ARROW1\0\0", Reason.NOT_JSON),
    (b'{"at":1,"x":[1,2,3],"\xff":1}', Reason.NOT_JSON),
    (b'{"at":1,"x":{"\xfe":1}}', Reason.NOT_JSON),
    (obj(x="[01,2,3]"), Reason.NOT_JSON),
    (obj(x="[1,2,3,]"), Reason.NOT_JSON),
    (obj(x="[.5,2,3]"), Reason.NOT_JSON),
    (obj(x="[+1,2,3]"), Reason.NOT_JSON),
    (obj(x="[nan,2,3]"), Reason.NOT_JSON),
    (b"{'at':1,'x':[1,2,3]}", Reason.NOT_JSON),
    (b'{"at":1,"x":[1,2,3]/**/}', Reason.NOT_JSON),
    (b"[" * (1 << 20), Reason.TOO_DEEP),
    (b'{"a":' * (1 << 17), Reason.TOO_DEEP),
    (b"[" * (1 << 19) + b"]" * (1 << 19), Reason.TOO_DEEP),
    (b'{"at":1,"x":' + b"[" * 40 + b"]" * 40 + b"}", Reason.TOO_DEEP),
    (b"[" * 20 + b"]" * 20, Reason.WRONG_SCHEMA),
    (b'"' + b"[" * (1 << 20) + b'"', Reason.WRONG_SCHEMA),
    (b"[]", Reason.WRONG_SCHEMA),
    (b"null", Reason.WRONG_SCHEMA),
    (b"17", Reason.WRONG_SCHEMA),
    (b"{}", Reason.WRONG_SCHEMA),
    (b'{"x":[1,2,3]}', Reason.WRONG_SCHEMA),
    (b'{"at":1}', Reason.WRONG_SCHEMA),
    (obj(rest=',"sqe":1'), Reason.WRONG_SCHEMA),
    (obj(rest=',"seq":-1'), Reason.WRONG_SCHEMA),
    (obj(rest=',"seq":1.5'), Reason.WRONG_SCHEMA),
    (obj(rest=',"seq":"1"'), Reason.WRONG_SCHEMA),
    (obj(rest=',"seq":true'), Reason.WRONG_SCHEMA),
    (obj(rest=',"seq":9223372036854775808'), Reason.WRONG_SCHEMA),
    (obj(rest=',"seq":1e400'), Reason.WRONG_SCHEMA),
    (b'{"schema":{},"payload":{"at":1,"x":[1,2,3]}}', Reason.WRONG_SCHEMA),
    (obj(x='["1",2,3]'), Reason.WRONG_SCHEMA),
    (obj(x="[true,2,3]"), Reason.WRONG_SCHEMA),
    (obj(x="[[1],2,3]"), Reason.WRONG_SCHEMA),
    (obj(x="null"), Reason.WRONG_SCHEMA),
    (obj(x='"1,2,3"'), Reason.WRONG_SCHEMA),
    (obj(x='{"power":"1"}'), Reason.WRONG_SCHEMA),
    (obj(x="[]"), Reason.WRONG_LENGTH),
    (obj(x="[1,2]"), Reason.WRONG_LENGTH),
    (obj(x="[1,2,3,4]"), Reason.WRONG_LENGTH),
    (obj(x='{"powers":1}'), Reason.UNKNOWN_FEATURE),
    (obj(x="[NaN,2,3]"), Reason.NOT_FINITE),
    (obj(x="[Infinity,2,3]"), Reason.NOT_FINITE),
    (obj(x="[-Infinity,2,3]"), Reason.NOT_FINITE),
    (obj(x="[1e400,2,3]"), Reason.NOT_FINITE),
    (obj(x="[-1e39,2,3]"), Reason.NOT_FINITE),
    (obj(x="[3.4028235677973366e38,2,3]"), Reason.NOT_FINITE),
    (obj(x=f"[{'9' * 399},2,3]"), Reason.NOT_FINITE),
    (obj(x=f"[{'9' * 5000},2,3]"), Reason.NOT_FINITE),
    (obj(at="1.5"), Reason.BAD_TIME),
    (obj(at="-1"), Reason.BAD_TIME),
    (obj(at="253402300800000"), Reason.BAD_TIME),
    (obj(at="99999999999999999999"), Reason.BAD_TIME),
    (obj(at="1e400"), Reason.BAD_TIME),
    (obj(at="null"), Reason.BAD_TIME),
    (obj(at="true"), Reason.BAD_TIME),
    (obj(at="[1]"), Reason.BAD_TIME),
    (obj(at='"1794698000500"'), Reason.BAD_TIME),
    (obj(at='"2026-11-14"'), Reason.BAD_TIME),
    (obj(at='"2026-02-30T00:00:00Z"'), Reason.BAD_TIME),
    (obj(at='"1969-12-31T23:59:59Z"'), Reason.BAD_TIME),
    (obj(at='"1970-01-01T00:00:00+00:01"'), Reason.BAD_TIME),
    (obj(at='"2026-12-31T23:59:60Z"'), Reason.BAD_TIME),
    (obj(at='"2026-11-14T22:13:20\\ud800Z"'), Reason.BAD_TIME),  # half a surrogate pair
    (obj(at='"\\udfff"'), Reason.BAD_TIME),
    (obj(rest=',"\\ud800":1'), Reason.WRONG_SCHEMA),
    (obj(x='{"\\ud800":1}'), Reason.UNKNOWN_FEATURE),
    (obj(x='["\\ud800",2,3]'), Reason.WRONG_SCHEMA),
    (obj(rest=',"v":2'), Reason.WRONG_VERSION),
    (obj(rest=',"v":"1"'), Reason.WRONG_VERSION),
    (obj(rest=',"v":true'), Reason.WRONG_VERSION),
    (obj(rest=',"v":null'), Reason.WRONG_VERSION),
    (b"\xff\xff\xff\xff", Reason.BAD_ARROW),
    (b"\xff", Reason.BAD_ARROW),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=lambda part: repr(part)[:48])
def test_refused(decoder, polled, value, reason):
    readings, rejected = one(decoder, polled, value)
    assert rejected.reasons == [reason]
    assert len(readings) == 0
    assert rejected.records.values == [value]
    assert 10 < len(rejected.details[0]) < 400
    assert rejected.details[0].isprintable()


def test_every_bad_value_leaves_its_neighbours_alone(decoder, polled):
    values, good = [], []
    for i, (value, _) in enumerate(REFUSED):
        good.append([i, i + 0.5, -i])
        values += [json.dumps({"at": i, "x": good[-1], "seq": i}).encode(), value]
    readings, rejected = decoder.decode(polled(values))
    np.testing.assert_array_equal(readings.x, np.array(good, np.float32))
    assert readings.at_ms.tolist() == readings.seq.tolist() == list(range(len(good)))
    assert readings.offsets.tolist() == list(range(100, 100 + 4 * len(good), 4))
    assert readings.arrived_ms.tolist() == (1_794_698_000_000 + np.arange(0, 2 * len(good), 2)).tolist()
    assert set(readings.rows.tolist()) == {-1}
    assert rejected.reasons == [reason for _, reason in REFUSED]
    assert rejected.records.offsets.tolist() == list(range(102, 102 + 4 * len(good), 4))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.MISSING_KEY),
        (b"", Reason.MISSING_KEY),
        (b"k" * 257, Reason.KEY_TOO_LONG),
        (b"k" * 300, Reason.KEY_TOO_LONG),
    ],
)
def test_keys_that_name_no_stream(decoder, polled, key, reason):
    readings, rejected = decoder.decode(polled([GOOD, GOOD, b"x"], [b"a", key, key]))
    assert readings.streams == [b"a"]
    assert rejected.reasons == [reason, reason]
    assert rejected.records.keys == [key, key]


def test_keys_are_any_bytes(decoder, polled):
    keys = [b"\x00", b"\xff\xfe", "é".encode(), b"k" * 256]
    readings, _ = decoder.decode(polled([GOOD] * 4, keys))
    assert readings.streams == keys


def test_a_tombstone_without_key_is_a_tombstone(decoder, polled):
    assert decoder.decode(polled([None], [None]))[1].reasons == [Reason.TOMBSTONE]


def test_rejected_records_keep_their_headers(decoder, polled):
    headers = {0: [("a", b"1")], 2: [("b", None), ("b", b"2")]}
    _, rejected = decoder.decode(polled([GOOD, b"no", b"{}"], headers=headers))
    assert rejected.records.headers == {1: headers[2]}


def test_sentences_name_the_nearest(decoder, polled):
    _, rejected = decoder.decode(polled([obj(rest=',"sqe":1'), obj(x='{"powers":1}')]))
    assert "'seq'" in rejected.details[0]
    assert "'power'" in rejected.details[1]


def test_input_in_sentences_is_short_and_escaped(decoder, polled):
    evil = "\x1b[31m\n" + "é" * 5000
    values = [json.dumps({"at": evil, "x": [1, 2, 3]}), json.dumps({evil: 1}), json.dumps({"at": 1, "x": {evil: 1}})]
    _, rejected = decoder.decode(polled([value.encode() for value in values]))
    for detail in rejected.details:
        assert detail.isprintable()
        assert detail.count("e9") < 60
        assert len(detail) < 400


def test_a_renamed_feature_costs_no_search_a_record(polled):
    features = tuple(f"feature_{i}" for i in range(200))
    decoder = ReadingDecoder(Schema(features), max_rows=100)

    def flood(rows):
        return polled([b'{"at":1,"x":{"featur_%d":1}}' % i for i in rows])

    def seconds(records):
        began = time.process_time()
        assert set(decoder.decode(records)[1].reasons) == {Reason.UNKNOWN_FEATURE}
        return time.process_time() - began

    first = decoder.decode(flood([7]))[1].details[0]
    assert first.endswith("Did you mean 'feature_7'?")
    seconds(flood(range(HINTS)))
    assert decoder.decode(flood([7]))[1].details[0] == first  # what was found is remembered
    # Names that were never seen: with a search each these would take a minute.
    assert seconds(flood(range(1000, 4000))) < 5 * seconds(flood([7] * 3000)) + 0.1


def test_an_empty_poll(decoder, polled):
    readings, rejected = decoder.decode(polled([]))
    assert len(readings) == len(rejected) == 0
    assert readings.x.shape == (0, 3)


def test_all_refused(decoder, polled):
    readings, rejected = decoder.decode(polled([b"x", None]))
    assert readings.x.shape == (0, 3)
    assert len(rejected) == 2


def test_features_must_be_distinct():
    for features in ((), ("a", "a")):
        with pytest.raises(ValueError, match="distinct"):
            Schema(features)


def test_a_value_larger_than_a_reading_can_be_is_refused_unread(decoder, polled):
    lists = b'{"at":1,"x":[' + b"[]," * 5_000_000 + b"1]}"
    readings, rejected = decoder.decode(polled([GOOD, lists, GOOD, b"?" * len(lists), None]))
    assert readings.offsets.tolist() == [100, 104]
    assert rejected.reasons == [Reason.TOO_LARGE, Reason.TOO_LARGE, Reason.TOMBSTONE]
    assert rejected.records.values == [lists, b"?" * len(lists), None]
    assert rejected.details[0].startswith(
        "The value has 15,000,016 bytes; a JSON reading of this model has at most 1,048,"
    )
    assert one(decoder, polled, lists, key=None)[1].reasons == [Reason.MISSING_KEY]


def test_the_limit_leaves_room_for_wide_models(polled):
    names = tuple(f"a feature with a long name, number {i}" for i in range(10_000))
    value = json.dumps({"at": 1, "x": dict.fromkeys(names, 0.1234567890123456)}).encode()
    escaped = value.replace(b"a feature", b"\\u0061 feature").replace(b"0.1234", b"0." + b"0" * 20 + b"1234")
    readings, rejected = ReadingDecoder(Schema(names)).decode(polled([value, escaped]))
    assert not rejected.details and len(readings) == 2


def test_packed_records_have_no_such_limit(decoder, polled, arrow, vectors):
    columns = {"at": np.arange(100), "x": vectors(np.ones((100, 3), np.float32))}
    value = arrow(columns, {"padding": "x" * (2 << 20)})
    assert not decoder.decode(polled([value]))[1].details


def test_a_record_that_was_refused_before_is_not_read(decoder, polled):
    records = replace(polled([GOOD, GOOD]), refused={0: (Reason.TOO_LARGE, "because")})
    readings, rejected = decoder.decode(records)
    assert readings.offsets.tolist() == [102]
    assert (rejected.reasons, rejected.details, rejected.records.values) == ([Reason.TOO_LARGE], ["because"], [GOOD])


def test_progress_is_told_before_each_value_that_is_looked_at_closely(polled):
    decoder, told = ReadingDecoder(Schema(FEATURES)), []
    decoder.progress = lambda: told.append(1)
    decoder.decode(polled([GOOD, b"{", obj(x="[1,2,1e300]"), GOOD]))
    assert len(told) == 2
