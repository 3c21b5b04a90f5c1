"""Whatever happens to connection, broker and process in the middle of a commit: no epoch is lost, torn or doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commit_loop import names
from committer import Committer, check
from tcp_proxy import TcpProxy, Way

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_changelog import KafkaChangelog
from services.brokers.kafka_client import ColumnProducer
from services.brokers.kafka_topics import TopicSpec, create
from services.predictor.ports import Retriable
from services.records import Role

pytestmark = pytest.mark.chaos

TIMEOUT_S = 4.0


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


LONG = (pytest.mark.long, pytest.mark.timeout(7200))  # make chaos


@pytest.mark.parametrize(
    ("way", "epochs"),
    [("BULK", 100), pytest.param("BULK", 400, marks=LONG), pytest.param("SEND", 400, marks=LONG)],
    ids=["some", "BULK", "SEND"],
)
def test_commits_survive_cut_and_stalled_connections_and_kills(
    proxied: tuple[DevBroker, TcpProxy],
    topic_names: Callable[[], str],
    tmp_path: Path,
    way: str,
    epochs: int,
    seed: int,
) -> None:
    broker, proxy = proxied
    pipeline = topic_names()
    create({"bootstrap_servers": broker.bootstrap}, TopicSpec(names(pipeline), 2))
    chance = random.Random(seed)
    committer = Committer(proxy.bootstrap, pipeline, epochs, way, tmp_path / "log", TIMEOUT_S)

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
    check(broker.bootstrap, pipeline, epochs)


def test_commits_survive_the_broker_being_killed(
    own_broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path, seed: int
) -> None:
    pipeline, epochs = topic_names(), 300
    create({"bootstrap_servers": own_broker.bootstrap}, TopicSpec(names(pipeline), 2))
    chance = random.Random(seed)
    committer = Committer(own_broker.bootstrap, pipeline, epochs, "BULK", tmp_path / "log", TIMEOUT_S)
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
    check(own_broker.bootstrap, pipeline, epochs)


def test_a_restore_that_loses_its_broker_is_unsettled_and_reads_it_all_the_next_time(
    proxied: tuple[DevBroker, TcpProxy],
) -> None:
    broker, proxy = proxied
    options = {"bootstrap_servers": proxy.bootstrap}
    create(options, TopicSpec({Role.CHANGELOG: "long"}, 1, 1))
    keys, values = [b"%d" % n for n in range(2000)], [bytes([n % 256]) * 9000 for n in range(2000)]
    with ColumnProducer({"bootstrap_servers": broker.bootstrap}) as producer:
        for first in range(0, 2000, 100):
            producer.append("long", 0, keys[first : first + 100], values[first : first + 100], 1)
        producer.flush()
    changelog = KafkaChangelog(options, "long")
    try:
        pieces = changelog.read(0)
        assert 0 < len(next(pieces)) < 2000
        proxy.cut()
        with pytest.raises(Retriable):
            list(pieces)
        with pytest.raises(Retriable):
            changelog.span(0)
        proxy.heal()
        while True:
            try:
                read = [key for records in changelog.read(0) for key in records.keys]
                break
            except Retriable:
                continue  # the client is connecting anew
        assert read == keys
    finally:
        changelog.close()
