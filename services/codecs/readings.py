"""Polled records -> the readings they hold and the records that hold none. Imports numpy and this room only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.codecs.readings_json import JsonReadings
from services.codecs.readings_packed import MAX_STREAM_BYTES, PackedReadings, PackedRows
from services.codecs.refusal import Refusal, Why
from services.codecs.schema import Schema
from services.records import Readings, Reason, Records, Rejected

JSON_ROW = -1
"""`Readings.rows` of a reading that had a record of its own."""


class ReadingDecoder:
    """Decodes polls against one schema. Pure: a record's fate depends on its own bytes only.

    Every record ends up in exactly one of the two results; a packed record is accepted or rejected as a whole.
    """

    def __init__(self, schema: Schema, max_rows: int = 10_000) -> None:
        """`max_rows` is the largest packed record, in rows."""
        self.schema = schema
        self._json = JsonReadings(schema)
        self._packed = PackedReadings(schema, max_rows)

    def decode(self, records: Records) -> tuple[Readings, Rejected]:
        """Readings in offset order, rows of packed records in their own order; and what was refused, with reasons."""
        columns, refusals, others = self._json.decode(records.values)
        packed: list[tuple[int, PackedRows]] = []
        for i in others:
            try:
                packed.append((i, self._other(records.values[i], records.keys[i])))
            except Refusal as refusal:
                refusals[i] = refusal.why
        keyless = _bad_keys(records.keys)
        for i in others:
            keyless.pop(i, None)  # a packed record may name its streams itself
        refusals |= keyless
        index, at_ms, x, seq, end = columns.index, columns.at_ms, columns.x, columns.seq, columns.end
        if keyless:
            good = ~np.isin(index, list(keyless))
            index, at_ms, x, seq, end = index[good], at_ms[good], x[good], seq[good], end[good]
        streams: list[bytes] = records.keys  # type: ignore[assignment]
        if len(index) < len(records):
            streams = [streams[i] for i in index.tolist()]
        rows = np.full(len(index), JSON_ROW, np.int32)
        if packed:
            index = np.concatenate([index, *(np.full(len(part.streams), i) for i, part in packed)])
            rows = np.concatenate([rows, *(np.arange(len(part.streams), dtype=np.int32) for _, part in packed)])
            at_ms = np.concatenate([at_ms, *(part.at_ms for _, part in packed)])
            x = np.concatenate([x, *(part.x for _, part in packed)])
            seq = np.concatenate([seq, *(part.seq for _, part in packed)])
            end = np.concatenate([end, *(part.end for _, part in packed)])
            streams = [*streams, *(stream for _, part in packed for stream in part.streams)]
            order = np.argsort(index, kind="stable")
            index, rows, at_ms = index[order], rows[order], at_ms[order]
            x, seq, end = x[order], seq[order], end[order]
            streams = [streams[i] for i in order.tolist()]
        arrived_ms: NDArray[np.int64] = records.timestamps_ms[index]
        offsets: NDArray[np.int64] = records.offsets[index]
        readings = Readings(records.partition, offsets, rows, streams, at_ms, x, seq, arrived_ms, end)
        return readings, _rejected(records, refusals)

    def _other(self, value: bytes | None, key: bytes | None) -> PackedRows:
        if value is None:
            raise Refusal(Reason.TOMBSTONE, "The record has no value; to end a stream, just stop writing to it.")
        return self._packed.decode(value, key)


def _bad_keys(keys: list[bytes | None]) -> dict[int, Why]:
    """Why keys are no streams, by row. One pass in C when all are fine."""
    if all(keys) and max(map(len, keys), default=1) <= MAX_STREAM_BYTES:  # type: ignore[arg-type]
        return {}
    found: dict[int, Why] = {}
    for i, key in enumerate(keys):
        if not key:
            found[i] = Why(Reason.MISSING_KEY, "The record has no key; the key names the stream.")
        elif len(key) > MAX_STREAM_BYTES:
            detail = f"The key has {len(key)} bytes; a stream's name has at most {MAX_STREAM_BYTES}."
            found[i] = Why(Reason.KEY_TOO_LONG, detail)
    return found


def _rejected(records: Records, refusals: dict[int, Why]) -> Rejected:
    index = sorted(refusals)
    refused = Records(
        records.partition,
        records.offsets[index] if index else np.zeros(0, np.int64),
        records.timestamps_ms[index] if index else np.zeros(0, np.int64),
        [records.keys[i] for i in index],
        [records.values[i] for i in index],
        {row: records.headers[i] for row, i in enumerate(index) if i in records.headers},
    )
    return Rejected(refused, [refusals[i].reason for i in index], [refusals[i].detail for i in index])
