"""State rows <-> records of the changelog. Key = stream, value = a fixed header and the row's bytes, or a tombstone.

The header says what the row was made of, so that a row is never taken for something it is not: version, layout of the
bytes, model, partition and the offset of the last reading folded in. Imports numpy and `services.records` only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.records import Records, StateRows

VERSION = 1
HEADER = np.dtype(
    [
        ("mark", "S2"),  # b"SR"
        ("version", "<u2"),
        ("layout", ">u8"),  # first 8 bytes of the layout's fingerprint
        ("model", "S12"),  # model id
        ("partition", "<i4"),
        ("offset", "<i8"),  # of the last reading folded in
        ("saved_ms", "<i8"),
    ]
)
"""44 bytes before the row."""
_MARK = b"SR"
_LAYOUT_BYTES = 8


class StateRowRefused(ValueError):
    """A changelog record is not a state row of this pipeline's model. The sentence says which, why, and the fix."""


def encode(states: StateRows, model: str, layout: str) -> tuple[list[bytes | None], list[bytes | None]]:
    """Keys (the streams) and values of rows made by `model`; `layout` is the fingerprint of the row's bytes (hex).

    Raises ValueError for a model id of more than 12 ASCII characters or a layout that is no fingerprint.
    """
    if not (model.isascii() and 0 < len(model) <= HEADER["model"].itemsize):
        raise ValueError(f"a model id has 1 to {HEADER['model'].itemsize} ASCII characters, not {model!r}")
    n, row_bytes = states.rows.shape
    head = np.zeros(n, HEADER)
    head["mark"], head["version"], head["layout"], head["model"] = _MARK, VERSION, _layout(layout), model.encode()
    head["partition"], head["offset"], head["saved_ms"] = states.partition, states.offsets, states.saved_ms
    width = HEADER.itemsize + row_bytes
    whole = np.empty((n, width), np.uint8)
    whole[:, : HEADER.itemsize] = head.view(np.uint8).reshape(n, HEADER.itemsize)
    whole[:, HEADER.itemsize :] = states.rows
    joined = whole.tobytes()
    return list(states.streams), [joined[at : at + width] for at in range(0, n * width, width)]


def newest(records: Records) -> Records:
    """The last record of each key, in order of offset: compaction, for what compaction has not reached yet."""
    last = dict(zip(records.keys, range(len(records)), strict=True))
    if len(last) == len(records):
        return records
    index = sorted(last.values())
    return Records(
        records.partition,
        records.offsets[index],
        records.timestamps_ms[index],
        [records.keys[i] for i in index],
        [records.values[i] for i in index],
        {row: records.headers[i] for row, i in enumerate(index) if i in records.headers},
    )


def decode(
    records: Records, layout: str, model: str | None = None, row_bytes: int | None = None
) -> tuple[StateRows, list[bytes]]:
    """State rows and tombstones (streams that ended), each stream in at most one of them: a key's last record wins.

    Raises StateRowRefused for a record without key, and for a row of another version, layout, partition, `model` or
    `row_bytes` than expected (the last two are not checked when None).
    """
    records = newest(records)
    if None in records.keys:
        raise _refused(records, records.keys.index(None), "has no key", "a stream's name")
    index = np.array([i for i, value in enumerate(records.values) if value is not None], np.int64)
    tombstones = [key for key, value in zip(records.keys, records.values, strict=True) if value is None]
    values = [value for value in records.values if value is not None]
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    width = HEADER.itemsize + row_bytes if row_bytes is not None else int(lengths.max(initial=HEADER.itemsize))
    whole = lengths >= HEADER.itemsize
    _check(records, index, whole, "has {} bytes", lengths, f"a state row of {width}")
    head = np.frombuffer(b"".join([value[: HEADER.itemsize] for value in values]), HEADER)
    _check(records, index, head["mark"] == _MARK, "starts with {}", head["mark"], f"{_MARK!r}, as state rows do")
    _check(records, index, head["version"] == VERSION, "has version {}", head["version"], str(VERSION))
    wanted = _layout(layout)
    _check(records, index, head["layout"] == wanted, "has layout {:016x}", head["layout"], f"{wanted:016x}")
    _check(records, index, lengths == width, "has {} bytes", lengths, str(width))
    here = head["partition"] == records.partition
    _check(records, index, here, "was written for partition {}", head["partition"], str(records.partition))
    if model is not None:
        _check(records, index, head["model"] == model.encode(), "was made by model {}", head["model"], model)
    rows = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), width)[:, HEADER.itemsize :]
    streams: list[Any] = [records.keys[i] for i in index.tolist()]
    offsets, saved_ms = head["offset"].astype(np.int64), head["saved_ms"].astype(np.int64)
    return StateRows(records.partition, streams, offsets, saved_ms, rows), tombstones  # type: ignore[return-value]


def _check(
    records: Records, index: NDArray[np.int64], good: NDArray[np.bool_], found: str, column: NDArray[Any], expected: str
) -> None:
    """Raises for the first row that is not good; `index` [n] is where each row stands in `records`."""
    if not good.all():
        row = int(np.argmin(good))
        value = column[row]
        raise _refused(records, int(index[row]), found.format(_text(value)), expected)


def _text(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    return value.decode() if value.isalnum() and value.isascii() else value.hex()


def _refused(records: Records, i: int, found: str, expected: str) -> StateRowRefused:
    return StateRowRefused(
        f"changelog, partition {records.partition}, offset {int(records.offsets[i])}: the record {found}; expected "
        f"{expected}. Serve the model and release that wrote this topic, point topics.changelog at the pipeline's own "
        "topic, or start over with a new group and an empty changelog."
    )


def _layout(fingerprint: str) -> int:
    try:
        found = bytes.fromhex(fingerprint)[:_LAYOUT_BYTES]
    except ValueError:
        found = b""
    if len(found) < _LAYOUT_BYTES:
        raise ValueError(f"a layout is a fingerprint of at least {2 * _LAYOUT_BYTES} hex digits, not {fingerprint!r}")
    return int.from_bytes(found, "big")
