"""One exchange in Kafka's protocol by hand: each side sends a length, then so many bytes. Imports nothing of others."""

from __future__ import annotations

import socket
import struct

MOST_BYTES = 1 << 20
"""Of an answer; more is no answer to any question that is asked here."""


def answer(connection: socket.socket, request: bytes) -> bytes:
    """What comes back for a request, both without their lengths. Raises OSError, struct.error."""
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    if not 4 <= size < MOST_BYTES:
        raise ConnectionError("this is not Kafka's protocol")
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("closed while answering")
        received += part
    return received
