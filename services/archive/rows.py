"""What is in a file of the archive: raw records as columns, and back. Imports pyarrow.

The footer repeats what the name says, and every page has a checksum, so that a changed bit is found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from services.archive.layout import ArchiveFile, Damaged
from services.records import Header, Records

SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
    ]
)
FOOTER = b"streamrnn.archive"
VERSION = 1
GROUP_ROWS = 100_000
"""Rows of a row group: what is decoded at a time on the way back."""


def batch(records: Records) -> pa.RecordBatch:
    """`records` as they came. A null key or value stays null."""
    n = len(records)
    headers: list[list[tuple[str, bytes | None]] | None] = [None] * n
    for row, found in records.headers.items():
        headers[row] = [(name, value) for name, value in found]
    return pa.record_batch(
        [
            pa.array(np.full(n, records.partition, np.int32)),
            pa.array(records.offsets),
            pa.array(records.timestamps_ms),
            pa.array(records.keys, pa.binary()),
            pa.array(records.values, pa.binary()),
            pa.array(headers, SCHEMA.field("headers").type) if records.headers else pa.nulls(n, SCHEMA.types[-1]),
        ],
        schema=SCHEMA,
    )


def content(topic: str, piece: ArchiveFile, batches: Sequence[pa.RecordBatch], note: str = "") -> pa.Buffer:
    """The bytes of a file that holds `batches`; `note` is a sentence for a person."""
    rows = sum(one.num_rows for one in batches)
    footer = {"version": VERSION, **_said(topic, piece), "rows": rows} | ({"note": note} if note else {})
    table = pa.Table.from_batches(batches, SCHEMA).replace_schema_metadata({FOOTER: json.dumps(footer).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=GROUP_ROWS,
        compression="zstd",
        use_dictionary=["partition", "key"],  # streams come again and again, values do not
        column_encoding={"offset": "DELTA_BINARY_PACKED", "timestamp_ms": "DELTA_BINARY_PACKED"},
        write_statistics=["offset", "timestamp_ms"],  # for others; see `read`
        write_page_checksum=True,
    )
    return sink.getvalue()


def opened(source: Any, topic: str, piece: ArchiveFile, where: str) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """A file whose footer says what its name says, and that footer. Raises Damaged."""
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        footer = json.loads((file.schema_arrow.metadata or {}).get(FOOTER, b"null"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(where, piece, f"cannot be read: {error}") from error
    if not isinstance(footer, dict):
        raise _damaged(where, piece, "is Parquet, but not of this archive")
    if footer.get("version") != VERSION:
        raise _damaged(where, piece, f"is of version {footer.get('version')}, and this release reads {VERSION}")
    said = _said(topic, piece)
    if {name: footer.get(name) for name in said} != said or footer.get("rows") != file.metadata.num_rows:
        raise _damaged(where, piece, "does not hold what its name says: it was renamed, or comes from another topic")
    if not file.schema_arrow.equals(SCHEMA, check_metadata=False):
        raise _damaged(where, piece, "has other columns")
    return file, footer


def read(
    file: pq.ParquetFile, piece: ArchiveFile, where: str, first: int = 0, end: int | None = None
) -> Iterator[Records]:
    """The records from `first` up to but not including `end`, in the order of offsets. Raises Damaged.

    The footer's statistics have no checksum, so nothing is passed over because of them.
    """
    last = piece.first - 1
    end = piece.next if end is None else end
    for group in range(file.num_row_groups):
        try:
            table = file.read_row_group(group)
            table.validate(full=True)  # a page's checksum says that it is as it was written, not by whom
            table = table.combine_chunks()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(where, piece, f"cannot be read: {error}") from error
        if any(table.column(name).null_count for name in ("partition", "offset", "timestamp_ms")):
            raise _damaged(where, piece, "holds records without a place or a time")
        offsets = table.column("offset").to_numpy()
        if len(offsets) and not (offsets[0] > last and offsets[-1] <= piece.last and (np.diff(offsets) > 0).all()):
            raise _damaged(where, piece, "holds offsets that are not in order, or not those of its name")
        if (table.column("partition").to_numpy() != piece.partition).any():
            raise _damaged(where, piece, "holds records of another partition")
        last = int(offsets[-1]) if len(offsets) else last
        a, b = np.searchsorted(offsets, [first, end]).tolist()
        if a < b:
            yield _records(piece.partition, table.slice(a, b - a))


def _said(topic: str, piece: ArchiveFile) -> dict[str, Any]:
    return {
        "topic": topic,
        "partition": piece.partition,
        "first": piece.first,
        "last": piece.last,
        "gone": piece.gone,
    }


def _records(partition: int, table: pa.Table) -> Records:
    headers: dict[int, Sequence[Header]] = {}
    column = table.column("headers")
    if column.null_count < len(column):
        rows = np.flatnonzero(column.is_valid().to_numpy())
        for row, found in zip(rows.tolist(), column.take(rows).to_pylist(), strict=True):
            headers[row] = [(one["name"], one["value"]) for one in found]
    return Records(
        partition,
        table.column("offset").to_numpy(),
        table.column("timestamp_ms").to_numpy(),
        _blobs(table.column("key")),
        _blobs(table.column("value")),
        headers,
    )


def _blobs(column: pa.ChunkedArray) -> list[bytes | None]:
    """A column of byte strings, cut out of one; the library's way makes an object more for each."""
    blobs: list[bytes | None] = []
    for chunk in column.chunks:
        _, ends_at, bytes_at = chunk.buffers()
        if len(chunk) == 0:
            continue
        ends: NDArray[np.int32] = np.frombuffer(ends_at, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        start = int(ends[0])
        data = bytes(memoryview(bytes_at)[start : int(ends[-1])]) if bytes_at is not None else b""
        cuts = (ends - start).tolist()
        found: list[bytes | None] = [data[a:b] for a, b in pairwise(cuts)]
        if chunk.null_count:
            for row in np.flatnonzero(chunk.is_null().to_numpy(zero_copy_only=False)).tolist():
                found[row] = None
        blobs += found
    return blobs


def _damaged(where: str, piece: ArchiveFile, what: str) -> Damaged:
    return Damaged(
        f"{where}/{piece.path} {what}. Put back a good copy; if there is none, move the file away, and all older ones "
        f"of partition {piece.partition} with it, or newer ones if the topic still has them"
    )
