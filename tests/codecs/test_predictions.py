"""Predictions on the wire read back as what they were, bit for bit, in order."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.codecs import predictions
from services.codecs.contract import FLAGS, PredictionV1
from services.records import Flag, Predictions, Records

MODEL = "5f0c1d2e3a4b"
ARRAYS = ("offsets", "rows", "at_ms", "y", "lo", "hi", "score", "flags")


def made(n, targets=3, rows=None, streams=None, offsets=None, banded=True, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, targets)).astype(np.float32) * 100
    y[rng.random(y.shape) < 0.1] = np.nan
    score = rng.normal(size=n).astype(np.float32)
    score[:1] = np.nan
    return Predictions(
        MODEL,
        3,
        np.arange(1000, 1000 + n) if offsets is None else np.asarray(offsets),
        np.full(n, -1, np.int32) if rows is None else np.asarray(rows, np.int32),
        [b"s%d" % (i % 7) for i in range(n)] if streams is None else streams,
        1_794_698_000_000 + np.arange(n),
        y,
        y - 1 if banded else None,
        y + 1 if banded else None,
        score,
        rng.integers(0, 256, n).astype(np.uint16),
    )


def as_records(keys, values):
    steps = np.arange(len(keys))
    return Records(3, steps, steps, keys, values)


def identical(got, want):
    for name in ARRAYS:
        a, b = getattr(got, name), getattr(want, name)
        if b is None:
            assert a is None
            continue
        assert a.dtype == b.dtype, name
        if a.dtype.kind == "f":
            a, b = (np.where(np.isnan(c), np.float32(np.nan), c) for c in (a, b))
        assert a.tobytes() == b.tobytes(), name
    assert got.streams == want.streams
    assert set(got.models) <= {want.model}
    assert set(got.partitions.tolist()) <= {want.partition}


@pytest.mark.parametrize("n", [0, 1, 2, 999, 1000, 1001, 2500])
@pytest.mark.parametrize("banded", [True, False])
def test_json_round_trip(n, banded):
    want = made(n, banded=banded)
    keys, values = predictions.encode(want)
    assert keys == want.streams
    got = predictions.decode(as_records(keys, values))
    assert got.record.tolist() == list(range(n))
    if n:
        identical(got, want)


def test_one_target_and_one_row():
    want = made(1, targets=1)
    identical(predictions.decode(as_records(*predictions.encode(want))), want)


def test_what_a_consumer_sees():
    want = made(2)
    want.y[0], want.score[0], want.flags[:] = [0.1, np.nan, 100], np.nan, [Flag.NEW | Flag.MISSING, 0]
    first, second = map(json.loads, predictions.encode(want)[1])
    assert first == {
        "v": 1,
        "stream": "s0",
        "at": 1_794_698_000_000,
        "partition": 3,
        "offset": 1000,
        "model": MODEL,
        "y": [0.1, None, 100.0],
        "lo": first["lo"],
        "hi": first["hi"],
        "score": None,
        "flags": ["new", "missing"],
    }
    assert second["flags"] == []
    assert list(first) == list(second)


def test_no_band_is_null():
    value = json.loads(predictions.encode(made(1, banded=False))[1][0])
    assert value["lo"] is None
    assert value["hi"] is None


def test_what_is_not_finite_is_null():
    want = made(1)
    want.y[0] = [np.inf, -np.inf, np.nan]
    assert json.loads(predictions.encode(want)[1][0])["y"] == [None, None, None]


def test_every_float32_reads_back():
    bits = np.random.default_rng(1).integers(0, 2**32, (4000, 3), dtype=np.uint64).astype(np.uint32)
    bits[:4] = [[0, 1 << 31, 1], [0x7F7FFFFF, 0xFF7FFFFF, 0x00800000], [0x007FFFFF, 0x80000001, 0x3DCCCCCD], [1, 2, 3]]
    want = made(4000)
    want.y[:] = bits.view(np.float32)
    want.y[~np.isfinite(want.y)] = np.nan
    identical(predictions.decode(as_records(*predictions.encode(want))), want)


def test_every_combination_of_flags():
    want = made(512)
    want.flags[:] = np.arange(512)
    keys, values = predictions.encode(want)
    identical(predictions.decode(as_records(keys, values)), want)
    for bits, value in enumerate(values):
        assert json.loads(value)["flags"] == [name for i, name in enumerate(FLAGS) if bits >> i & 1]


ODD_NAMES = [
    *(b'q"uote', b"back\\slash", b'",', b'\\"', b"new\nline", b"\x00", b"\x7f", "é🌡".encode(), "\u2028".encode()),
    *(b"\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b'"stream":""', b"k" * 256, b"%d{}[]"),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name):
    want = made(3, streams=[b"plain", name, b"plain2"])
    keys, values = predictions.encode(want)
    assert keys == want.streams
    identical(predictions.decode(as_records(keys, values)), want)
    for stream, value in zip(want.streams, map(json.loads, values), strict=True):
        PredictionV1.model_validate(value)
        try:
            assert (value["stream"], "stream_hex" in value) == (stream.decode(), False)
        except UnicodeDecodeError:
            assert (value["stream"], value["stream_hex"]) == (None, stream.hex())


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=8))
@settings(deadline=None)
def test_any_names(streams):
    want = made(len(streams), streams=streams)
    identical(predictions.decode(as_records(*predictions.encode(want))), want)


def test_packed_round_trip():
    want = made(50, rows=range(50), offsets=[77] * 50)
    keys, values = predictions.encode(want)
    assert (len(values), keys) == (1, [None])
    got = predictions.decode(as_records(keys, values))
    identical(got, want)
    assert set(got.record.tolist()) == {0}
    table = pa.ipc.open_stream(values[0]).read_all()
    assert table.column_names == ["stream", "at", "row", "y", "lo", "hi", "score", "flags"]
    assert table.schema.metadata == {
        b"streamrnn.v": b"1",
        b"streamrnn.partition": b"3",
        b"streamrnn.offset": b"77",
        b"streamrnn.model": MODEL.encode(),
    }


def test_a_packed_record_of_one_stream_keeps_its_key():
    want = made(5, rows=range(5), offsets=[77] * 5, streams=[b"\xffone"] * 5, banded=False)
    keys, values = predictions.encode(want)
    assert keys == [b"\xffone"]
    identical(predictions.decode(as_records(keys, values)), want)


def test_json_and_packed_keep_their_order():
    want = made(9, rows=[-1, -1, 0, 1, 2, 0, 1, -1, 0], offsets=[1, 2, 3, 3, 3, 4, 4, 5, 6])
    keys, values = predictions.encode(want)
    assert len(values) == 6
    got = predictions.decode(as_records(keys, values))
    identical(got, want)
    assert got.record.tolist() == [0, 1, 2, 2, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("max_bytes", [1, 3000, 10_000, 100_000])
def test_packed_predictions_are_split(max_bytes):
    streams = [b"k" * (1 + i % 256) for i in range(200)]
    want = made(200, rows=range(200), offsets=[5] * 200, streams=streams)
    keys, values = predictions.encode(want, max_bytes=max_bytes)
    assert all(len(value) <= max_bytes for value in values) or len(values) == 200
    identical(predictions.decode(as_records(keys, values)), want)


def test_flags_and_fields_of_a_later_release_are_passed_over():
    value = json.loads(predictions.encode(made(1))[1][0]) | {"flags": ["late", "purple"], "extra": 1}
    got = predictions.decode(as_records([b"s0"], [json.dumps(value).encode()]))
    assert got.flags.tolist() == [Flag.LATE]


@pytest.mark.parametrize("value", [b"{}", b"no", b"", b"\xff\xff\xff\xff", None, b'{"v":2}'])
def test_what_is_no_prediction_is_named(value):
    keys, values = predictions.encode(made(1))
    with pytest.raises(ValueError, match=r"partition 3, offset 1 .*not a prediction"):
        predictions.decode(as_records([*keys, b"k"], [*values, value]))


def narrower(value: bytes, name: str, left: int) -> bytes:
    """The prediction with a band of so many targets, where y has three."""
    if value[:1] != b"\xff":
        fields = json.loads(value)
        return json.dumps(fields | {name: fields[name][:left]}).encode()
    table = pa.ipc.open_stream(value).read_all()
    edge = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(left * len(table), np.float32)), left)
    table = table.set_column(table.schema.get_field_index(name), name, edge)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ["lo", "hi"])
@pytest.mark.parametrize(("packed", "left"), [(False, 2), (False, 0), (True, 2)])
def test_a_band_that_is_not_as_long_as_y_is_no_prediction(packed, left, name):
    keys, values = predictions.encode(made(2, rows=range(2), offsets=[77] * 2) if packed else made(1))
    with pytest.raises(ValueError, match=r"partition 3, offset 1 .*not a prediction"):
        predictions.decode(as_records([*keys, *keys], [*values, narrower(values[0], name, left)]))
    alone = [narrower(values[0], name, left)]
    with pytest.raises(ValueError, match="not a prediction"):
        predictions.decode(as_records(keys, alone))


@pytest.mark.parametrize("packed", [False, True])
def test_chances_travel_where_a_model_has_them(packed):
    n = 40
    plain = made(n, rows=range(n), offsets=[77] * n) if packed else made(n)
    rng = np.random.default_rng(1)
    p, lasting = rng.random((2, n)).astype(np.float32) ** 9
    p[0] = lasting[0] = np.nan
    want = dataclasses.replace(plain, p=p, lasting=lasting)
    keys, values = predictions.encode(want)
    got = predictions.decode(as_records(keys, values))
    identical(got, want)
    np.testing.assert_array_equal(got.p, p)
    np.testing.assert_array_equal(got.lasting, lasting)
    if not packed:
        PredictionV1.model_validate_json(values[1])
    others, more = predictions.encode(made(3))
    mixed = predictions.decode(as_records([*keys, *others], [*values, *more]))
    np.testing.assert_array_equal(mixed.p, [*p, np.nan, np.nan, np.nan])
    assert predictions.decode(as_records(others, more)).p is None
