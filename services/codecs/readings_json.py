"""JSON readings -> columns. Two paths that agree: a compiled one that says yes, and one that explains every no.

The compiled path (one msgspec call a record) accepts a subset of the contract at full speed and refuses the rest
without a reason; what it refuses goes to `readings_contract`. Invariant: whatever the compiled path accepts, the
contract accepts with equal values, so a record's fate does not depend on the path or on its neighbours. May import
msgspec, numpy and `services.records`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.codecs.readings_contract import MAX_SEQ, VERSION, JsonContract, Reading, times
from services.codecs.refusal import Refusal, Why
from services.records import NO_SEQ

PACKED = b"\xff"
"""First byte of an Arrow IPC stream, and of no UTF-8 text."""

_ESCAPED = re.compile(r'["\\\x00-\x1f]')  # what msgspec does not take in the name of a field


@dataclass(frozen=True, slots=True)
class JsonColumns:
    """Accepted JSON readings of one poll."""

    index: NDArray[np.int64]  # [k], which of the given values
    at_ms: NDArray[np.int64]  # [k]
    x: NDArray[np.float32]  # [k, features], NaN = null or absent
    seq: NDArray[np.int64]  # [k]


class JsonReadings:
    """Decodes values against one feature schema. Cheap to call, not cheap to make."""

    def __init__(self, features: Sequence[str]) -> None:
        self._features = tuple(features)
        if not self._features or len(set(self._features)) != len(self._features):
            raise ValueError(f"features must be distinct and at least one, not {features!r}")
        self._contract = JsonContract(self._features)
        number = float | None
        x: Any = tuple[(number,) * len(self._features)]  # type: ignore[misc]
        if not any(_ESCAPED.search(name) for name in self._features):  # else x by name is left to the contract
            names = [f"f{i}" for i in range(len(self._features))]
            x |= msgspec.defstruct(
                "ByName",
                [(field, number, None) for field in names],
                rename=dict(zip(names, self._features, strict=True)),
                forbid_unknown_fields=True,
                gc=False,
            )
        whole = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
        reading: Any = msgspec.defstruct(
            "Reading",
            [
                ("at", int | float | datetime),
                ("x", x),
                ("seq", whole | None, NO_SEQ),
                ("v", Literal[1], VERSION),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._compiled = msgspec.json.Decoder(reading).decode

    def decode(self, values: Sequence[bytes | None]) -> tuple[JsonColumns, dict[int, Why], list[int]]:
        """The readings among the values, why others are none, and the indices of those that are not text at all
        (tombstones and packed records). Every index is in exactly one of the three; all are in order.
        """
        taken: list[Any] = []
        odd: list[int] = []
        compiled, take = self._compiled, taken.append
        for value in values:
            try:
                take(compiled(value))  # type: ignore[arg-type]
            except (ValueError, TypeError, RecursionError):  # msgspec's errors, bad UTF-8, a tombstone
                odd.append(len(taken))
                take(self._second_look(value))
        index = np.arange(len(taken))
        refusals: dict[int, Why] = {}
        others: list[int] = []
        if odd:
            refusals = {i: taken[i] for i in odd if isinstance(taken[i], Why)}
            others = [i for i in odd if taken[i] is None]
            index = np.delete(index, [*refusals, *others])
            taken = [taken[i] for i in index.tolist()]
        at_ms, bad = times([reading.at for reading in taken])
        x = self._matrix([reading.x for reading in taken])
        seq = _sequences([reading.seq for reading in taken])
        bad |= np.isinf(x).any(axis=1)
        if bad.any():
            for i in index[bad].tolist():
                refusals[i] = self._second_look(values[i])  # type: ignore[assignment]
            refusals = dict(sorted(refusals.items()))
            good = ~bad
            index, at_ms, x, seq = index[good], at_ms[good], x[good], seq[good]
        return JsonColumns(index, at_ms, x, seq), refusals, others

    def _second_look(self, value: bytes | None) -> Reading | Why | None:
        if value is None or value[:1] == PACKED:
            return None
        try:
            return self._contract.read(value)
        except Refusal as refusal:
            return refusal.why

    def _matrix(self, rows: list[Any]) -> NDArray[np.float32]:
        """Rows as tuples or by-name structs -> [n, features]; beyond float32 -> inf."""
        if set(map(type, rows)) - {tuple}:
            rows = [row if type(row) is tuple else msgspec.structs.astuple(row) for row in rows]
        n, width = len(rows), len(self._features)
        with np.errstate(over="ignore"):
            return np.fromiter(chain.from_iterable(rows), np.float32, n * width).reshape(n, width)


def _sequences(seq: list[int | None]) -> NDArray[np.int64]:
    """Sequence numbers [n], null -> NO_SEQ."""
    if None in seq:
        seq = [NO_SEQ if number is None else number for number in seq]
    return np.fromiter(seq, np.int64, len(seq))
