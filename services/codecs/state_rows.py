"""State rows <-> records of the changelog. Key = stream, value = a header, a directory of memories, and their bytes.

A state row holds one or more memories: what one model knows of the stream (its id is the memory's name), and the
stream's latest readings (`recent`). The directory says what each was made of, so that bytes are never taken for
something they are not. Value None is a tombstone. Imports numpy, sentinels and `services.records` only.

    header     mark, version, partition, offset of the last reading folded in, when it was read, number of memories
    directory  for each memory: name, layout of its bytes, how many they are
    bytes      the memories, one after the other

Earlier development versions wrote version 1, which holds one memory; it is read and no longer written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.codecs import sentinels
from services.records import ModelState, Records, StateRows

VERSION = 2
HEADER = np.dtype(
    [
        ("mark", "S2"),  # b"SR"
        ("version", "<u2"),
        ("partition", "<i4"),
        ("offset", "<i8"),  # of the last reading folded in
        ("seen_ms", "<i8"),
        ("memories", "<u2"),
    ]
)
"""26 bytes at the beginning."""
ENTRY = np.dtype([("name", "S12"), ("layout", ">u8"), ("bytes", "<u4")])
"""24 bytes of the directory. `layout` is the first 8 bytes of the layout's fingerprint."""
VERSION_1 = np.dtype(
    [("mark", "S2"), ("version", "<u2"), ("layout", ">u8"), ("model", "S12"), ("partition", "<i4"), ("offset", "<i8"),
     ("seen_ms", "<i8")]
)  # fmt: skip
_MARK = b"SR"
_LAYOUT_BYTES = 8
_MOST = 16  # memories in a row; more are damage


class StateRowRefused(ValueError):
    """A changelog record is not a state row of this pipeline. The sentence says which, why, and the fix."""


class StateRowDamaged(StateRowRefused):
    """It is no state row at all, of whatever release or model: the fault of one record."""


class StateRowForeign(StateRowRefused):
    """Records at `offsets` are state rows of another version, partition or layout."""

    def __init__(self, offsets: NDArray[np.int64], sentence: str) -> None:
        super().__init__(sentence)
        self.offsets = offsets


class StateRowOfAnotherVersion(StateRowForeign):
    """Records at `offsets` are state rows of another release: nothing but their mark is known."""


def encode(states: StateRows) -> tuple[list[bytes | None], list[bytes | None]]:
    """Keys (the streams) and values. Raises ValueError for a name that is not 1 to 12 ASCII characters, or a layout
    that is no fingerprint (hex).
    """
    entries = np.array([_entry(memory) for memory in states.memories], ENTRY)
    n = len(states)
    head = np.zeros(n, HEADER)
    head["mark"], head["version"], head["partition"] = _MARK, VERSION, states.partition
    head["offset"], head["seen_ms"] = states.offsets, states.seen_ms
    if all(_of_everyone(memory, n) for memory in states.memories):
        return list(states.streams), _joined_up(head, entries, [memory.rows for memory in states.memories])
    holds = np.zeros((n, len(entries)), np.bool_)
    place = np.zeros((n, len(entries)), np.int64)  # of the stream among those that a memory is of
    for m, memory in enumerate(states.memories):
        holds[memory.index, m] = True
        place[memory.index, m] = np.arange(len(memory.index))
    values: list[bytes | None] = [None] * n
    kind = holds @ (1 << np.arange(len(entries), dtype=np.int64))
    for one in np.unique(kind).tolist():  # streams that have the same memories have values of one width
        some = np.flatnonzero(kind == one)
        mine = np.flatnonzero(holds[some[0]])
        rows = [states.memories[m].rows[place[some, m]] for m in mine.tolist()]
        for row, value in zip(some.tolist(), _joined_up(head[some], entries[mine], rows), strict=True):
            values[row] = value
    return list(states.streams), values


def _of_everyone(memory: ModelState, n: int) -> bool:
    return len(memory.index) == n and bool((memory.index == np.arange(n)).all())


def _joined_up(
    head: NDArray[np.void], entries: NDArray[np.void], memories: list[NDArray[np.uint8]]
) -> list[bytes | None]:
    """Values of streams that have the same memories: head [n], entries [k], and k memories [n, row_bytes]."""
    head["memories"] = len(entries)
    directory = np.frombuffer(entries.tobytes(), np.uint8)
    columns = [head.view(np.uint8).reshape(len(head), HEADER.itemsize), directory, *memories]
    whole = np.empty((len(head), sum(column.shape[-1] for column in columns)), np.uint8)
    at = 0
    for column in columns:
        whole[:, at : at + column.shape[-1]] = column
        at += column.shape[-1]
    values: list[bytes | None] = whole.view(f"V{at}").ravel().tolist()
    return values


