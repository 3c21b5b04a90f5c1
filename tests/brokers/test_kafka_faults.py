"""Whatever happens to connection, broker and process in the middle of a commit: no epoch is lost, torn or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commit_loop import names, offset, texts
from tcp_proxy import TcpProxy, Way
from waiting import wait_for

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import group_offsets, read_topic
from services.brokers.kafka_topics import TopicSpec, create
from services.brokers.watchdog import EXIT_CODE
from services.records import Role

pytestmark = pytest.mark.chaos

TIMEOUT_S = 4.0
ROOT = Path(__file__).parents[2]


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[DevBroker, TcpProxy]]:
    """A broker whose clients stay behind a proxy."""
    with TcpProxy() as proxy:
        broker = DevBroker(tmp_path / "broker", advertised_port=proxy.port, owned=True)
        try:
            broker.start()
            proxy.forward_to(broker.proxied_port)
            yield broker, proxy
        finally:
            broker.kill()


class Committer:
    """The program of commit_loop in a process, started again each time the watchdog or a kill ended it."""

    def __init__(self, bootstrap: str, pipeline: str, epochs: int, way: str, log: Path) -> None:
        script = str(ROOT / "tests" / "support" / "commit_loop.py")
        self.command = [sys.executable, script, bootstrap, pipeline, str(epochs), str(TIMEOUT_S), way]
        self.log = log
        self.exits: list[int] = []
        self.process = self._start()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            return subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)

    def _watch(self) -> None:
        while True:
            self.exits.append(self.process.wait())
            if self.exits[-1] not in (EXIT_CODE, -signal.SIGKILL):
                return
            self.process = self._start()

    def reached(self) -> int:
        """How many epochs it has said that it kept, of all its lives."""
        return self.log.read_text().count("reached")

    def progress(self, epochs: int = 1) -> None:
        """Returns when it has kept so many epochs more, or has ended."""
        goal = self.reached() + epochs
        wait_for(lambda: self.reached() >= goal or self.ended(0), f"epoch {goal} is kept", progress=self.reached)

    def ended(self, within_s: float) -> bool:
        self.thread.join(within_s)
        return not self.thread.is_alive()

    def end(self) -> None:
        """Returns when it has ended by itself."""
        wait_for(lambda: self.ended(0), "all epochs are kept", progress=self.reached)
        assert self.exits[-1] == 0, self.log.read_text()[-3000:]

    def stop(self) -> None:
        self.process.terminate()
        self.thread.join(60)


def check(broker: DevBroker, pipeline: str, epochs: int) -> None:
    """Each epoch once, in order, everywhere."""
    options = {"bootstrap_servers": broker.bootstrap}
    assert group_offsets(options, pipeline, names(pipeline)[Role.READINGS])[0] == offset(epochs)
    for role in (Role.PREDICTIONS, Role.DEAD_LETTERS, Role.CHANGELOG):
        found = read_topic(options, names(pipeline)[role])
        for partition in (0, 1):
            expected = [text for epoch in range(partition, epochs, 2) for text in texts(role, epoch)]
            assert found[partition].values == expected, (role, partition)


@pytest.mark.parametrize("way", ["BULK", pytest.param("SEND", marks=pytest.mark.slow)])
def test_commits_survive_cut_and_stalled_connections_and_kills(
    proxied: tuple[DevBroker, TcpProxy], topic_names: Callable[[], str], tmp_path: Path, way: str, seed: int
) -> None:
    broker, proxy = proxied
    pipeline, epochs = topic_names(), 400
    create({"bootstrap_servers": broker.bootstrap}, TopicSpec(names(pipeline), 2))
    chance = random.Random(seed)
    committer = Committer(proxy.bootstrap, pipeline, epochs, way, tmp_path / "log")

    def stall(way: Way, longest_s: float) -> Callable[[], None]:
        def do() -> None:
            proxy.stall(way)
            time.sleep(chance.uniform(0.01, longest_s))
            proxy.resume()

        return do

    def cut() -> None:
        proxy.cut()
        time.sleep(chance.uniform(0, 0.3))
        proxy.heal()

    faults = [
        *[cut] * 5,
        stall(Way.TO_CLIENT, 1.0),
        stall(Way.BOTH, TIMEOUT_S / 2),
        lambda: proxy.half_close(Way.TO_BROKER),
        lambda: proxy.half_close(Way.TO_CLIENT),
        lambda: committer.process.kill(),
    ]
    try:
        committer.progress()
        while not committer.ended(chance.uniform(0.05, 0.6)):
            before = committer.reached()
            for _ in range(chance.randint(1, 3)):  # the later ones fall into what the first one left to be settled
                chance.choice(faults)()
                committer.ended(chance.uniform(0.05, 0.6))
            committer.progress(before + 1 - committer.reached())  # so a slow machine has no more of them, an epoch
        committer.end()
    except BaseException:
        print(committer.log.read_text()[-6000:])
        raise
    finally:
        committer.stop()
    check(broker, pipeline, epochs)


def test_commits_survive_the_broker_being_killed(
    own_broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path, seed: int
) -> None:
    pipeline, epochs = topic_names(), 300
    create({"bootstrap_servers": own_broker.bootstrap}, TopicSpec(names(pipeline), 2))
    chance = random.Random(seed)
    committer = Committer(own_broker.bootstrap, pipeline, epochs, "BULK", tmp_path / "log")
    try:
        for _ in range(4):
            committer.progress(10)
            time.sleep(chance.uniform(0, 0.1))
            own_broker.kill()
            own_broker.start()
        committer.end()
    except BaseException:
        print(committer.log.read_text()[-6000:])
        raise
    finally:
        committer.stop()
    check(own_broker, pipeline, epochs)
