"""Damaged Arrow and Parquet is refused by every reader of ours; none of it ends the interpreter, or an inference."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from services.codecs import predictions
from services.codecs.schema_inference import MAX_NAMES, naming
from services.records import Records

FUZZ = Path(__file__).parents[1] / "support" / "arrow_fuzz.py"


@pytest.mark.parametrize("reader", ["predictions", "readings", "naming", "archive", "frame"])
def test_damaged_bytes_end_no_interpreter(reader, tmp_path):
    last = tmp_path / "last"
    run = subprocess.run(
        [sys.executable, str(FUZZ), reader, "7", "400" if reader == "frame" else "1500"],
        capture_output=True, text=True, timeout=600, check=False, env={**os.environ, "FUZZ_LAST": str(last)},
    )  # fmt: skip
    assert run.returncode == 0, f"{run.stderr[-3000:]}\nby {last.read_bytes()!r}"
    assert "refused" in run.stdout or "nothing" in run.stdout


def record(value):
    return Records(0, np.arange(1), np.arange(1), [b"k"], [value])


@pytest.mark.parametrize(
    "value",
    [
        b'{"v":1,"stream":"a","at":1,"partition":4294967296,"offset":0,"model":"m","score":1,"flags":[],"y":[1]}',
        b'{"v":1,"stream":"a","at":1,"partition":0,"offset":9223372036854775808,"model":"m","score":1,"flags":[],"y":[1]}',
        b'{"v":1,"stream":"a","at":-9223372036854775809,"partition":0,"offset":0,"model":"m","score":1,"flags":[],"y":[1]}',
        b'{"v":1,"stream":null,"stream_hex":"xx","at":1,"partition":0,"offset":0,"model":"m","score":1,"flags":[],"y":[1]}',
        b"\xff",
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
    ],
)
def test_what_is_no_prediction_is_named(value):
    with pytest.raises(ValueError, match="partition 0, offset 0 is not a prediction of version 1"):
        predictions.decode(record(value))


GOOD = b'{"at":1,"x":{"flow":1,"level":2}}'
HUGE = pa.list_(pa.float32(), 2**31 - 1)
NESTED = pa.list_(pa.list_(pa.list_(pa.float32(), 1)))
ODD = [
    {"at": [1], "": [1.0]},
    {"at": [1], "n" * 300: [1.0]},
    {"at": [1], "a\nb": [1.0]},
    {"at": [1], **{f"n{i}": [1.0] for i in range(MAX_NAMES + 1)}},
    {"at": [1], "flow": pa.nulls(1, NESTED)},
    {"at": [1], "flow": ["text"]},
    {"at": [1], "x": pa.array(["w"]).dictionary_encode()},
    {"flow2": [1.0]},
]


@pytest.mark.parametrize("columns", ODD, ids=lambda columns: ",".join(columns)[:30])
def test_odd_columns_do_not_say_what_values_are_called(arrow, columns):
    assert naming([arrow(columns), GOOD]).names == ("flow", "level")


def test_names_that_are_repeated_or_no_text(arrow):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([1.0]), pa.array([1.0])], ["at", "flow3", "flow3"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, twice.schema) as writer:
        writer.write_table(twice)
    surrogate = arrow({"at": [1], "NAM": [1.0]}).replace(b"NAM", b"\xed\xa0\x80")
    assert naming([sink.getvalue().to_pybytes(), surrogate, GOOD]).names == ("flow", "level")


def test_a_list_of_two_thousand_million_values_is_not_made(arrow):
    wide = arrow({"at": pa.array([], pa.int64()), "x": pa.array([], HUGE)})
    assert naming([wide, b'{"at":1,"x":[1,2,3]}']).positional == 3


def test_odd_names_in_json_say_nothing_either():
    odd = [
        b'{"x":{"":1}}',
        b'{"x":{"\\ud800":1}}',
        b'{"x":{"' + b"n" * 300 + b'":1}}',
        b'{"x":5}',
        b'{"x":true}',
        b"[]",
    ]
    assert naming([*odd, GOOD]).names == ("flow", "level")