def newest(records: Records) -> Records:
    """The last record of each key, in order of offset: compaction, for what compaction has not reached yet."""
    last = dict(zip(records.keys, range(len(records)), strict=True))
    return records if len(last) == len(records) else records.take(sorted(last.values()))


def _without_sentinel(records: Records) -> Records:
    if sentinels.KEY not in records.keys:
        return records
    return records.take([i for i, key in enumerate(records.keys) if key != sentinels.KEY])


def decode(records: Records, wanted: Mapping[str, tuple[str, int]] | None = None) -> tuple[StateRows, list[bytes]]:
    """State rows and tombstones (streams that ended), each stream in at most one of them: a key's last record wins.
    The sentinel (`services.codecs.sentinels`) is left out.

    wanted: memory -> (layout, bytes) that it must have. Others come back as they are.
    Raises StateRowDamaged for a record without key or a damaged one, StateRowForeign for one of another version or
    partition, and for a memory of `wanted` that is of another layout.
    """
    records = _without_sentinel(newest(records))
    if None in records.keys:
        raise _damaged(records, records.keys.index(None), "has no key", "a stream's name")
    index = np.array([i for i, value in enumerate(records.values) if value is not None], np.int64)
    tombstones: list[Any] = [key for key, value in zip(records.keys, records.values, strict=True) if value is None]
    values = [value for value in records.values if value is not None]
    version = _checked_version(records, index, values)
    if len(old := np.flatnonzero(version == 1)):
        values = [*values]
        for row in old.tolist():
            values[row] = _as_version_2(values[row])
    head = np.frombuffer(b"".join([value[: HEADER.itemsize] for value in values]), HEADER)
    few = (head["memories"] > 0) & (head["memories"] <= _MOST)
    _check(records, index, few, "holds {} memories", head["memories"], f"1 to {_MOST}")
    _check(records, index, head["offset"] >= 0, "goes up to offset {}", head["offset"], "0 or more")
    if not (here := head["partition"] == records.partition).all():
        its = head["partition"][int(np.argmin(here))]
        raise _foreign(records, index[~here], f"was written for partition {its}", str(records.partition))
    found = _memories(records, index, values, head["memories"].astype(np.int64))
    for memory in found:
        if wanted and memory.name in wanted:
            _check_memory(records, index, memory, *wanted[memory.name])
    streams: list[Any] = [records.keys[i] for i in index.tolist()]
    offsets, seen_ms = head["offset"].astype(np.int64), head["seen_ms"].astype(np.int64)
    return StateRows(records.partition, streams, offsets, seen_ms, tuple(found)), tombstones


