"""Microseconds of processor time a reading for every codec: `python bench/wire_codecs.py [readings]`.

Best of several rounds; processor time, so that a busy machine disturbs less. The last line is one JSON object with the
numbers. Budget: 1.5 us for a JSON reading of 7 features, in and out.
"""

from __future__ import annotations

import json
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
from services.records import Memory, Predictions, Records, StateRows

FEATURES = tuple(f"feature_{i}" for i in range(7))
ROUNDS = 15
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
    memory = Memory(MODEL, LAYOUT, np.arange(n), rng.integers(0, 256, (n, ROW_BYTES)).astype(np.uint8))
    states = StateRows(0, names, offsets, offsets, (memory,))
    found["encode state rows"] = best_us(lambda: state_rows.encode(states), n)
    changelog = records(*reversed(state_rows.encode(states)))
    found["decode state rows"] = best_us(lambda: state_rows.decode(changelog, {MODEL: (LAYOUT, ROW_BYTES)}), n)
    rejected = decoder.decode(records(inputs["json, all refused"], streams))[1]
    found["encode dead letters"] = best_us(lambda: dead_letters.encode(rejected, "t", "g", 0), n)

    for name, us in found.items():
        print(f"{name:<36}{us:8.3f} us")
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
