"""`streamrnn serve` as a value: checks the topics, runs the fleet, shows it on one port. The demo uses it as well.

Where partitions are added to the readings the fleet starts anew over all of them; the server, its port and its page
stay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from services.fleet.assembly import topic_names
from services.fleet.status import Stopped
from services.fleet.supervisor import Supervisor
from services.fleet.topic_watch import TopicWatch
from services.predictor.patience import Patience
from services.predictor.ports import Refused
from services.quality.pipeline import PipelineStats
from services.settings import Settings
from services.telemetry import traces

Notify = Callable[..., None]

TICK_S, START_S = 30.0, 120.0
"""A server that is silent for longer hangs: between two looks at its fleet, and in one step of starting it."""


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
        self._watch = TopicWatch(settings, notify)
        self._away = ""  # why the broker does not answer, while it is waited for
        self._patiently = Patience(self._pause, self._say_away, self._beat)
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
        with suppress(Stopped):
            partitions = self._wait_for_topics()
            if self._wait_for_ray():
                self._await("the fleet to start")
                self._start_fleet(partitions)

    def run(self) -> None:
        """Ticks until stopped. Raises Fenced, Refused or HeadLost when this server must leave."""
        with suppress(Stopped):
            while not self._stop.is_set() and self.supervisor is not None:
                try:
                    self.supervisor.tick()
                except Refused:
                    self._watch.look()  # a topic that was made anew looks like lost readings to a shard
                    self._watch.check()
                    raise
                self._watch.check()
                self._beat()
                self._show(self.supervisor)
                self._take_in_partitions()

    def _start_fleet(self, partitions: int, before: int = 0) -> None:
        """Returns once the shards have begun. A broker that goes away meanwhile is waited for. `before`: how many
        partitions were served until now.
        """
        self._watch.serve(partitions)
        supervisor = Supervisor(self.settings, partitions, self._notify, before)
        try:
            self._patiently(supervisor.start)
        except BaseException:
            supervisor.stop()
            raise
        self.supervisor = supervisor

    def _take_in_partitions(self) -> None:
        """Ends the fleet in order and starts another one, where partitions of the readings were added."""
        grown, supervisor = self._watch.grown, self.supervisor
        if supervisor is None or grown is None or grown.lacking:
            return
        self._await(f"the fleet to start anew with all {grown.partitions} partitions")
        self.supervisor = None
        self._collector.update({}, supervisor.restarts(), PipelineStats(unread_partitions=self._watch.unread))
        supervisor.stop()
        self._start_fleet(grown.partitions, grown.served)

    def _show(self, supervisor: Supervisor) -> None:
        stats = {status.shard: status.stats for status in supervisor.statuses()}
        self._watch.behind = {partition for one in stats.values() for partition, n in one.lag.items() if n}
        restarts, about = supervisor.restarts(), supervisor.pipeline()
        about.unread_partitions = self._watch.unread
        self._live.saw(stats, restarts, about, supervisor.points())
        self._collector.update(stats, restarts, about, self._live.latest())

    def stop(self) -> None:
        """Makes `run` return; may be called from a signal handler."""
        self._stop.set()

    def close(self) -> None:
        """Ends the fleet in order, then closes the port."""
        self._watch.stop()
        if self.supervisor is not None:
            self.supervisor.stop()
        if self._endpoint is not None:
            self._endpoint.stop()

    def ready(self) -> list[str]:
        """Why it is not ready; empty when every shard is restored and moving."""
        if self.supervisor is None:
            return [f"waiting for {self._awaited}{f': {self._away}' if self._away else ''}"]
        return [*self._watch.unready(), *self.supervisor.unready()]

    def _await(self, what: str) -> None:
        self._beat()
        self._awaited, self._away = what, ""

    def _beat(self) -> None:
        self._beat_s = time.monotonic()

    def _say_away(self, event: str, **fields: Any) -> None:
        self._notify(event, **fields)
        self._away = str(fields["error"])

    def _pause(self, wait_s: float) -> None:
        if self._stop.wait(wait_s):
            raise Stopped

    def _wait_for_topics(self) -> int:
        from services.brokers import kafka_topics

        names = topic_names(self.settings)
        wanted = kafka_topics.spec(self.settings, names)
        findings = self._patiently(lambda: kafka_topics.check(self.settings.kafka, wanted))
        for finding in findings:
            if finding.severity == "warn":
                self._notify("topic_warning", topic=finding.topic, setting=finding.setting, found=finding.found,
                             needed=finding.needed, fix=finding.fix)  # fmt: skip
        if refused := [str(finding) for finding in findings if finding.severity == "refuse"]:
            raise Refused("; ".join(refused))
        self._watch.start()
        return self._patiently(lambda: kafka_topics.partition_count(self.settings.kafka, names))

    def _wait_for_ray(self) -> bool:
        """Becomes a node of the Ray that is named, where the settings say so. False: stopped meanwhile."""
        from services.fleet.ray_head import answers, become_node
        from services.fleet.ray_runtime import prepare

        address, flags = self.settings.fleet.ray_address, self.settings.fleet.ray_node
        if flags is None:
            return True
        if address is None or "://" in address or ":" not in address:
            raise Refused("fleet.ray_node: there is a node to make only where `fleet.ray_address` is HOST:6379")
        self._await(f"Ray's head at {address}")
        if not answers(address):
            self._notify("ray_head_away", address=address, retry_s=1.0)
        while not answers(address):
            self._beat()
            if self._stop.wait(1.0):
                return False
        self._beat()
        prepare()
        become_node(address, flags)
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
            if self.supervisor is None:
                return Health(alive=silent_s < START_S, unready=self.ready())
            return Health(alive=silent_s < TICK_S and not self.supervisor.hopeless(), unready=self.ready())

        told = self.settings.telemetry
        self._live = Live(self.settings.pipeline, told.spotlight, health)
        self._endpoint = Endpoint(registry, health, told.host, told.port, Page(self._live.document), told.names)
        self._endpoint.start()
        self._notify("listening", url=self._endpoint.url, port=self._endpoint.port)
