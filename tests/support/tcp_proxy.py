"""A TCP proxy between client and broker that misbehaves on demand. Imports the standard library and `free_ports`.

Kafka clients go back to the address that a broker advertises. To keep them behind the proxy:

    proxy = TcpProxy()
    broker = DevBroker(folder, advertised_port=proxy.port).start()
    proxy.forward_to(broker.proxied_port)
    client = ...(bootstrap_servers=proxy.bootstrap)
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, cast

from services.brokers.devbroker.server_settings import free_ports


class Way(enum.Flag):
    """A direction of bytes, named by where they go."""

    TO_BROKER = enum.auto()
    TO_CLIENT = enum.auto()
    BOTH = TO_BROKER | TO_CLIENT


class TcpProxy:
    """Listens on 127.0.0.1:`port`. Every method returns when its effect is in place; any thread may call it."""

    def __init__(self, target_port: int = 0, port: int | None = None) -> None:
        self.port = port or free_ports(1)[0]
        self.target_port = target_port
        self.stalled = Way(0)
        self.pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"tcp-proxy-{self.port}", daemon=True)
        self._thread.start()
        self._do(self._listen())

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self.pairs)

    def forward_to(self, target_port: int) -> None:
        """Where connections go from now on."""
        self.target_port = target_port

    def stall(self, way: Way = Way.BOTH) -> None:
        """Bytes of these directions no longer get through; connections stay open, new ones are accepted. `TO_CLIENT`
        alone lets requests be carried out whose answers never come.
        """
        self._do(self._gate(self.stalled | way))

    def resume(self) -> None:
        """What was held back flows on, nothing of it lost."""
        self._do(self._gate(Way(0)))

    def cut(self) -> None:
        """Resets every connection (RST) and refuses new ones."""
        self._do(self._cut())

    def heal(self) -> None:
        """Ends `cut` and `stall`."""
        self._do(self._heal())

    def half_close(self, way: Way) -> None:
        """Ends this direction of every open connection: the receiver sees the end of the stream, the other direction
        goes on, and what is still sent this way is swallowed.
        """
        self._do(self._half_close(way))

    def close(self) -> None:
        """Resets what is open and ends the proxy."""
        if self._thread.is_alive():
            self._do(self._cut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # All below runs on the proxy's own thread -----------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=300)

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(
            lambda: _Pair(self).client, "127.0.0.1", self.port, reuse_address=True
        )

    async def _gate(self, stalled: Way) -> None:
        self.stalled = stalled
        for pair in self.pairs:
            pair.set_flow()

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for pair in list(self.pairs):
            pair.reset()
        # Transports close their sockets in the loop's next round; the caller may rely on the RST being out.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _heal(self) -> None:
        await self._gate(Way(0))
        if self._server is None:
            await self._listen()

    async def _half_close(self, way: Way) -> None:
        for pair in self.pairs:
            for end in (pair.client, pair.broker):
                if end.receives & way:
                    end.finish()


class _Pair:
    """One client's connection and ours to the broker for it."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.client = _End(self, Way.TO_CLIENT)
        self.broker = _End(self, Way.TO_BROKER)

    def opened(self, end: _End) -> None:
        if end is self.client:
            self.proxy.pairs.add(self)
            self._connecting = asyncio.ensure_future(self._connect())
        self.set_flow()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.broker, "127.0.0.1", self.proxy.target_port)
        except OSError:
            self.reset()
            return
        if self not in self.proxy.pairs:  # the client has left meanwhile
            self.broker.reset()

    def set_flow(self) -> None:
        """Reads from an end only what may be written to the other one now."""
        for source, sink in ((self.client, self.broker), (self.broker, self.client)):
            if source.transport is None or source.transport.is_closing():
                continue
            if sink.transport is None or sink.is_full or self.proxy.stalled & sink.receives:
                source.transport.pause_reading()
            else:
                source.transport.resume_reading()

    def reset(self) -> None:
        self.proxy.pairs.discard(self)
        self.client.reset()
        self.broker.reset()


class _End(asyncio.Protocol):
    """One of a pair's two sockets."""

    def __init__(self, pair: _Pair, receives: Way) -> None:
        self.pair = pair
        self.receives = receives
        self.transport: asyncio.Transport | None = None
        self.is_full = False
        self.is_finished = False

    @property
    def other(self) -> _End:
        return self.pair.broker if self is self.pair.client else self.pair.client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.pair.opened(self)
        if self.is_finished:  # half-closed while connecting
            self.transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self.other.send(lambda transport: transport.write(data))

    def eof_received(self) -> bool:
        self.other.finish()
        return not self.is_finished  # keep the socket for the other direction while that is open

    def connection_lost(self, error: Exception | None) -> None:
        self.pair.proxy.pairs.discard(self.pair)
        if error is not None:
            self.other.reset()
        elif self.other.transport is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        self.is_full = True
        self.pair.set_flow()

    def resume_writing(self) -> None:
        self.is_full = False
        self.pair.set_flow()

    def send(self, write: Callable[[asyncio.Transport], None]) -> None:
        if self.transport is not None and not self.is_finished and not self.transport.is_closing():
            write(self.transport)

    def finish(self) -> None:
        self.send(lambda transport: transport.write_eof())
        self.is_finished = True

    def reset(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        open_socket: socket.socket = self.transport.get_extra_info("socket")
        open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
        self.transport.abort()
