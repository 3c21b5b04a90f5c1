"""JSON readings -> columns. Two paths that agree: a compiled one that says yes, and one that explains every no.

The compiled path (one msgspec call a record) accepts a subset of the contract at full speed and refuses the rest
without a reason; what it refuses goes to `readings_contract`. Invariant: whatever the compiled path accepts, the
contract accepts with equal values, so a record's fate does not depend on the path or on its neighbours. May import
msgspec, numpy and `services.records`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, repeat
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.codecs.readings_contract import MAX_SEQ, VERSION, JsonContract, Reading, times
from services.codecs.refusal import Refusal, Why
from services.codecs.schema import MAX_SYMBOL_BYTES, UNKNOWN_SYMBOL, Schema
from services.records import NO_SEQ, Reason, SequenceEnd

PACKED = b"\xff"
"""First byte of an Arrow IPC stream, and of no UTF-8 text."""

MAX_BYTES, FEATURE_BYTES = 1 << 20, 64
"""What a value may have, in bytes, and how much more for each feature, beside its name with every character escaped."""

_ESCAPED = re.compile(r'["\\\x00-\x1f]')  # what msgspec does not take in the name of a field
_SURE = range(1, MAX_SYMBOL_BYTES // 4 + 1)  # characters that are never too many bytes, nor too few


@dataclass(frozen=True, slots=True)
class JsonColumns:
    """Accepted JSON readings of one poll."""

    index: NDArray[np.int64]  # [k], which of the given values
    at_ms: NDArray[np.int64]  # [k]
    x: NDArray[np.float32]  # [k, features], NaN = null or absent
    seq: NDArray[np.int64]  # [k]
    end: NDArray[np.uint8]  # [k], values of SequenceEnd


class JsonReadings:
    """Decodes values against one schema. Cheap to call, not cheap to make."""

    def __init__(self, schema: Schema) -> None:
        self._features = schema.features
        self._most_bytes = MAX_BYTES + sum(FEATURE_BYTES + 6 * len(name.encode()) for name in schema.features)
        self._contract = JsonContract(schema)
        self._numbers: dict[str | None, float] | None = None
        if schema.symbolic:
            self._numbers = {None: float("nan")}
            self._numbers.update(schema.numbers())
        self._compiled = _compiled(schema)

    def oversized(self, values: Sequence[bytes | None]) -> dict[int, Why]:
        """Why values are larger than a reading can be, by row: a parser would take a second for a few MiB, and many
        times their size. One pass in C when none is.
        """
        try:
            largest = max(map(len, values), default=0)  # type: ignore[arg-type]
        except TypeError:  # tombstones; to look for them first would cost as much again
            largest = max(map(len, filter(None, values)), default=0)
        if largest <= self._most_bytes:
            return {}
        found: dict[int, Why] = {}
        for i, value in enumerate(values):
            if value is not None and len(value) > self._most_bytes and value[:1] != PACKED:
                limit = f"a JSON reading of this model has at most {self._most_bytes:,}; send one reading a record"
                found[i] = Why(Reason.TOO_LARGE, f"The value has {len(value):,} bytes; {limit}.")
        return found

    def decode(
        self, values: Sequence[bytes | None], progress: Callable[[], object] = lambda: None
    ) -> tuple[JsonColumns, dict[int, Why], list[int]]:
        """The readings among the values, why others are none, and the indices of those that are not text at all
        (tombstones and packed records). Every index is in exactly one of the three; all are in order. `progress` is
        told before each value that is looked at closely, which may take a second.
        """
        taken: list[Any] = []
        odd: list[int] = []
        compiled, take = self._compiled, taken.append
        for value in values:
            if value is None:
                odd.append(len(taken))
                take(None)
                continue
            try:
                take(compiled(value))
            except (ValueError, TypeError, RecursionError):  # msgspec's errors, bad UTF-8
                odd.append(len(taken))
                take(None)
        index = np.arange(len(taken))
        refusals: dict[int, Why] = {}
        others: list[int] = []
        if odd:  # not where the error is raised: a second one would hold on to the first
            for i in odd:
                value = values[i]
                if value is None or value[:1] == PACKED:
                    others.append(i)
                    continue
                progress()
                try:
                    taken[i] = self._contract.read(value)
                except Refusal as refusal:
                    refusals[i] = refusal.why
            index = np.delete(index, [*refusals, *others])
            taken = [taken[i] for i in index.tolist()]
        at_ms, bad = times([reading.at for reading in taken])
        rows = [reading.x for reading in taken]
        end = _ends([reading.end for reading in taken])
        if msgspec.UnsetType in (kinds := set(map(type, rows))):
            bare = np.fromiter([row is msgspec.UNSET for row in rows], np.bool_, len(rows))
            bad |= bare & (end == SequenceEnd.NONE)
            end[bare] = SequenceEnd.END_ONLY
            rows = [(None,) * len(self._features) if row is msgspec.UNSET else row for row in rows]
        if self._numbers is None:
            x = self._matrix(rows, kinds)
        else:
            x, unsure = _symbols(rows, kinds, self._numbers)
            bad[unsure] = True
        seq = _sequences([reading.seq for reading in taken])
        bad |= np.isinf(x).any(axis=1)
        if bad.any():
            for i in index[bad].tolist():
                progress()
                if isinstance(why := self._second_look(values[i]), Why):
                    refusals[i] = why
            refusals = dict(sorted(refusals.items()))
            good = ~np.isin(index, list(refusals))
            index, at_ms, x, seq, end = index[good], at_ms[good], x[good], seq[good], end[good]
        return JsonColumns(index, at_ms, x, seq, end), refusals, others

    def sample(self) -> bytes:
        """A good reading all of whose values are missing."""
        return b'{"at":0,"x":[%s]}' % b",".join([b"null"] * len(self._features))

    def _second_look(self, value: bytes | None) -> Reading | Why | None:
        if value is None or value[:1] == PACKED:
            return None
        try:
            return self._contract.read(value)
        except Refusal as refusal:
            return refusal.why

    def _matrix(self, rows: list[Any], kinds: set[type]) -> NDArray[np.float32]:
        """Rows as tuples or by-name structs -> [n, features]; beyond float32 -> inf."""
        if kinds - {tuple}:
            rows = [row if type(row) is tuple else msgspec.structs.astuple(row) for row in rows]
        n, width = len(rows), len(self._features)
        with np.errstate(over="ignore"):
            return np.fromiter(chain.from_iterable(rows), np.float32, n * width).reshape(n, width)


def _compiled(schema: Schema) -> Any:
    """What decodes one value as a reading, or raises."""
    # Hazard: msgspec 0.22 reads wild memory where a tuple stands beside a string whose length is constrained.
    value: Any = str | None if schema.symbolic else float | None
    x: Any = tuple[(value,) * len(schema.features)]  # type: ignore[misc]
    if not any(_ESCAPED.search(name) for name in schema.features):  # else x by name is left to the contract
        names = [f"f{i}" for i in range(len(schema.features))]
        x |= msgspec.defstruct(
            "ByName",
            [(field, value, None) for field in names],
            rename=dict(zip(names, schema.features, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
    if schema.symbolic:
        x |= value
    whole = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
    reading: Any = msgspec.defstruct(
        "Reading",
        [
            ("at", int | float | datetime),
            ("x", x | msgspec.UnsetType, msgspec.UNSET),
            ("seq", whole | None, NO_SEQ),
            ("end", bool | None, False),
            ("v", Literal[1], VERSION),
        ],
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(reading).decode


def _symbols(
    rows: list[Any], kinds: set[type], numbers: Mapping[str | None, float]
) -> tuple[NDArray[np.float32], list[int]]:
    """Rows as symbols, tuples of one or by-name structs -> numbers [n, 1], None -> NaN; and which rows may have a wrong
    length.
    """
    if kinds - {str}:
        rows = [_one(row) for row in rows]
    x = np.fromiter(map(numbers.get, rows, repeat(UNKNOWN_SYMBOL)), np.float32, len(rows))
    unsure = [i for i in np.flatnonzero(x == UNKNOWN_SYMBOL).tolist() if len(rows[i]) not in _SURE]
    return x.reshape(-1, 1), unsure


def _one(row: Any) -> str | None:
    if row is None or type(row) is str:
        return row
    symbol: str | None = (row if type(row) is tuple else msgspec.structs.astuple(row))[0]
    return symbol


def _sequences(seq: list[int | None]) -> NDArray[np.int64]:
    """Sequence numbers [n], null -> NO_SEQ."""
    if None in seq:
        seq = [NO_SEQ if number is None else number for number in seq]
    return np.fromiter(seq, np.int64, len(seq))


def _ends(end: list[bool | None]) -> NDArray[np.uint8]:
    """Values of SequenceEnd [n], which say nothing of bare ends yet; null -> none."""
    if not any(end):
        return np.zeros(len(end), np.uint8)
    return np.fromiter(map(bool, end), np.uint8, len(end))
