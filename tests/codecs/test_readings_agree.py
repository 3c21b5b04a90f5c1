"""The fast path and the contract spelled out say the same of any bytes, alone or among others."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.codecs import readings_contract
from services.codecs.contract import ReadingV1
from services.codecs.readings import ReadingDecoder
from services.codecs.readings_contract import JsonContract
from services.codecs.refusal import Refusal
from services.codecs.schema import Schema
from services.records import Reason, Records

FEATURES = ("a", "b c", "é")
DECODER = ReadingDecoder(Schema(FEATURES))
CONTRACT = JsonContract(Schema(FEATURES))

WORDS = r"""
0 -0 1 1.0 -1.5 1e2 1E+400 -1e400 3.4028235677973366e38 3.4028235677973362e38 1e39 1e-400 NaN Infinity -Infinity
null true false "1" "" [] {} [1] {"a":1} 01 1. 18446744073709551616 9223372036854775807 9223372036854775808
253402300799999 253402300800000 253402300799999.0 9007199254740993.0 "2026-11-14T22:33:20Z" "2026-13-01T00:00:00Z"
"2026-11-14T22:33:20.1234567" "9999-12-31T23:59:59.9999999" "0001-01-01T00:00:00+23:59" "\u0032026-11-14T22:33:20Z"
"""
tokens = st.sampled_from([*WORDS.split(), "9" * 401, '"2026-11-14 22:33:20"'])
numbers = st.one_of(
    st.floats(width=64).map(repr).map(lambda text: text.replace("nan", "NaN").replace("inf", "Infinity")),
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda number: f"{number:E}"),
)
anything = st.one_of(tokens, numbers, st.text().map(json.dumps))
values_in_order = st.lists(st.one_of(numbers, numbers, st.just("null"), tokens), min_size=2, max_size=4)
names = st.sampled_from(['"a"', '"b c"', '"é"', '"\\u00e9"', '"A"', '""'])
values_by_name = st.lists(st.tuples(names, st.one_of(numbers, tokens)), max_size=4)
vectors = st.one_of(
    values_in_order.map(lambda x: f"[{','.join(x)}]"),
    values_by_name.map(lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"),
)
fields = st.one_of(
    st.tuples(st.sampled_from(['"at"', '"\\u0061t"']), st.one_of(st.integers(0, 2**50).map(str), anything)),
    st.tuples(st.just('"x"'), st.one_of(vectors, vectors, anything)),
    st.tuples(st.just('"seq"'), st.one_of(st.integers(-1, 2**63).map(str), anything)),
    st.tuples(st.just('"v"'), st.one_of(st.just("1"), anything)),
    st.tuples(st.text().map(json.dumps), anything),
)
likely = st.tuples(vectors, st.lists(fields, max_size=3)).map(
    lambda parts: [('"at"', "1"), ('"x"', parts[0]), *parts[1]]
)
spaces = st.sampled_from(["", " ", "\n", "\t\r", "\f", "\ufeff", "\x00"])
texts = st.tuples(st.one_of(likely, st.lists(fields, max_size=5)), st.sampled_from(["", " ", "\n"]), spaces).map(
    lambda parts: parts[1] + "{" + ",".join(f"{name}:{value}" for name, value in parts[0]) + "}" + parts[2]
)


numbers = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.floats(allow_nan=False).map(repr),
    st.tuples(st.integers(0, 10**25), st.integers(0, 10**25), st.integers(-340, 310)).map(
        lambda t: f"{t[0]}.{t[1]}e{t[2]}"
    ),
)


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """JSON that is nearly a reading, often damaged."""
    value = bytearray(draw(texts).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(value)))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            value[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=3))
        elif kind == 1:
            value[at:at] = draw(
                st.sampled_from([b",", b"[", b"]", b"{", b"}", b'"', b"\\", b"\\ud800", b"0", b"e", b"."])
            )
        else:
            del value[at:]
    return bytes(value)


def records(polled: list[bytes]) -> Records:
    steps = np.arange(len(polled), dtype=np.int64)
    return Records(0, steps, steps, [b"k"] * len(polled), [*polled])


def spelled_out(value: bytes) -> tuple[Any, ...]:
    """The contract's verdict on one value: its columns, or its reason."""
    if value[:1] == b"\xff":
        return ("bad_arrow",)
    try:
        reading = CONTRACT.read(value)
    except Refusal as refusal:
        return (refusal.why.reason,)
    x = np.array([np.nan if number is None else number for number in reading.x], np.float64).astype(np.float32)
    return reading.at, x.tobytes(), reading.seq


