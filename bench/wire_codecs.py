"""Microseconds of processor time a reading for every codec: `python bench/wire_codecs.py [readings]`.

Best of several rounds; processor time, so that a busy machine disturbs less. The last line is one JSON object with the
numbers. Budget: 1.5 us for a JSON reading of 7 features, in and out.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from services.codecs import dead_letters, predictions, state_rows
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.records import ModelState, Predictions, Reason, Records, StateRows

FEATURES = tuple(f"feature_{i}" for i in range(7))
ROUNDS = 15
ROWS = 100  # of a packed record, where refused ones are held against good ones
ROW_BYTES = 600  # about an LSTM(64)'s state
MODEL, LAYOUT = "5f0c1d2e3a4b", "0123456789abcdef"


def best_us(work: Callable[[], object], n: int) -> float:
    """Fastest round, in microseconds of processor time per reading."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        fastest = min(fastest, time.process_time() - began)
    return round(fastest / n * 1e6, 3)


def records(values: list[Any], keys: list[Any]) -> Records:
    """As polled."""
    steps = np.arange(len(values))
    return Records(0, steps, 1_794_698_000_000 + steps, keys, values)


def packed(streams: list[bytes], at: Any, x: Any) -> bytes:
    """One Arrow IPC stream."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    table = pa.table({"stream": pa.array(streams, pa.binary()), "at": pa.array(at, pa.timestamp("ms")), "x": vectors})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    value: bytes = sink.getvalue().to_pybytes()
    return value


def floods(good: list[bytes], key: bytes) -> dict[Reason, list[tuple[bytes | None, bytes | None]]]:
    """Keys and values of as many records as there are good readings, all refused for one reason."""

    def changed(old: bytes, new: bytes) -> list[tuple[bytes | None, bytes | None]]:
        return [(key, re.sub(old, new, value, count=1)) for value in good]

    return {
        Reason.TOMBSTONE: [(key, None) for _ in good],
        Reason.MISSING_KEY: [(None, value) for value in good],
        Reason.KEY_TOO_LONG: [(b"k" * 300, value) for value in good],
        Reason.NOT_JSON: [(key, value[:-9]) for value in good],
        Reason.TOO_DEEP: [(key, value.replace(b"[", b"[" * 40)) for value in good],
        Reason.WRONG_VERSION: changed(rb"\{", b'{"v":2,'),
        Reason.WRONG_SCHEMA: changed(rb"\[[^],]+", b'["1"'),
        Reason.WRONG_LENGTH: changed(rb"\[", b"[1.5,"),
        Reason.UNKNOWN_FEATURE: [
            (key, b'{"at":%d,"x":{"featur_%d":1.5,"feature_2":2}}' % (i, i)) for i in range(len(good))
        ],
        Reason.NOT_FINITE: changed(rb"\[[^],]+", b"[NaN"),
        Reason.BAD_TIME: [(key, b'{"at":"yesterday",' + value[value.index(b'"x"') :]) for value in good],
    }


def refusals(n: int, width: int) -> dict[str, float]:
    """Microseconds a record that is decoded and answered: of good readings, and of a flood of each reason."""
    features = tuple(f"feature_{i}" for i in range(width))
    decoder, rng = ReadingDecoder(Schema(features), max_rows=ROWS), np.random.default_rng(0)
    x = rng.normal(size=(n, width)).astype(np.float32)
    good = [
        json.dumps({"at": 1794698000000 + i, "x": np.round(x[i].astype(float), 3).tolist(), "seq": i}).encode()
        for i in range(n)
    ]
    names = [b"sensor-%04d" % (i % 1000) for i in range(n)]
    words = [b'{"at":%d,"x":"a","seq":7}' % i for i in range(n)]
    many = [packed(names[:ROWS], np.arange(ROWS), x[:ROWS])] * (n // ROWS)
    too_many = packed(names[: ROWS + 1], np.arange(ROWS + 1), x[: ROWS + 1])
    flood = floods(good, names[0])
    symbolic = ReadingDecoder(Schema(("word",), ("a", "b")))
    empty = [(names[0], value.replace(b'"a"', b'""')) for value in words]
    return {
        "good readings": answered(decoder, good, names, x),
        **{reason: refused(decoder, reason, records) for reason, records in flood.items()},
        "good symbols": answered(symbolic, words, names, x[:, :1]),
        Reason.BAD_SYMBOL: refused(symbolic, Reason.BAD_SYMBOL, empty),
        f"good packed records of {ROWS}": answered(decoder, many, names, x),
        Reason.BAD_ARROW: refused(decoder, Reason.BAD_ARROW, [(names[0], value[:-9]) for value in many]),
        Reason.TOO_MANY_ROWS: refused(decoder, Reason.TOO_MANY_ROWS, [(names[0], too_many)] * len(many)),
    }


def answered(decoder: ReadingDecoder, values: list[bytes], names: list[bytes], x: Any) -> float:
    """Microseconds a record to decode all and to encode a prediction of as many values for each reading of theirs."""
    polled = records(values, names[: len(values)])
    read = decoder.decode(polled)[0]
    y, none = x[: len(read)], np.zeros(len(read))
    made = Predictions(MODEL, 0, read.offsets, read.rows, read.streams, read.at_ms, y, y - 1, y + 1,
                       none.astype(np.float32), none.astype(np.uint8))  # fmt: skip
    return best_us(lambda: (decoder.decode(polled), predictions.encode(made)), len(values))


def refused(decoder: ReadingDecoder, reason: Reason, flood: list[tuple[bytes | None, bytes | None]]) -> float:
    """Microseconds a record to decode all and to encode a dead letter for each."""
    keys, values = zip(*flood, strict=True)
    polled = records(list(values), list(keys))
    found = set(decoder.decode(polled)[1].reasons)
    assert found == {reason}, (reason, found)
    return best_us(lambda: dead_letters.encode(decoder.decode(polled)[1], "t", "g", 0), len(flood))


def main(n: int) -> None:
    """Measures and prints."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, len(FEATURES))).astype(np.float32) * 100
    rounded = np.round(x.astype(np.float64), 3).tolist()
    at = (1_794_698_000_000 + np.arange(n)).tolist()
    streams = [b"sensor-%04d" % (i % 1000) for i in range(n)]
    decoder = ReadingDecoder(Schema(FEATURES), max_rows=n)

    def text(at: Callable[[int], Any], x: Callable[[int], Any]) -> list[bytes]:
        return [json.dumps({"at": at(i), "x": x(i), "seq": i}).encode() for i in range(n)]

    plain = text(lambda i: at[i], lambda i: rounded[i])
    poisoned = [*plain[:-1], b"[" * (1 << 20)]
    inputs = {
        "json array": plain,
        "json object": text(lambda i: at[i], lambda i: dict(zip(FEATURES, rounded[i], strict=True))),
        "json with ISO times": text(lambda i: f"2026-11-14T22:33:{i % 60:02d}.500Z", lambda i: rounded[i]),
        "json with a null": text(lambda i: at[i], lambda i: [None, *rounded[i][1:]]),
        "json, one record is 1 MiB of [": poisoned,
        "json, one in 100 refused": [b'{"at":1,"x":["1"]}' if i % 100 == 0 else value for i, value in enumerate(plain)],
        "json, all refused": [b'{"at":1,"x":["1",2,3,4,5,6,7]}'] * n,
    }
    found = {}
    for name, values in inputs.items():
        polled = records(values, streams)
        found[f"decode {name}"] = best_us(lambda polled=polled: decoder.decode(polled), n)  # type: ignore[misc]
    one = records([packed(streams, at, x)], [None])
    found["decode packed"] = best_us(lambda: decoder.decode(one), n)

    offsets, flags, score = np.arange(n), np.zeros(n, np.uint8), x[:, 0].copy()
    single, rows = np.full(n, -1, np.int32), np.arange(n, dtype=np.int32)
    stamps, same = np.array(at), np.zeros(n, np.int64)
    outputs = {
        "json with band": Predictions(MODEL, 0, offsets, single, streams, stamps, x, x - 1, x + 1, score, flags),
        "json without band": Predictions(MODEL, 0, offsets, single, streams, stamps, x, None, None, score, flags),
        "packed": Predictions(MODEL, 0, same, rows, streams, stamps, x, x - 1, x + 1, score, flags),
    }
    for name, made in outputs.items():
        found[f"encode predictions {name}"] = best_us(lambda made=made: predictions.encode(made), n)  # type: ignore[misc]
    written = records(*reversed(predictions.encode(outputs["json with band"])))
    found["decode predictions json"] = best_us(lambda: predictions.decode(written), n)

    names = [b"stream-%06d" % i for i in range(n)]
    memory = ModelState(MODEL, LAYOUT, np.arange(n), rng.integers(0, 256, (n, ROW_BYTES)).astype(np.uint8))
    states = StateRows(0, names, offsets, offsets, (memory,))
    found["encode state rows"] = best_us(lambda: state_rows.encode(states), n)
    changelog = records(*reversed(state_rows.encode(states)))
    found["decode state rows"] = best_us(lambda: state_rows.decode(changelog, {MODEL: (LAYOUT, ROW_BYTES)}), n)
    rejected = decoder.decode(records(inputs["json, all refused"], streams))[1]
    found["encode dead letters"] = best_us(lambda: dead_letters.encode(rejected, "t", "g", 0), n)

    for width in (7, 200):
        good_us = 0.0
        for name, us in refusals(min(n, 2000), width).items():
            good_us = us if name.startswith("good") else good_us
            found[f"{name}, {width} features, in and out"] = us
            print(f"{name:<36}{width:5}{us:10.3f} us a record{good_us / us:8.2f} times as fast as good ones")
    for name, us in found.items():
        print(f"{name:<36}{us:8.3f} us")
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