def _memories(
    records: Records, index: NDArray[np.int64], values: list[bytes], counts: NDArray[np.int64]
) -> list[ModelState]:
    """One for each name, layout and width that occurs."""
    start = HEADER.itemsize
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    alike: dict[bytes, list[int]] = {}  # directory -> rows that have it
    for row, (value, end) in enumerate(zip(values, (start + counts * ENTRY.itemsize).tolist(), strict=True)):
        alike.setdefault(value[start:end], []).append(row)
    found: dict[tuple[bytes, int, int], list[tuple[NDArray[np.int64], NDArray[np.uint8]]]] = {}
    for directory, rows in alike.items():
        entries = np.frombuffer(directory[: len(directory) // ENTRY.itemsize * ENTRY.itemsize], ENTRY)
        width = start + len(directory) + int(entries["bytes"].sum())
        wrong = (lengths[rows] != width) | (counts[rows] != len(entries))
        if wrong.any():
            row = rows[int(np.argmax(wrong))]
            raise _damaged(records, int(index[row]), f"has {len(values[row])} bytes", f"{width}, as its directory says")
        whole = np.frombuffer(b"".join([values[row] for row in rows]), np.uint8).reshape(len(rows), width)
        at = start + len(directory)
        for name, layout, size in entries.tolist():
            found.setdefault((name, layout, size), []).append((np.array(rows, np.int64), whole[:, at : at + size]))
            at += size
    return [
        _joined(name.decode(errors="backslashreplace"), layout, parts) for (name, layout, _), parts in found.items()
    ]


def _joined(name: str, layout: int, parts: list[tuple[NDArray[np.int64], NDArray[np.uint8]]]) -> ModelState:
    if len(parts) == 1:
        return ModelState(name, f"{layout:016x}", *parts[0])
    index = np.concatenate([index for index, _ in parts])
    order = np.argsort(index)
    return ModelState(name, f"{layout:016x}", index[order], np.concatenate([rows for _, rows in parts])[order])


def _checked_version(records: Records, index: NDArray[np.int64], values: list[bytes]) -> NDArray[np.int64]:
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    _check(records, index, lengths >= HEADER.itemsize, "has {} bytes", lengths, "a state row")
    head = np.frombuffer(b"".join([value[: HEADER.itemsize] for value in values]), HEADER)
    _check(records, index, head["mark"] == _MARK, "starts with {}", head["mark"], f"{_MARK!r}, as state rows do")
    version: NDArray[np.int64] = head["version"].astype(np.int64)
    known = (version == VERSION) | ((version == 1) & (lengths >= VERSION_1.itemsize))
    if not known.all():
        rows = index[~known]
        found = f"has version {int(version[int(np.argmin(known))])}"
        raise StateRowOfAnotherVersion(
            records.offsets[rows], _sentence(records, int(rows[0]), found, f"{VERSION} or 1")
        )
    return version


def _as_version_2(value: bytes) -> bytes:
    old = np.frombuffer(value[: VERSION_1.itemsize], VERSION_1)[0]
    head, entry = np.zeros(1, HEADER), np.zeros(1, ENTRY)
    for name in ("mark", "partition", "offset", "seen_ms"):
        head[name] = old[name]
    head["version"], head["memories"] = VERSION, 1
    entry["name"], entry["layout"], entry["bytes"] = old["model"], old["layout"], len(value) - VERSION_1.itemsize
    return head.tobytes() + entry.tobytes() + value[VERSION_1.itemsize :]


def _check_memory(records: Records, index: NDArray[np.int64], memory: ModelState, layout: str, row_bytes: int) -> None:
    if len(memory.index) == 0:
        return
    rows, whose = index[memory.index], f"a memory of {memory.name}"
    if int(memory.layout, 16) != _layout(layout):
        raise _foreign(records, rows, f"holds {whose} in layout {memory.layout}", f"{_layout(layout):016x}")
    if memory.rows.shape[1] != row_bytes:
        raise _foreign(records, rows, f"holds {whose} of {memory.rows.shape[1]} bytes", str(row_bytes))


def _check(
    records: Records,
    index: NDArray[np.int64],
    good: NDArray[np.bool_],
    found: str,
    column: NDArray[Any],
    expected: str,
) -> None:
    """Raises StateRowDamaged for the first row that is not good; `index` [n] is where each stands in `records`."""
    if not good.all():
        row = int(np.argmin(good))
        value = column[row]
        raise _damaged(records, int(index[row]), found.format(_text(value)), expected)


def _text(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    return value.decode() if value.isalnum() and value.isascii() else value.hex()


def _damaged(records: Records, i: int, found: str, expected: str) -> StateRowDamaged:
    return StateRowDamaged(_sentence(records, i, found, expected))


def _foreign(records: Records, rows: NDArray[np.int64], found: str, expected: str) -> StateRowForeign:
    return StateRowForeign(records.offsets[rows], _sentence(records, int(rows[0]), found, expected))


def _sentence(records: Records, i: int, found: str, expected: str) -> str:
    return (
        f"changelog, partition {records.partition}, offset {int(records.offsets[i])}: the record {found}; expected "
        f"{expected}. Serve the model and release that wrote this topic, with the same state.adapt, point "
        "topics.changelog at the pipeline's own topic, or start over with `streamrnn topics start-over`."
    )


def _entry(memory: ModelState) -> tuple[bytes, int, int]:
    name = memory.name
    if not (name.isascii() and 0 < len(name) <= ENTRY["name"].itemsize):
        raise ValueError(f"a memory's name, such as a model id, has 1 to 12 ASCII characters, not {name!r}")
    return name.encode(), _layout(memory.layout), memory.rows.shape[1]


def _layout(fingerprint: str) -> int:
    try:
        found = bytes.fromhex(fingerprint)[:_LAYOUT_BYTES]
    except ValueError:
        found = b""
    if len(found) < _LAYOUT_BYTES:
        raise ValueError(f"a layout is a fingerprint of at least {2 * _LAYOUT_BYTES} hex digits, not {fingerprint!r}")
    return int.from_bytes(found, "big")
