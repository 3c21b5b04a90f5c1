"""A login that was refused waits before it is tried again, in all clients of this process together.

The client library logs in anew as often as it is asked for a connection, many times a second; brokers, and the
directories behind them, lock accounts for that. Where it has another kind of network client, clients are made as it
makes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

FIRST_S, LONGEST_S = 5.0, 60.0
"""Wait after the first refusal of a login; it doubles with each one up to the longest."""


class Gate:
    """Logins with one set of settings. Any thread may call it."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s, self._lock = clock_s, threading.Lock()
        self._wait_s = self._until_s = 0.0
        self.error: Exception | None = None
        """The last refusal; None: the last login was let in."""

    def refused(self, error: Exception) -> None:
        """A login was refused. Several that were under way at the same time count as one."""
        with self._lock:
            self.error, now_s = error, self._clock_s()
            if now_s >= self._until_s:
                self._wait_s = min(LONGEST_S, 2 * self._wait_s or FIRST_S)
                self._until_s = now_s + self._wait_s

    def passed(self) -> None:
        """A login was let in."""
        with self._lock:
            self.error, self._wait_s, self._until_s = None, 0.0, 0.0

    def wait_s(self) -> float:
        """For how long nobody is to log in; 0: now."""
        return max(0.0, self._until_s - self._clock_s())


_gates: dict[int, Gate] = {}


def gate_of(arguments: Mapping[str, Any]) -> Gate:
    """The gate that all clients with these brokers, this mechanism and these credentials share."""
    names = sorted(name for name in arguments if name.startswith("sasl_") or name == "bootstrap_servers")
    of = {name: arguments[name] for name in names}
    told = tuple((name, str(its) if isinstance(its, str | list) else type(its).__name__) for name, its in of.items())
    return _gates.setdefault(hash(told), Gate())


class Connections(KafkaConnectionManager):
    """Opens no connection while the gate is shut. Who is just opening a client hears why at once."""

    gate: Gate

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        return _to_its_last_word(await super()._build_transport(node, timeout_at=timeout_at))

    async def _connect(self, node: Any, conn: Any, **named: Any) -> None:
        await super()._connect(node, conn, **named)
        ended = conn.init_future
        if ended.succeeded():
            self.gate.passed()
        elif isinstance(ended.exception, kafka_errors.SaslAuthenticationFailedError):
            self.gate.refused(ended.exception)

    def get_connection(self, node_id: Any, *given: Any, **named: Any) -> Any:
        if self.gate.wait_s() and not self.bootstrapped and self.gate.error is not None:
            raise self.gate.error
        return super().get_connection(node_id, *given, **named)

    def connection_delay(self, node_id: Any) -> float:
        if (conn := self._conns.get(node_id)) is not None and conn.connected:
            return float(super().connection_delay(node_id))
        return float(max(super().connection_delay(node_id), self.gate.wait_s()))


def _to_its_last_word(transport: Any) -> Any:
    """Hazard: the library throws away what arrives together with the end of a connection, and a broker that refuses a
    login says why and hangs up. Here the end is read after it.
    """
    receive = transport._sock_recv

    def data_before_end() -> tuple[bytes, Exception | None]:
        data, error = receive()
        return (data, None) if data else (data, error)

    transport._sock_recv = data_before_end
    return transport


def client(kind: Any, arguments: Mapping[str, Any], **configs: Any) -> Any:
    """The network client of a consumer, producer or admin client (`kind`), its logins behind a gate."""
    its = kind.DEFAULT_CONFIG["kafka_client"]
    if not issubclass(its, KafkaNetClient) or "SASL" not in str(arguments.get("security_protocol", "")):
        return its(**configs)
    net = NetworkSelector(**configs)
    connections = Connections(net, **configs)
    connections.gate = gate_of(arguments)
    return its(net=net, manager=connections, **configs)
