"""One port for those who watch: the page for people, /metrics for Prometheus, /healthz and /readyz for whoever restarts
and routes.
"""

from __future__ import annotations

import errno
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client import CollectorRegistry

from services.redaction import scrubbed
from services.telemetry.doors import Callers, Doors
from services.telemetry.exposition import CONTENT_TYPE, exposed
from services.telemetry.page import Page

SLOW_CLIENT_S = 10.0
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer. A page gets what this server itself has, and nothing else; nobody frames it."""
INDEX = (
    "streamrnn\n\n/metrics  for Prometheus\n/healthz  200 while the process is alive\n/readyz   200 once it serves\n"
)


@dataclass(frozen=True, slots=True)
class Health:
    """`alive`: False when only a restart helps. `unready`: why it does not serve, a sentence each; empty: it does."""

    alive: bool = True
    unready: list[str] = field(default_factory=list)


class CannotListen(Exception):
    """Remedy: change `telemetry.host` or `telemetry.port`, as the message says."""


class Endpoint:
    """Serves `registry` and what `health` says, from `start` to `stop`. Use as a context manager or by hand."""

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Callable[[], Health],
        host: str,
        port: int,
        page: Page | None = None,
        names: Collection[str] = (),
    ) -> None:
        """names: further ones, beside `host`, that a request may be for."""
        self.host = host
        self._asked_port = port
        self._answers = _Routes(registry, health, page, Doors(host, names))
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; with 0 in the settings, the one that was free."""
        return self._asked_port if self._server is None else int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where the index page is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def start(self) -> None:
        """Listens. Raises CannotListen."""
        try:
            family, *_, address = socket.getaddrinfo(
                self.host, self._asked_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _Server(family, address, self._answers)
        except OSError as error:
            raise CannotListen(self._why(error)) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="telemetry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Frees the port. May be called twice, or before `start`."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> Endpoint:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _why(self, error: OSError) -> str:
        place = f"{self.host}:{self._asked_port}"
        if error.errno == errno.EADDRINUSE:
            return f"telemetry.port: {place} is taken by another program; choose another port, or 0 for any free one"
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"telemetry.port: this user may not listen on {place}; choose a port above 1023"
        return f"telemetry.host: cannot listen on {place} ({error.strerror}); give an address of this machine"


class _Routes:
    """Path -> status, content type and body."""

    def __init__(
        self, registry: CollectorRegistry, health: Callable[[], Health], page: Page | None, doors: Doors
    ) -> None:
        self._registry, self._health, self._page, self._doors = registry, health, page, doors

    def answer(self, path: str, query: str, host: str | None) -> tuple[int, str, bytes]:
        if (stranger := self._doors.stranger(host)) is not None:
            return 421, "text/plain", f"telemetry.names: {stranger} is not among them\n".encode()
        if self._page is not None and (found := self._page.answer(path, query)):
            return 200, *found
        if path == "/metrics":
            try:
                return 200, CONTENT_TYPE, exposed(self._registry)
            except Exception as error:  # Prometheus shows the status beside the target
                return 500, "text/plain", f"metrics cannot be read: {type(error).__name__}: {error}\n".encode()
        if path in ("/healthz", "/readyz"):
            try:
                health = self._health()
            except Exception as error:  # a probe must get an answer, whatever broke
                health = Health(alive=False, unready=[f"the check itself failed: {type(error).__name__}"])
            good = health.alive and (path == "/healthz" or not health.unready)
            words = {
                "alive": health.alive,
                "ready": health.alive and not health.unready,
                "reasons": [*map(scrubbed, health.unready)],
            }
            return 200 if good else 503, "application/json", json.dumps(words).encode() + b"\n"
        return (200, "text/plain", INDEX.encode()) if path == "/" else (404, "text/plain", INDEX.encode())


class _Server(socketserver.ThreadingTCPServer):
    """A thread a connection, and few of them. Unlike http.server.HTTPServer it asks no name server at the start."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, family: int, address: Any, answers: _Routes) -> None:
        self.address_family = family
        self.answers = answers
        self._callers = Callers()
        super().__init__(address, _Request)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Too many connections: the one that it says ends, and its thread with it. Who probes always gets in."""
        self._callers.came(request, client_address[0])
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._callers.left(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave in the middle are their own business."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SLOW_CLIENT_S
    server: _Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        path = path.rstrip("/") or "/"
        status, content_type, body = self.server.answers.answer(path, query, self.headers.get("Host"))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Probes come every few seconds; they are not events."""
