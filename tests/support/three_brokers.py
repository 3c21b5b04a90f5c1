"""Three brokers on this machine, each its own controller too. Every topic has three replicas, two of them in sync.

For what one broker cannot show: leaders and coordinators that move.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest
from waiting import wait_for

from services.brokers.devbroker import DevBroker
from services.brokers.devbroker.broker import new_cluster_id
from services.brokers.devbroker.server_settings import free_ports
from services.brokers.kafka_connect import open_admin

NODES = (1, 2, 3)
SETTINGS = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
}


class ThreeBrokers:
    """Use as a context manager. `session_ms` is how long a silent broker stays leader and coordinator (Kafka's default:
    9 s); a broker tells of itself four times in it.
    """

    def __init__(self, folder: Path, session_ms: int = 9_000) -> None:
        ports = free_ports(9)
        voters = ",".join(f"{node}@127.0.0.1:{ports[3 * at + 1]}" for at, node in enumerate(NODES))
        cluster = new_cluster_id()
        session = {
            "broker.session.timeout.ms": str(session_ms),
            "broker.heartbeat.interval.ms": str(session_ms // 4),
        }
        self.nodes: dict[int, DevBroker] = {}
        for at, node in enumerate(NODES):
            own = folder / f"broker-{node}"
            own.mkdir(parents=True)
            known = dict(zip(("clients", "controller", "proxied"), ports[3 * at : 3 * at + 3], strict=True))
            (own / "broker.json").write_text(json.dumps(known))  # the others must know its ports before it starts
            quorum = {"node.id": str(node), "controller.quorum.voters": voters}
            self.nodes[node] = DevBroker(own, owned=True, overrides={**SETTINGS, **session, **quorum}, cluster=cluster)

    def __enter__(self) -> ThreeBrokers:
        try:
            with ThreadPoolExecutor(len(NODES)) as pool:  # one alone is no quorum
                list(pool.map(DevBroker.start, self.nodes.values()))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all of them."""
        for broker in self.nodes.values():
            broker.kill()

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.nodes.values())

    def coordinator(self, transactional_id: str) -> int | None:
        """The node that has the say over this id, as the brokers that run see it; None while nobody has."""
        running = [broker.bootstrap for broker in self.nodes.values() if broker.alive()]
        client = KafkaNetClient(bootstrap_servers=running, request_timeout_ms=2_000)
        try:
            client.check_version()
            request = FindCoordinatorRequest(
                key_type=CoordinatorType.TRANSACTION.value, coordinator_keys=[transactional_id], min_version=4
            )
            answer = client.send_and_receive(client.least_loaded_node(), request, 2_000).coordinators[0]
            return None if answer.error_code else int(answer.node_id)
        except KafkaError:
            return None
        finally:
            client.close()

    def controller(self) -> int:
        """The node that says which broker is coordinator when one is lost."""
        with open_admin({"bootstrap_servers": self.bootstrap}) as admin:
            return int(admin.describe_metadata_quorum()["topics"][0]["partitions"][0]["leader_id"])

    def await_coordinator(self, transactional_id: str, other_than: int | None) -> None:
        """Returns once the brokers name a node that is not the one that is gone."""
        wait_for(lambda: self.coordinator(transactional_id) not in (None, other_than), "another coordinator")

    def await_in_sync(self) -> None:
        """Returns once every replica of every topic is in sync: any one broker can be lost then."""
        with open_admin({"bootstrap_servers": self.bootstrap}) as admin:

            def in_sync() -> bool:
                partitions = [one for topic in admin.describe_topics() for one in topic["partitions"]]
                return all(len(partition["isr_nodes"]) == len(NODES) for partition in partitions)

            wait_for(in_sync, "all replicas are in sync")