def verdicts(polled: list[bytes]) -> list[tuple[Any, ...]]:
    """The decoder's verdict on every value of one poll."""
    readings, rejected = DECODER.decode(records(polled))
    found: dict[int, tuple[Any, ...]] = {}
    for row, offset in enumerate(readings.offsets.tolist()):
        nan = np.isnan(readings.x[row])
        x = np.where(nan, np.float32(np.nan), readings.x[row])
        found[offset] = (int(readings.at_ms[row]), x.tobytes(), int(readings.seq[row]))
    for offset, reason in zip(rejected.records.offsets.tolist(), rejected.reasons, strict=True):
        assert offset not in found
        found[offset] = (reason,)
    return [found[offset] for offset in range(len(polled))]


@given(st.lists(values(), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_any_bytes(polled):
    assert verdicts(polled) == [spelled_out(value) for value in polled]


@given(st.one_of(values(), st.binary(max_size=40), st.text(max_size=20).map(str.encode), numbers.map(str.encode)))
@example(b'"\\ud800"')
@example(b"123456789012345678901234567890")
@example(b"1e400")
@example(b"[%s, -%s]" % (b"9" * 401, b"9" * 4300))
@example(b"[%s, -%s]" % (b"9" * 4301, b"9" * 4301))
@example(b'{"a":1,"a":2}')
@settings(max_examples=400, deadline=None)
def test_the_fast_parser_says_what_the_slow_one_does(value):
    def said(parse):
        try:
            return repr(parse(value))
        except (Refusal, ValueError, RecursionError, readings_contract._NotFinite) as error:
            return type(error) if isinstance(error, readings_contract._NotFinite) else ValueError

    assert said(readings_contract._parsed) == said(lambda value: readings_contract._PARSER.decode(value.decode()))


@given(st.lists(st.binary(max_size=40), max_size=4))
@settings(max_examples=200, deadline=None)
def test_noise(polled):
    assert verdicts(polled) == [spelled_out(value) for value in polled]


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
well_formed = st.tuples(
    st.one_of(st.integers(-5, 2**62), st.datetimes().map(str)),
    st.one_of(
        st.lists(st.one_of(st.none(), finite), min_size=3, max_size=3),
        st.dictionaries(st.sampled_from(FEATURES), st.floats(-1e38, 1e38)),
    ),
    st.one_of(st.none(), st.integers(-2, 2**64)),
)


@given(st.lists(well_formed, min_size=1))
@settings(max_examples=200, deadline=None)
def test_the_published_models_accept_the_same(readings):
    polled = [json.dumps({"at": at, "x": x, "seq": seq}).encode() for at, x, seq in readings]
    for value, verdict in zip(polled, verdicts(polled), strict=True):
        try:
            ReadingV1.model_validate_json(value)
        except ValidationError:
            assert len(verdict) == 1, value
        else:
            assert len(verdict) == 3 or verdict == (Reason.BAD_TIME,), value  # a text may look like a time and be none


@given(st.lists(finite, min_size=3, max_size=3))
@settings(deadline=None)
def test_float32_survives_json(row):
    readings, _ = DECODER.decode(records([json.dumps({"at": 1, "x": row}).encode()]))
    assert readings.x.tobytes() == np.array(row, np.float32).tobytes()


@pytest.mark.parametrize("name", ['qu"ote', "back\\slash", "tab\t", "x" * 500, "", "at", "🌡"])
def test_any_name_of_a_feature(name):
    decoder = ReadingDecoder(Schema((name, "other")))
    value = json.dumps({"at": 1, "x": {name: 5, "other": 6}}).encode()
    readings, rejected = decoder.decode(records([value, value]))
    assert rejected.details == []
    assert readings.x.tolist() == [[5, 6], [5, 6]]
