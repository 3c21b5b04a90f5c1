"""`streamrnn serve` as a value: checks the topics, runs the fleet, shows it on one port. The demo uses it as well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from services.fleet.assembly import topic_names
from services.fleet.same_topics import SameTopics
from services.fleet.supervisor import Supervisor
from services.predictor.ports import Refused, Unsettled
from services.settings import Settings
from services.telemetry import traces

Notify = Callable[..., None]


class Server:
    """One pipeline being served. `start`, then `run` until `stop` is called from another thread or a signal."""

    def __init__(self, settings: Settings, notify: Notify) -> None:
        self.settings, self._notify = settings, notify
        self._stop = threading.Event()
        self._endpoint: Any = None
        self._collector: Any = None
        self._live: Any = None
        self._beat_s = time.monotonic()  # last tick, for /healthz
        self._awaited = "the broker and its topics"
        self._same = SameTopics(settings, topic_names(settings), notify)
        self.supervisor: Supervisor | None = None

    @property
    def url(self) -> str:
        """Where the telemetry pages are; empty before `start`."""
        return "" if self._endpoint is None else f"{self._endpoint.url}/metrics"

    def start(self) -> None:
        """Opens the port, waits for the broker and for Ray's head as long as it takes, checks topics and model, starts
        the fleet. Raises Refused naming the setting, NotJoined, or returns early when stopped meanwhile.
        """
        traces.check(self.settings)
        self._open_endpoint()
        partitions = self._wait_for_topics()
        if partitions is None or not self._wait_for_ray():
            return
        supervisor = Supervisor(self.settings, partitions, self._notify)
        supervisor.start()
        self.supervisor = supervisor

    def run(self) -> None:
        """Ticks until stopped. Raises Fenced, Refused or HeadLost when this server must leave."""
        while not self._stop.is_set() and self.supervisor is not None:
            try:
                self.supervisor.tick()
            except Refused:
                self._same.look()  # a topic that was made anew looks like lost readings to a shard
                self._same.check()
                raise
            self._same.check()
            self._beat_s = time.monotonic()
            self._show(self.supervisor)

    def _show(self, supervisor: Supervisor) -> None:
        stats = {status.shard: status.stats for status in supervisor.statuses()}
        restarts, about = supervisor.restarts(), supervisor.pipeline()
        self._live.saw(stats, restarts, about, supervisor.points())
        self._collector.update(stats, restarts, about, self._live.latest())

    def stop(self) -> None:
        """Makes `run` return; may be called from a signal handler."""
        self._stop.set()

    def close(self) -> None:
        """Ends the fleet in order, then closes the port."""
        self._same.stop()
        if self.supervisor is not None:
            self.supervisor.stop()
        if self._endpoint is not None:
            self._endpoint.stop()

    def ready(self) -> list[str]:
        """Why it is not ready; empty when every shard is restored and moving."""
        if self.supervisor is None:
            return [f"waiting for {self._awaited}"]
        return [*self._same.unready(), *self.supervisor.unready()]

    def _wait_for_topics(self) -> int | None:
        from services.brokers import kafka_topics

        names = topic_names(self.settings)
        while not self._stop.is_set():
            self._beat_s = time.monotonic()
            try:
                findings = kafka_topics.check(self.settings.kafka, kafka_topics.spec(self.settings, names))
                break
            except Unsettled as error:
                self._notify("broker_away", error=str(error), retry_s=1.0)
                self._stop.wait(1.0)
        else:
            return None
        for finding in findings:
            if finding.severity == "warn":
                self._notify("topic_warning", topic=finding.topic, setting=finding.setting, found=finding.found,
                             needed=finding.needed, fix=finding.fix)  # fmt: skip
        if refused := [str(finding) for finding in findings if finding.severity == "refuse"]:
            raise Refused("; ".join(refused))
        self._same.start()
        return kafka_topics.partition_count(self.settings.kafka, names)

    def _wait_for_ray(self) -> bool:
        """Becomes a node of the Ray that is named, where the settings say so. False: stopped meanwhile."""
        from services.fleet.on_ray import prepare
        from services.fleet.ray_head import answers, become_node

        address, flags = self.settings.fleet.ray_address, self.settings.fleet.ray_node
        if flags is None:
            return True
        if address is None or "://" in address or ":" not in address:
            raise Refused("fleet.ray_node: there is a node to make only where `fleet.ray_address` is HOST:6379")
        self._awaited = f"Ray's head at {address}"
        if not answers(address):
            self._notify("ray_head_away", address=address, retry_s=1.0)
        while not answers(address):
            self._beat_s = time.monotonic()
            if self._stop.wait(1.0):
                return False
        self._beat_s = time.monotonic()
        prepare()
        become_node(address, flags)
        self._awaited = "the fleet to start"
        return not self._stop.is_set()

    def _open_endpoint(self) -> None:
        from services.telemetry.collector import StatsCollector, new_registry
        from services.telemetry.endpoint import Endpoint, Health
        from services.telemetry.live import Live
        from services.telemetry.page import Page

        registry = new_registry()
        self._collector = StatsCollector(registry)

        def health() -> Health:
            silent_s = time.monotonic() - self._beat_s
            hopeless = self.supervisor is not None and self.supervisor.hopeless()
            return Health(alive=silent_s < 30 and not hopeless, unready=self.ready())

        told = self.settings.telemetry
        self._live = Live(self.settings.pipeline, told.spotlight, health)
        self._endpoint = Endpoint(registry, health, told.host, told.port, Page(self._live.document), told.names)
        self._endpoint.start()
        self._notify("listening", url=self._endpoint.url, port=self._endpoint.port)
