"""Packed readings: what is accepted, what is refused as a whole, and that hostile bytes never hurt."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest

from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.records import NO_SEQ, Reason

FEATURES = ("power", "voltage")
X = np.array([[1.5, -2.0], [np.nan, 0.25], [3e38, 1e-40]], np.float32)
AT = [1_794_698_000_500, 1_794_698_001_500, 0]


@pytest.fixture(scope="module")
def decoder():
    return ReadingDecoder(Schema(FEATURES), max_rows=100)


def whole(vectors, **changes):
    """Columns of a good record; None takes one away."""
    columns = {"stream": [b"s1", None, b"\xff"], "at": pa.array(AT, pa.timestamp("ms")), "x": vectors(X)} | changes
    return {name: column for name, column in columns.items() if column is not None}


def test_rows_of_a_record(decoder, polled, arrow, vectors):
    seq = pa.array([7, None, 0], pa.int64())
    readings, rejected = decoder.decode(polled([arrow(whole(vectors, seq=seq))], [b"key"]))
    assert rejected.details == []
    assert readings.streams == [b"s1", b"key", b"\xff"]
    assert readings.at_ms.tolist() == AT
    assert readings.x.dtype == np.float32
    np.testing.assert_array_equal(readings.x, X)
    assert readings.seq.tolist() == [7, NO_SEQ, 0]
    assert readings.rows.tolist() == [0, 1, 2]
    assert readings.offsets.tolist() == [100] * 3
    assert readings.arrived_ms.tolist() == [1_794_698_000_000] * 3


@pytest.mark.parametrize("kind", [pa.utf8(), pa.large_utf8(), pa.binary(), pa.large_binary()])
def test_kinds_of_stream_columns(decoder, polled, arrow, vectors, kind):
    value = arrow(whole(vectors, stream=pa.array(["a", "é", None], kind)))
    readings, rejected = decoder.decode(polled([value], [b"key"]))
    assert rejected.details == []
    assert readings.streams == [b"a", "é".encode(), b"key"]


@pytest.mark.parametrize(
    "at",
    [
        pa.array(AT, pa.int64()),
        pa.array(AT, pa.timestamp("ms", "Europe/Berlin")),
        pa.array([at * 1000 + 999 for at in AT], pa.timestamp("us")),
        pa.array([at * 1_000_000 + 999_999 for at in AT], pa.timestamp("ns", "UTC")),
    ],
)
def test_kinds_of_time(decoder, polled, arrow, vectors, at):
    readings, rejected = decoder.decode(polled([arrow(whole(vectors, at=at))]))
    assert rejected.details == []
    assert readings.at_ms.tolist() == AT


def test_seconds(decoder, polled, arrow, vectors):
    at = pa.array([0, 1, 253402300799], pa.timestamp("s"))
    assert decoder.decode(polled([arrow(whole(vectors, at=at))]))[0].at_ms.tolist() == [0, 1000, 253402300799000]


def test_a_column_a_feature(decoder, polled, arrow):
    columns = {"at": [1, 2], "voltage": pa.array([1.5, None], pa.float32())}
    readings, rejected = decoder.decode(polled([arrow(columns)], [b"key"]))
    assert rejected.details == []
    assert readings.streams == [b"key", b"key"]
    np.testing.assert_array_equal(readings.x, np.array([[np.nan, 1.5], [np.nan, np.nan]], np.float32))


def test_null_and_nan_are_missing(decoder, polled, arrow):
    x = pa.array([[1.0, None], None, [np.nan, 2.0]], pa.list_(pa.float64(), 2))
    readings, rejected = decoder.decode(polled([arrow({"at": [1, 2, 3], "x": x})]))
    assert rejected.details == []
    nan = np.nan
    np.testing.assert_array_equal(readings.x, np.array([[1, nan], [nan, nan], [nan, 2]], np.float32))


def test_many_batches_and_none(decoder, polled, arrow, vectors):
    several, none = arrow(whole(vectors), rows=1), arrow({"at": pa.array([], pa.int64()), "x": vectors(X)[:0]})
    readings, rejected = decoder.decode(polled([several, none]))
    assert rejected.details == []
    assert readings.rows.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(readings.x, X)


def test_json_and_packed_interleave_in_order(decoder, polled, arrow, vectors):
    def text(n):
        return json.dumps({"at": n, "x": [n, n]}).encode()

    packed = arrow(whole(vectors))
    values = [text(1), packed, b"no", text(2), text(3), packed[:-9], packed]
    readings, rejected = decoder.decode(polled(values, [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]))
    assert readings.offsets.tolist() == [100, 102, 102, 102, 106, 108, 112, 112, 112]
    assert readings.rows.tolist() == [-1, 0, 1, 2, -1, -1, 0, 1, 2]
    assert readings.streams == [b"a", b"s1", b"b", b"\xff", b"d", b"e", b"s1", b"g", b"\xff"]
    assert readings.at_ms.tolist() == [1, *AT, 2, 3, *AT]
    np.testing.assert_array_equal(readings.x, np.concatenate([[[1, 1]], X, [[2, 2], [3, 3]], X]).astype(np.float32))
    assert rejected.reasons == [Reason.NOT_JSON, Reason.BAD_ARROW]


def refused_columns(vectors):
    def changed(**changes):
        return whole(vectors, **changes)

    floats, strange = np.ones((3, 3), np.float32), pa.array(["s"] * 3)
    return [
        (changed(at=None), Reason.WRONG_SCHEMA),
        (changed(x=None), Reason.WRONG_SCHEMA),
        (changed(at=pa.array(["1"] * 3)), Reason.WRONG_SCHEMA),
        (changed(at=pa.array([1.0] * 3)), Reason.WRONG_SCHEMA),
        (changed(stream=pa.array([1] * 3)), Reason.WRONG_SCHEMA),
        (changed(stream=pa.array(["s"] * 3, pa.string_view())), Reason.WRONG_SCHEMA),
        (changed(seq=pa.array([1.0] * 3)), Reason.WRONG_SCHEMA),
        (changed(seq=pa.array([1, -1, 2])), Reason.WRONG_SCHEMA),
        (changed(sqe=pa.array([1, 1, 2])), Reason.WRONG_SCHEMA),
        (changed(power=pa.array([1.0] * 3)), Reason.WRONG_SCHEMA),
        (changed(x=vectors(np.ones((3, 2), np.int64))), Reason.WRONG_SCHEMA),
        (changed(x=pa.array([[1.0, 2.0]] * 3)), Reason.WRONG_SCHEMA),
        (changed(x=vectors(floats)), Reason.WRONG_LENGTH),
        (changed(x=None, voltages=pa.array([1.0] * 3)), Reason.UNKNOWN_FEATURE),
        (changed(x=None, voltage=pa.array([1] * 3)), Reason.WRONG_SCHEMA),
        (changed(x=vectors(np.array([[1, np.inf]] * 3))), Reason.NOT_FINITE),
        (changed(x=vectors(np.array([[1, 1e39]] * 3))), Reason.NOT_FINITE),
        (changed(at=pa.array([1, None, 2])), Reason.BAD_TIME),
        (changed(at=pa.array([1, -1, 2])), Reason.BAD_TIME),
        (changed(at=pa.array([1, 253402300800, 2], pa.timestamp("s"))), Reason.BAD_TIME),
        (changed(at=pa.array([1, 2**63 - 1, 2], pa.timestamp("s"))), Reason.BAD_TIME),
        (changed(stream=pa.array([b"a", b"", b"c"])), Reason.MISSING_KEY),
        (changed(stream=pa.array([b"a", b"k" * 257, b"c"])), Reason.KEY_TOO_LONG),
        (changed(stream=strange.dictionary_encode()), Reason.BAD_ARROW),
        ({"at": np.arange(101), "voltage": np.ones(101)}, Reason.TOO_MANY_ROWS),
    ]


def test_refused_as_a_whole(decoder, polled, arrow, vectors):
    for columns, reason in refused_columns(vectors):
        value = arrow(columns)
        readings, rejected = decoder.decode(polled([value]))
        assert (len(readings), rejected.reasons) == (0, [reason]), columns
        assert rejected.records.values == [value]
        assert 20 < len(rejected.details[0]) < 400


@pytest.mark.parametrize(("key", "reason"), [(None, Reason.MISSING_KEY), (b"k" * 300, Reason.KEY_TOO_LONG)])
def test_the_key_counts_only_for_rows_without_stream(decoder, polled, arrow, vectors, key, reason):
    named = arrow(whole(vectors, stream=["a", "b", "c"]))
    readings, rejected = decoder.decode(polled([arrow(whole(vectors)), named], [key, key]))
    assert rejected.reasons == [reason]
    assert readings.streams == [b"a", b"b", b"c"]


@pytest.mark.parametrize("version", ["2", "", "1.0"])
def test_another_version(decoder, polled, arrow, vectors, version):
    values = [arrow(whole(vectors), {"streamrnn.v": version}), arrow(whole(vectors), {"streamrnn.v": "1"})]
    readings, rejected = decoder.decode(polled(values))
    assert rejected.reasons == [Reason.WRONG_VERSION]
    assert len(readings) == 3


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers(decoder, polled, arrow, compression):
    value = arrow({"at": np.arange(90), "voltage": np.ones(90)}, compression=compression)
    assert decoder.decode(polled([value]))[1].reasons == [Reason.BAD_ARROW]


def test_every_truncation(decoder, polled, arrow, vectors):
    value = arrow(whole(vectors))
    values = [value[:end] for end in range(1, len(value))] + [value + b"\0"]
    readings, rejected = decoder.decode(polled(values))
    assert len(readings) == 0
    assert set(rejected.reasons) == {Reason.BAD_ARROW}


def test_too_many_batches(decoder, polled, arrow):
    value = arrow({"at": np.arange(101), "voltage": np.ones(101)}, rows=1)
    assert decoder.decode(polled([value]))[1].reasons == [Reason.BAD_ARROW]


def test_hostile_bytes(decoder, polled, arrow, vectors):
    """Damaged streams, most of them in the metadata: refused, or read as something that keeps every promise."""
    rng = random.Random(7)
    good = [
        arrow(whole(vectors)),
        arrow(whole(vectors, stream=["a", "b", None], at=pa.array(AT, pa.int64()), seq=pa.array([1, None, 2])), rows=2),
        arrow({"at": [1, 2], "voltage": pa.array([1.5, None], pa.float64())}),
    ]
    claims = [0, 1, -1, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63)]
    values = []
    for _ in range(3000):
        value = bytearray(rng.choice(good))
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(4, len(value) if rng.random() < 0.2 else min(800, len(value)))
            if rng.random() < 0.5:
                value[at] = rng.randrange(256)
            else:
                value[at : at + 8] = rng.choice(claims).to_bytes(8, "little", signed=True)
        values.append(bytes(value))
    readings, rejected = decoder.decode(polled(values))
    assert len(rejected) > 1000
    assert set(rejected.reasons) <= set(Reason) - {Reason.NOT_JSON}
    assert not np.isinf(readings.x).any()
    assert all(0 < len(stream) <= 256 for stream in readings.streams)
    assert (readings.at_ms >= 0).all()
    assert (readings.seq >= NO_SEQ).all()
    assert set(readings.offsets.tolist()).isdisjoint(rejected.records.offsets.tolist())
