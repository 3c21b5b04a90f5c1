"""Whatever happens to connection, broker and process in the middle of a commit: no epoch is lost, torn or doubled."""

from __future__ import annotations

import os
import random
import re
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

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import group_offsets, read_topic
from services.brokers.kafka_topics import TopicSpec, create
from services.brokers.watchdog import EXIT_CODE
from services.records import Role

pytestmark = [pytest.mark.timeout(280), pytest.mark.chaos]

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

    def progress(self) -> None:
        """Returns when it has come further than it was."""
        seen = len(re.findall("reached", self.log.read_text()))
        while len(re.findall("reached", self.log.read_text())) == seen and not self.ended(0.05):
            pass

    def ended(self, timeout_s: float) -> bool:
        self.thread.join(timeout_s)
        return not self.thread.is_alive()

    def stop(self) -> None:
        self.process.terminate()
        self.thread.join(10)


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
            chance.choice(faults)()
        assert committer.exits[-1] == 0, committer.log.read_text()[-3000:]
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
            committer.progress()
            time.sleep(chance.uniform(0, 0.1))
            own_broker.kill()
            own_broker.start()
        assert committer.ended(200)
        assert committer.exits[-1] == 0
    except BaseException:
        print(committer.log.read_text()[-6000:])
        raise
    finally:
        committer.stop()
    check(own_broker, pipeline, epochs)
