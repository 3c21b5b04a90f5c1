"""The proxy that tests put between client and broker does to a connection what its methods say, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from tcp_proxy import TcpProxy, Way

STALL_S = 0.2  # how long "nothing comes" is watched; too short would only make these tests weaker


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends every byte back and closes when the client has finished."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.fixture
def proxy(echo_port: int) -> Iterator[TcpProxy]:
    with TcpProxy(echo_port) as running:
        yield running


@pytest.fixture
def client(proxy: TcpProxy) -> Iterator[socket.socket]:
    with connect(proxy) as connection:
        assert exchange(connection, b"hello") == b"hello"
        yield connection


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=300)


def receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (part := connection.recv(size - len(received))):
        received += part
    return received


def exchange(connection: socket.socket, data: bytes) -> bytes:
    sending = threading.Thread(target=connection.sendall, args=(data,), daemon=True)
    sending.start()
    received = receive(connection, len(data))
    sending.join()
    return received


@contextlib.contextmanager
def two_ends() -> Iterator[tuple[TcpProxy, socket.socket, socket.socket]]:
    """A proxy, a client's socket and the broker's socket for it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        TcpProxy(server.getsockname()[1]) as proxy,
        connect(proxy) as client,
        server.accept()[0] as broker_side,
    ):
        yield proxy, client, broker_side


def nothing_comes(connection: socket.socket) -> bool:
    connection.settimeout(STALL_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(300)
    return False


def test_megabytes_pass_unchanged(client: socket.socket) -> None:
    data = bytes(range(256)) * 40_000
    assert exchange(client, data) == data


def test_stalled_bytes_arrive_after_resume(proxy: TcpProxy, client: socket.socket) -> None:
    proxy.stall()
    client.sendall(b"late")
    assert nothing_comes(client)
    proxy.resume()
    assert receive(client, 4) == b"late"


def test_a_connection_made_while_stalled_works_after_resume(proxy: TcpProxy) -> None:
    proxy.stall()
    with connect(proxy) as connection:
        connection.sendall(b"early")
        assert nothing_comes(connection)
        proxy.resume()
        assert receive(connection, 5) == b"early"


def test_a_stall_to_the_client_lets_requests_through() -> None:
    with two_ends() as (proxy, client, broker_side):
        proxy.stall(Way.TO_CLIENT)
        client.sendall(b"request")
        assert receive(broker_side, 7) == b"request"
        broker_side.sendall(b"answer")
        assert nothing_comes(client)
        proxy.resume()
        assert receive(client, 6) == b"answer"


def test_cut_resets_and_refuses_until_healed(proxy: TcpProxy, client: socket.socket) -> None:
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    assert proxy.connections == 0
    proxy.heal()
    with connect(proxy) as again:
        assert exchange(again, b"back") == b"back"


def test_half_closed_to_the_client_ends_only_that_direction() -> None:
    with two_ends() as (proxy, client, broker_side):
        proxy.half_close(Way.TO_CLIENT)
        assert client.recv(1) == b""
        client.sendall(b"still heard")
        assert receive(broker_side, 11) == b"still heard"


def test_half_closed_to_the_broker_ends_only_that_direction() -> None:
    with two_ends() as (proxy, client, broker_side):
        proxy.half_close(Way.TO_BROKER)
        assert broker_side.recv(1) == b""
        broker_side.sendall(b"still heard")
        assert receive(client, 11) == b"still heard"


def test_the_end_of_a_client_is_passed_on(client: socket.socket) -> None:
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 100) == b"last"


def test_a_dead_target_resets_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with TcpProxy(port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)
