"""Feeds damaged bytes to a reader of Arrow or Parquet, in a process of its own: what crashes it natively is seen.

`python arrow_fuzz.py READER SEED N` prints how often each thing came out; anything but what the reader promises ends it
with a traceback, and the bytes are left in `$FUZZ_LAST`.
"""

from __future__ import annotations

import io
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from services.archive import rows
from services.archive.layout import ArchiveFile, Damaged
from services.codecs import predictions, predictions_packed
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.codecs.schema_inference import naming
from services.records import AnswerFormat, Predictions, Reason, Records
from services.tables.table_reader import WrongTable, frame

BYTES = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255)
WORDS = (b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff" * 4, b"\x00" * 4, b"\x00\x00\x00\x40",
         b"\xed\xa0\x80\x00", b"\xff" * 7 + b"\x7f", b"\x00" * 7 + b"\x80", b"\xff" * 8,
         b"\x00" * 8, b"\x00\x00\x00\x00\x00\x01\x00\x00")  # fmt: skip


def damaged(value: bytes, rng: random.Random) -> bytes:
    """One to five places changed; seldom cut off."""
    made = bytearray(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        at, kind = rng.randrange(len(made)), rng.random()
        if kind < 0.5:
            made[at] = rng.choice(BYTES) if kind < 0.3 else made[at] ^ 1 << rng.randrange(8)
        elif kind < 0.95:
            word = rng.choice(WORDS)
            at -= at % 4 if kind < 0.8 else 0
            made[at : at + len(word)] = word
        else:
            made = made[: max(1, at)]
    return bytes(made)


def stream(columns: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    """An Arrow IPC stream."""
    table = pa.table(columns).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    value: bytes = sink.getvalue().to_pybytes()
    return value


def vectors(width: int, n: int = 4) -> Any:
    """[n, width]"""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ones(n * width, np.float32)), width)


def records(value: bytes) -> Records:
    """One record."""
    return Records(0, np.arange(1), np.arange(1), [b"key"], [value])


READINGS = (
    stream({"stream": [b"s1", None, b"x", b"y"], "at": pa.array([1, 2, 3, 4], pa.timestamp("ms")), "x": vectors(2),
            "seq": pa.array([1, None, 2, 3]), "end": pa.array([0, 1, None, 0], pa.uint8())}),
    stream({"stream": ["a", "b", None, "d"], "at": pa.array([1, 2, 3, 4], pa.timestamp("us", "UTC")),
            "power": pa.array([1.0, None, 2.0, 3.0]), "end": pa.array([True, None, False, False])}),
    stream({"at": [1, 2, 3], "word": ["x", "unheard of", None], "stream": pa.array(["a", "b", "c"], pa.large_utf8())}),
)  # fmt: skip


def answers() -> list[bytes]:
    """Packed predictions of every kind."""
    n, found = 4, []
    for spelling, width in (
        (AnswerFormat(), 2),
        (AnswerFormat(3), 6),
        (AnswerFormat(1, ("a", "bb")), 1),
        (AnswerFormat(3, ("a", "b")), 3),
    ):
        y = np.ones((n, width), np.float32) if not spelling.classes else np.zeros((n, width), np.float32)
        label = bool(spelling.classes) and not spelling.generated
        made = Predictions(
            "0123456789ab", 0, np.zeros(n, np.int64), np.arange(n, dtype=np.int32), [b"s%d" % i for i in range(n)],
            np.arange(n), y, None if spelling.classes else y - 1, None if spelling.classes else y + 1,
            np.ones(n, np.float32), np.zeros(n, np.uint16), np.zeros((n, 2), np.int32) if label else None,
            np.full((n, 2 if label else 1), 0.5, np.float32) if spelling.classes else None, spelling,
            np.ones(n, np.float32), np.ones(n, np.float32),
        )  # fmt: skip
        found += [value for value in predictions_packed.encode_packed(made, 900_000) if value is not None]
    return found


def read_predictions(value: bytes) -> str:
    try:
        read = predictions.decode(records(value))
    except ValueError:
        return "refused"
    repr(read)  # every value is looked at
    return "read"


def read_readings(decoders: list[ReadingDecoder]) -> Callable[[bytes], str]:
    def read(value: bytes) -> str:
        rows = 0
        for decoder in decoders:
            readings, rejected = decoder.decode(records(value))
            repr(readings)
            assert len(readings) == 0 or len(rejected) == 0
            assert Reason.INTERNAL not in rejected.reasons, rejected.faults[0].stack
            rows += len(readings)
        return "read" if rows else "refused"

    return read


def read_names(value: bytes) -> str:
    found = naming([value])
    for name in found.names:
        name.encode()
    Schema(found.names or ("x",))
    return "named" if found.names or found.positional or found.symbols else "nothing"


PIECE = ArchiveFile(0, 5, 8, "2026-11-25")


def archived() -> bytes:
    """A file of the archive."""
    some = Records(0, np.arange(5, 9), np.arange(4), [b"k", None, b"", b"kk"], [b"v" * 9, b"", None, b"x"],
                   {1: [("h", b"v"), ("g", None)]})  # fmt: skip
    return rows.content("t", PIECE, [rows.batch(some)]).to_pybytes()


def read_archive(value: bytes) -> str:
    try:
        file, _ = rows.opened(pa.BufferReader(value), "t", PIECE, "here")
        repr(list(rows.read(file, PIECE, "here")))
    except Damaged:
        return "refused"
    return "read"


def read_frame(value: bytes) -> str:
    path = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.parquet"
    path.write_bytes(value)
    try:
        read = frame(path)
        repr([read.words(str(name)) for name in read.cells.columns])
    except WrongTable:
        return "refused"
    finally:
        path.unlink()
    return "read"


def table() -> bytes:
    """A table of a user's."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"at": [1, 2, 3], "power": [1.0, None, 2.0], "name": ["a", "b", None]}), sink)
    return sink.getvalue()


def readers() -> dict[str, tuple[Callable[[bytes], str], list[bytes]]]:
    """Name -> the reader, and good bytes."""
    schemas = (Schema(("power", "voltage")), Schema(("word",), ("x", "y")))
    return {
        "predictions": (read_predictions, answers()),
        "readings": (read_readings([ReadingDecoder(schema, 100) for schema in schemas]), list(READINGS)),
        "naming": (read_names, list(READINGS)),
        "archive": (read_archive, [archived()]),
        "frame": (read_frame, [table()]),
    }


def main(name: str, seed: int, n: int) -> None:
    """Reads the good bytes, then n damaged ones."""
    read, good = readers()[name]
    for value in good:
        assert read(value) in ("read", "named"), name
    rng, found, last = random.Random(seed), Counter[str](), os.environ.get("FUZZ_LAST")
    for _ in range(n):
        value = damaged(rng.choice(good), rng)
        if last:
            Path(last).write_bytes(value)
        found[read(value)] += 1
    print(dict(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
