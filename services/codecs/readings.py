"""Polled records -> the readings they hold and the records that hold none. Imports numpy, `services.faults` and this
room only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from services.codecs.arrow_stream import count_rows
from services.codecs.readings_json import PACKED, JsonReadings
from services.codecs.readings_packed import MAX_STREAM_BYTES, PackedReadings, PackedRows
from services.codecs.refusal import Refusal, Why, internal
from services.codecs.schema import Schema
from services.faults import by_halves
from services.records import Fault, Readings, Reason, Records, Rejected

JSON_ROW = -1
"""`Readings.rows` of a reading that had a record of its own."""


_TOMBSTONE = Why(Reason.TOMBSTONE, "The record has no value; to end a stream, just stop writing to it.")
_MISSING_KEY = Why(Reason.MISSING_KEY, "The record has no key; the key names the stream.")


class ReadingDecoder:
    """Decodes polls against one schema. Pure: a record's fate depends on its own bytes only.

    Every record ends up in exactly one of the two results; a packed record is accepted or rejected as a whole.
    """

    def __init__(self, schema: Schema, max_rows: int = 10_000) -> None:
        """`max_rows` is the largest packed record, in rows."""
        self.schema = schema
        self._max_rows = max_rows
        self._json = JsonReadings(schema)
        self._packed = PackedReadings(schema, max_rows)
        self.progress: Callable[[], object] = lambda: None
        """Told between two attempts to find what cannot be decoded, and before each value that is looked at closely:
        there may be thousands.
        """

    def weigh(self, records: Records) -> NDArray[np.int64]:
        """Readings that each record [n] may hold, at least 1 and at most one more than may be; without decoding it."""
        weights = np.ones(len(records), np.int64)
        for i in [i for i, value in enumerate(records.values) if value is not None and value[:1] == PACKED]:
            weights[i] = self._weight(records.values[i] or b"")
        return weights

    def _weight(self, value: bytes) -> int:
        try:
            return max(1, count_rows(value, self._max_rows + 1))
        except Exception:  # no error of one record leaves; it comes alone, and `decode` says what is wrong with it
            return self._max_rows + 1

    def decode(self, records: Records) -> tuple[Readings, Rejected]:
        """Readings in offset order, rows of packed records in their own order; and what was refused, with reasons.

        No error of one record leaves: what nobody foresaw makes the record INTERNAL. What is raised is not of the
        records: the machine has failed (MemoryError), or a good reading of our own is not read either.
        """
        try:
            readings, refusals = self._decode(records)
            faults: dict[int, Fault] = {}
        except Exception as error:
            readings, refusals, faults = self._without_faulty(records, error)
        return readings, rejected_of(records, refusals, faults.values())

    def _without_faulty(self, records: Records, error: Exception) -> tuple[Readings, dict[int, Why], dict[int, Fault]]:
        """As `_decode`, and the records that it raises for; `error` is what it raised for all of them together."""
        attempt = lambda some: self._decode(records.take(some.tolist()))  # noqa: E731
        faults = by_halves(len(records), attempt, error, progress=self.progress)
        for kind in {(records.values[i] or b"")[:1] == PACKED for i in faults}:
            self._decode(self._sample(packed=kind))
        good = [i for i in range(len(records)) if i not in faults]
        readings, refusals = self._decode(records.take(good))
        found = {good[row]: why for row, why in refusals.items()}
        return readings, found | {i: internal(fault) for i, fault in faults.items()}, faults

    def _sample(self, packed: bool) -> Records:
        """A good reading without values: a decoder that raises for it would raise for any."""
        value = self._packed.sample() if packed else self._json.sample()
        return Records(0, np.zeros(1, np.int64), np.zeros(1, np.int64), [b"sample"], [value])

    def _decode(self, records: Records) -> tuple[Readings, dict[int, Why]]:
        values = records.values
        oversized = self._json.oversized(values)
        if oversized or records.refused:  # nobody looks at their bytes
            values = [None if i in oversized or i in records.refused else value for i, value in enumerate(values)]
        columns, refusals, others = self._json.decode(values, self.progress)
        packed: list[tuple[int, PackedRows]] = []
        for i in others:
            value = values[i]
            if value is None:
                refusals[i] = _TOMBSTONE
                continue
            try:
                packed.append((i, self._packed.decode(value, records.keys[i])))
            except Refusal as refusal:
                refusals[i] = refusal.why
        keyless = _bad_keys(records.keys)
        for i in others:
            if i not in oversized:
                keyless.pop(i, None)  # a packed record may name its streams itself
        refusals |= oversized | keyless
        refusals |= {row: Why(*why) for row, why in records.refused.items()}
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
        return Readings(records.partition, offsets, rows, streams, at_ms, x, seq, arrived_ms, end), refusals


def _bad_keys(keys: list[bytes | None]) -> dict[int, Why]:
    """Why keys are no streams, by row. One pass in C when all are fine."""
    if all(keys) and max(map(len, keys), default=1) <= MAX_STREAM_BYTES:  # type: ignore[arg-type]
        return {}
    found: dict[int, Why] = {}
    for i, key in enumerate(keys):
        if not key:
            found[i] = _MISSING_KEY
        elif len(key) > MAX_STREAM_BYTES:
            detail = f"The key has {len(key)} bytes; a stream's name has at most {MAX_STREAM_BYTES}."
            found[i] = Why(Reason.KEY_TOO_LONG, detail)
    return found


def rejected_of(records: Records, refusals: dict[int, Why], faults: Iterable[Fault] = ()) -> Rejected:
    """The records in the rows of `refusals`, each with why; and the faults that made some of them INTERNAL."""
    index = sorted(refusals)
    kinds = {fault.kind: fault for fault in faults}
    reasons, details = [refusals[i].reason for i in index], [refusals[i].detail for i in index]
    return Rejected(records.take(index), reasons, details, tuple(kinds.values()))
