"""The development broker: Apache Kafka in a process of its own, its data and its identity in one folder.

Lives here: start, stop, kill, restart. May import the other modules of this package and the standard library.
"""

from __future__ import annotations

import base64
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from services.brokers.devbroker import former_self, jars, os_process, wire
from services.brokers.devbroker.errors import EndedWhileStarting, StartFailed
from services.brokers.devbroker.identity import Identity
from services.brokers.devbroker.os_process import ProcessId
from services.brokers.devbroker.quick_start import archive_flags
from services.brokers.devbroker.server_settings import (
    Ports,
    controller_properties,
    free_ports,
    is_taken,
    server_properties,
)

# The quick compiler alone (C1). Beside both compilers a start and everything up to 7.5 million records and 4,000
# transactions took a fifth less processor time, which a small machine needs elsewhere; later 0.2 us a record more.
_JVM = (
    "-Xmx400m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
_LOGGING = ("showDateTime=true", "dateTimeFormat=HH:mm:ss.SSS", "log.org.apache.kafka.common.config=warn")
_LOG_BYTES = 16 << 20


def new_cluster_id() -> str:
    """22 letters, the first an A: one that begins with "-" would be read as an option."""
    return base64.urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("=")


class DevBroker:
    """A real one-node Kafka on 127.0.0.1.

    All that belongs to it lies in `folder`: `data/`, `broker.log`, `server.properties` and `broker.json` with the
    process and the ports, by which another process can find and stop it. A second DevBroker over the same folder is
    the same broker.

    port: where clients connect; None keeps the folder's port, or picks a free one.
    advertised_port: opens a second listener (`proxied_port`) whose clients are told to come back to this port, which is
        a proxy's. Without it a client that came through a proxy would go round it from its second connection on.
    host: the name by which other machines know this one: then they may connect, too. None: this machine only.
    owned: the broker never outlives this process, not even when that is killed.
    overrides: server settings that take precedence.
    cluster: id (22 letters) of the cluster that it is a node of; None: it is one by itself. Its node.id and the
        quorum stand in `overrides` then, and its former self is the other nodes' to fence.
    cache: where the jars are; None means $STREAMRNN_CACHE or the user's cache folder.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        owned: bool = False,
        advertised_port: int | None = None,
        host: str | None = None,
        overrides: Mapping[str, str] | None = None,
        cluster: str | None = None,
        cache: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "broker.log"
        self._port = port
        self._owned = owned
        self._advertised_port, self._host = advertised_port, host
        self._overrides, self._cluster = dict(overrides or {}), cluster
        self._cache = (cache or jars.default_cache()).absolute()
        self._data = self.folder / "data"
        self._identity = Identity(self.folder)
        self._child: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._flags: list[str] | None = None  # None: those of a quick start

    def start(self, timeout_s: float = 60.0) -> DevBroker:
        """Returns when clients can connect. Does nothing to a broker that runs already.

        The first start on a machine also fetches Kafka (43 MB, once). Raises JarsMissing, JarDamaged or StartFailed.
        """
        class_path = jars.class_path(self._cache)
        flags = self._flags if self._flags is not None else archive_flags(self._cache, _JVM, class_path, self._rehearse)
        self.folder.mkdir(parents=True, exist_ok=True)
        with jars.locked(self.folder / "lock"):
            if self.alive():
                with suppress(EndedWhileStarting):  # Hazard: one that has just been killed is alive for a moment yet.
                    self._await_service(timeout_s)
                    return self
            try:
                self._launch(class_path, flags)
                try:
                    self._await_service(timeout_s)
                except EndedWhileStarting:
                    # Hazard: on a busy machine Kafka's election can go against a broker that was killed; not twice.
                    self._launch(class_path, flags)
                    self._await_service(timeout_s)
            except BaseException:
                self.kill()
                raise
        return self

    def stop(self, timeout_s: float = 20.0) -> None:
        """Ends the broker in order (SIGTERM), or not (SIGKILL) when it takes longer than `timeout_s`."""
        process = self._process()
        if process is not None:
            process.signal(signal.SIGTERM)
            if not os_process.ended(process, self._child, timeout_s):
                self.kill()
        self._forget_child()

    def kill(self) -> None:
        """SIGKILL: the crash that tests ask for. Returns when the process is gone."""
        process = self._process()
        if process is not None:
            process.signal(signal.SIGKILL)
            os_process.ended(process, self._child, 10.0)
        self._forget_child()

    def restart(self, timeout_s: float = 60.0) -> None:
        """Stops it if it runs, and starts it on the same ports and data."""
        self.stop()
        self.start(timeout_s)

    def alive(self) -> bool:
        """Whether the process runs, whoever started it."""
        return self._process() is not None

    def answers(self) -> bool:
        """Whether it serves clients at this moment."""
        return self.alive() and wire.serves(self._identity.ports().clients)

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        process = self._process()
        return None if process is None else process.pid

    @property
    def bootstrap(self) -> str:
        """What clients connect to, running or not."""
        return f"127.0.0.1:{self._identity.ports().clients}"

    @property
    def proxied_port(self) -> int:
        """Where the proxy behind `advertised_port` has to connect to."""
        return self._identity.ports().proxied

    def __enter__(self) -> DevBroker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _process(self) -> ProcessId | None:
        """Our own child while it runs, even when its folder has been deleted; else what the folder says."""
        if self._child is not None and self._child.poll() is None:
            return ProcessId.of(self._child.pid)
        return self._identity.process()

    # Starting -----------------------------------------------------------------------------------------------------

    def _choose_ports(self) -> Ports:
        known = self._identity.read()
        fresh = free_ports(3)
        clients = self._port or known.get("clients") or fresh[0]
        ports = Ports(
            clients=clients,
            controller=known.get("controller") or fresh[1],
            proxied=known.get("proxied") or fresh[2],
            advertised=self._advertised_port,
        )
        for port in (ports.clients, ports.controller):
            if is_taken(port):
                raise StartFailed(
                    f"port {port} is taken by another process: end that one, or choose another port or folder"
                )
        return ports

    def _launch(self, class_path: list[Path], flags: list[str]) -> None:
        self._forget_child()  # one that others have killed
        crashed = (self._data / "meta.properties").exists() and not (self._data / ".kafka_cleanshutdown").exists()
        ports = self._choose_ports()
        properties = self.folder / "server.properties"
        properties.write_text(server_properties(self._data, ports, self._overrides, self._host))
        java = [str(jars.java()), *_JVM, *(f"-Dorg.slf4j.simpleLogger.{it}" for it in _LOGGING)]
        java += ["-cp", ":".join(map(str, class_path))]
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        if crashed and self._cluster is None:
            self._fence_former_self([*java, *flags], ports)
        with self.log.open("ab") as log:
            if not (self._data / "meta.properties").exists():
                self._format([*java, *(flags if self._flags is None else [])], properties, log.fileno())
            self._child = self._run([*java, *flags], properties, log.fileno())
        if self._owned:
            self._guard = os_process.guard(self._child.pid)
        process = ProcessId.of(self._child.pid)
        if process is not None:
            self._identity.write(ports, process)

    def _run(self, java: list[str], properties: Path, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*java, "kafka.Kafka", str(properties)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent
        )

    def _fence_former_self(self, java: list[str], ports: Ports) -> None:
        properties = self.folder / "controller.properties"
        properties.write_text(controller_properties(self._data, ports, self._overrides))

        def start(path: Path) -> subprocess.Popen[bytes]:
            with path.open("wb") as log:
                return self._run(java, properties, log.fileno())

        former_self.fence(start, self.folder / "controller.log")

    def _rehearse(self, flags: list[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="streamrnn-rehearsal-") as folder:
            broker = DevBroker(Path(folder), owned=True, cache=self._cache)
            broker._flags = flags
            try:
                broker.start()
            finally:
                broker.stop(timeout_s=120.0)  # the JVM writes its archive when it ends

    def _format(self, java: list[str], properties: Path, log: int) -> None:
        command = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        command += ["--cluster-id", self._cluster or new_cluster_id(), "--config", str(properties)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode != 0:
            raise StartFailed(f"Kafka could not prepare its data folder {self._data}. {self._log_end()}")

    def _await_service(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            if not self.alive():
                raise EndedWhileStarting(f"the broker ended while starting. {self._log_end()}")
            if wire.serves(self._identity.ports().clients):
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"the broker does not answer after {timeout_s:g} s. {self._log_end()}")
            time.sleep(0.02)

    def _log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        loud = [line for line in lines if " ERROR " in line or "Exception" in line or line.startswith("Error")]
        return f"The end of {self.log}:\n" + "\n".join((loud or lines)[-5:])

    def _forget_child(self) -> None:
        os_process.call_off(self._guard)
        self._guard = None
        if self._child is not None:
            self._child.wait()
            self._child = None
