"""What the page of a server asks for once a second, as JSON. Imports orjson."""

from __future__ import annotations

from typing import Any

import orjson


def encode(document: Any) -> bytes:
    """JSON of plain values and arrays, which may be slices; NaN becomes null."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
