"""The broker's server.properties and its ports. Imports the standard library and `former_self`."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.brokers.devbroker.former_self import CONTROLLER_ALONE

_LOWEST_PORT = 20000


@dataclass(frozen=True, slots=True)
class Ports:
    """All on 127.0.0.1. They stay with the folder, so that clients find a restarted broker where it was."""

    clients: int
    controller: int
    proxied: int  # where a proxy connects to
    advertised: int | None  # the proxy's own port, told to clients that came through it


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, from below the range that the kernel hands to outgoing connections.

    A port of that range could be taken, while the broker is down, by a client that tries to reach it: the client would
    then be connected to itself and the broker could not come back.
    """
    try:
        highest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) - 1
    except OSError:
        highest = 32767
    span = range(_LOWEST_PORT, highest) if highest - _LOWEST_PORT > 100 else range(_LOWEST_PORT, 65536)
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().choice(span)
        if port not in found and not is_taken(port):
            found.append(port)
    return found


def is_taken(port: int) -> bool:
    """True when a listener on 127.0.0.1:`port` would be refused."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def server_properties(data: Path, ports: Ports, overrides: Mapping[str, str], host: str | None = None) -> str:
    """One node that is broker and controller, internal topics small and with one replica. Everything on loopback, but
    where `host` says by which name other machines know this one.
    """
    listeners = [f"CLIENTS://127.0.0.1:{ports.clients}"]
    advertised = list(listeners)
    if host is not None:  # the broker itself never leaves its machine: its name may not lead here yet
        listeners = [f"CLIENTS://0.0.0.0:{ports.clients}", f"PROXIED://127.0.0.1:{ports.proxied}"]
        advertised = [f"CLIENTS://{host}:{ports.clients}", listeners[1]]
    elif ports.advertised is not None:
        listeners.append(f"PROXIED://127.0.0.1:{ports.proxied}")
        advertised.append(f"PROXIED://127.0.0.1:{ports.advertised}")
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{ports.controller}",
        "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{ports.controller}"]),
        "advertised.listeners": ",".join(advertised),
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENTS" if host is None else "PROXIED",
        "log.dirs": str(data),
        # One node: every internal topic has one replica. Few partitions: each is loaded at every start.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "2",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        # An abandoned transaction ends soon after its timeout, not up to 10 s later.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # The cleaner's default of 128 MiB would be a third of the heap.
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
        **overrides,
    }
    return _text(settings)


def controller_properties(data: Path, ports: Ports, overrides: Mapping[str, str]) -> str:
    """The same node as a controller alone, which fences its broker soon (`former_self`)."""
    own = {
        "process.roles": "controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{ports.controller}",
        "listeners": f"CONTROLLER://127.0.0.1:{ports.controller}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data),
    }
    return _text({**overrides, **own, **CONTROLLER_ALONE})


def _text(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())
