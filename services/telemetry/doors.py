"""Whom the telemetry port answers: requests for its own names only, and so many connections. Standard library only."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Collection
from contextlib import suppress

MOST_CALLERS = 64
"""Connections, and so threads, at a time. A page holds one, Prometheus one, a probe one for a moment."""


class Doors:
    """Names that a request may be for.

    A page of another site can give its own name this address, and then read what is served here (DNS rebinding): its
    browser says that name. An address is no name that could be given; and a name without a dot is given by this
    network, not by a site.
    """

    def __init__(self, host: str, names: Collection[str]) -> None:
        self._names = {"localhost", host.lower(), *names}

    def stranger(self, host: str | None) -> str | None:
        """The name that a request is for, where that is nobody's here. host: the header Host; None: there was none."""
        name = (host or "").strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") < 2:
            name = name.partition(":")[0]
        name = name.rstrip(".")
        if "." not in name or name in self._names or name.endswith(".localhost"):
            return None
        with suppress(ValueError):
            ipaddress.ip_address(name)
            return None
        return name[:253]


class Callers:
    """The connections there are. One too many, and the oldest of the address that has most is cut off: so whoever opens
    many and says little stands in nobody's way but its own.
    """

    def __init__(self, most: int = MOST_CALLERS) -> None:
        self._most, self._lock = most, threading.Lock()
        self._there: dict[socket.socket, str] = {}  # the oldest first

    def came(self, caller: socket.socket, address: str) -> None:
        """Takes in a connection from that address."""
        with self._lock:
            self._there[caller] = address
            if len(self._there) <= self._most:
                return
            crowd = Counter(self._there.values()).most_common(1)[0][0]
            oldest = next(one for one, of in self._there.items() if of == crowd)
            del self._there[oldest]
            with suppress(OSError):  # wakes its thread, which then ends
                oldest.shutdown(socket.SHUT_RDWR)

    def left(self, caller: socket.socket) -> None:
        """It has ended."""
        with self._lock:
            self._there.pop(caller, None)
