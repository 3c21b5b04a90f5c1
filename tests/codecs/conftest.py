"""Bytes as a broker would give them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from services.records import Header, Records


@pytest.fixture(scope="session")
def polled() -> Callable[..., Records]:
    """`polled(values, keys=..., headers=...)`: records of partition 3 from offset 100 on, in steps of 2."""

    def make(
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        headers: Mapping[int, Sequence[Header]] | None = None,
        partition: int = 3,
    ) -> Records:
        steps = np.arange(len(values), dtype=np.int64)
        names = [b"house-1"] * len(values) if keys is None else list(keys)
        return Records(partition, 100 + 2 * steps, 1_794_698_000_000 + steps, names, list(values), headers or {})

    return make


@pytest.fixture(scope="session")
def arrow() -> Callable[..., bytes]:
    """`arrow(columns, metadata=..., compression=..., rows=...)`: an Arrow IPC stream, `rows` rows a batch."""

    def make(
        columns: Mapping[str, Any],
        metadata: Mapping[str, str] | None = None,
        compression: str | None = None,
        rows: int | None = None,
    ) -> bytes:
        table = pa.table(dict(columns)).replace_schema_metadata(metadata)
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=rows)
        return sink.getvalue().to_pybytes()

    return make


@pytest.fixture(scope="session")
def vectors() -> Callable[[Any], Any]:
    """`vectors(matrix)`: an Arrow fixed-size list of the matrix's dtype."""

    def make(matrix: Any) -> Any:
        matrix = np.asarray(matrix)
        return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])

    return make
