"""Arrays -> readings as JSON, as a producer would write them: for tests, backtests and replays. Imports orjson."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray


def encode(
    x: NDArray[np.float32],
    at_ms: NDArray[np.int64],
    end: NDArray[np.uint8] | None = None,
    words: Sequence[str] | None = None,
) -> list[bytes]:
    """One value of a record for each of n readings of a stream.

    x [n, features] in raw units, NaN = missing; or `words` [n], symbols, of which the empty one is missing. at_ms [n];
    end [n], not 0 = the sequence ends with that reading.
    """
    ends = [0] * len(at_ms) if end is None else end.tolist()
    given: Iterable[Any] = np.ascontiguousarray(x) if words is None else (word or None for word in words)
    return [
        orjson.dumps(
            {"at": at, "x": one, "end": True} if over else {"at": at, "x": one}, None, orjson.OPT_SERIALIZE_NUMPY
        )
        for at, one, over in zip(at_ms.tolist(), given, ends, strict=True)
    ]
