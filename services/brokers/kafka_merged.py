"""What a poll gave of one partition, piece by piece, as one `Records`. May import numpy and records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.records import Header, Reason, Records


def merged(partition: int, fetched: Sequence[Any]) -> Records:
    """What a poll gave for one partition, as one `Records`: chunks of ours, or the library's record objects."""
    if len(fetched) == 0:
        none = np.zeros(0, np.int64)
        return Records(partition, none, none, [], [])
    chunks = list(fetched)
    if not isinstance(chunks[0], Records):
        return _columns(partition, chunks)
    if len(chunks) == 1:
        return chunks[0]
    headers: dict[int, Sequence[Header]] = {}
    refused: dict[int, tuple[Reason, str]] = {}
    begins: dict[int, int] = {}
    rows = 0
    for chunk in chunks:
        headers.update({row + rows: found for row, found in chunk.headers.items()})
        refused.update({row + rows: why for row, why in chunk.refused.items()})
        begins.update({row + rows: first for row, first in chunk.begins.items()})
        rows += len(chunk)
    return Records(
        partition,
        np.concatenate([chunk.offsets for chunk in chunks]),
        np.concatenate([chunk.timestamps_ms for chunk in chunks]),
        [key for chunk in chunks for key in chunk.keys],
        [value for chunk in chunks for value in chunk.values],
        headers,
        refused,
        begins,
    )


def after(records: Records, offset: int) -> Records:
    """The rows from `offset` on: a fetch begins with the whole batch that holds the offset asked for."""
    return records.rows(int(np.searchsorted(records.offsets, offset)), len(records))


def _columns(partition: int, records: Sequence[Any]) -> Records:
    return Records(
        partition,
        np.array([record.offset for record in records], np.int64),
        np.array([record.timestamp for record in records], np.int64),
        [record.key for record in records],
        [record.value for record in records],
        {row: list(record.headers) for row, record in enumerate(records) if record.headers},
    )
