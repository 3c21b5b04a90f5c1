"""The one question asked of a starting broker: do you know of a broker that serves? Kafka's protocol by hand, so that
`streamrnn broker` needs no client library. Imports the standard library and `framing`.
"""

from __future__ import annotations

import socket
import struct

from services.brokers import framing

_METADATA, _VERSION = 3, 4


def serves(port: int, timeout_s: float = 2.0) -> bool:
    """True once the broker at 127.0.0.1:`port` answers a metadata request and counts itself among the brokers.

    An open port is not enough: a broker accepts connections before the controller lets it serve.
    """
    client = b"streamrnn"
    body = struct.pack(">hhih", _METADATA, _VERSION, 1, len(client)) + client + struct.pack(">i?", 0, False)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            answer = framing.answer(connection, body)
            _correlation, _throttle_ms, brokers = struct.unpack_from(">iii", answer)
    except (OSError, struct.error):
        return False
    return bool(brokers > 0)
