"""The development broker is a real Kafka that starts, ends, crashes and comes back as its user expects."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from tcp_proxy import TcpProxy
from typer.testing import CliRunner
from waiting import wait_for

from services.brokers.devbroker import DevBroker, JarDamaged, JarsMissing, StartFailed, default_cache
from services.brokers.devbroker.jars import KAFKA_VERSION, class_path, digests
from services.brokers.devbroker.os_process import ProcessId, ended
from services.cli.broker import app


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fetch over the network is refused."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For brokers that outlive their starter; whatever runs in it at the end of the test is killed."""
    yield tmp_path
    DevBroker(tmp_path).kill()


def create_topic(bootstrap: str, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    admin.close()


def write(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    sent = [producer.send(topic, value, partition=0) for value in values]
    producer.flush()
    for one in sent:
        one.get(timeout=300)
    producer.close()


def read(bootstrap: str, topic: str) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    consumer.assign([partition])
    end = consumer.end_offsets([partition])[partition]
    values: list[bytes] = []
    while consumer.position(partition) < end:
        for records in consumer.poll(timeout_ms=1000).values():
            values += [record.value for record in records]
    consumer.close()
    return values


def test_records_survive_a_crash_and_the_address_stays(own_broker: DevBroker, topic_names: Callable[[], str]) -> None:
    bootstrap, pid, topic = own_broker.bootstrap, own_broker.pid, topic_names()
    create_topic(bootstrap, topic)
    write(bootstrap, topic, [b"before"])
    own_broker.kill()
    assert not own_broker.alive()
    own_broker.start()
    assert (own_broker.bootstrap, own_broker.pid != pid) == (bootstrap, True)
    write(bootstrap, topic, [b"after"])
    assert read(bootstrap, topic) == [b"before", b"after"]


def test_records_survive_an_ordered_restart(own_broker: DevBroker, topic_names: Callable[[], str]) -> None:
    bootstrap, topic = own_broker.bootstrap, topic_names()
    create_topic(bootstrap, topic)
    write(bootstrap, topic, [b"kept"])
    own_broker.restart()
    assert own_broker.bootstrap == bootstrap
    assert read(bootstrap, topic) == [b"kept"]


def test_a_broker_that_others_killed_is_started_again(own_broker: DevBroker) -> None:
    pid = own_broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert own_broker.start().answers()
    assert own_broker.pid != pid


def test_a_broker_that_ends_while_it_starts_is_started_once_more(tmp_path: Path) -> None:
    broker = DevBroker(tmp_path / "shot", owned=True)
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(broker.start)
        try:
            first = wait_for(lambda: broker.pid, "its process runs")
            os.kill(first, signal.SIGKILL)
            assert started.result().answers() and broker.pid != first
        finally:
            broker.kill()


def test_a_broker_whose_folder_was_deleted_can_still_be_ended(tmp_path: Path) -> None:
    broker = DevBroker(tmp_path / "gone", owned=True).start()
    pid = broker.pid
    assert pid is not None
    shutil.rmtree(broker.folder, ignore_errors=True)
    broker.kill()
    assert ProcessId.of(pid) is None


def test_two_brokers_side_by_side_are_two(
    broker: DevBroker, own_broker: DevBroker, topic_names: Callable[[], str]
) -> None:
    topic = topic_names()
    for one, value in ((broker, b"shared"), (own_broker, b"own")):
        create_topic(one.bootstrap, topic)
        write(one.bootstrap, topic, [value])
    assert read(broker.bootstrap, topic) == [b"shared"]
    assert read(own_broker.bootstrap, topic) == [b"own"]


def test_starting_a_running_broker_changes_nothing(broker: DevBroker) -> None:
    pid = broker.pid
    assert broker.start().pid == pid
    assert DevBroker(broker.folder).start().pid == pid


def test_an_owned_broker_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from services.brokers.devbroker import DevBroker;"
        "print(DevBroker(pathlib.Path(sys.argv[1]), owned=True).start().pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        process = ProcessId.of(int(owner.stdout.readline()))
        assert process is not None
        owner.kill()
    assert ended(process, None, timeout_s=300)
    assert not DevBroker(tmp_path).alive()


def test_another_shell_finds_and_stops_a_broker(folder: Path) -> None:
    """Start, status and stop are separate processes; exit statuses as documented."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from services.cli.broker import app; app()", *words, "--folder", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("status").returncode == 3
    started = run("start")
    broker = DevBroker(folder)
    assert started.returncode == 0
    assert broker.bootstrap in started.stdout
    again = run("start")
    assert again.returncode == 0
    assert "already" in again.stdout
    assert run("status").returncode == 0
    assert run("stop").returncode == 0
    assert run("status").returncode == 3
    assert run("stop").returncode == 0
    assert not broker.alive()


def test_the_port_can_be_chosen_and_is_kept(folder: Path) -> None:
    from services.brokers.devbroker.server_settings import free_ports

    (port,) = free_ports(1)
    DevBroker(folder, port).start().stop()
    assert DevBroker(folder).bootstrap == f"127.0.0.1:{port}"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartFailed, match=f"port {port} is taken"):
            DevBroker(tmp_path, port).start()


def test_a_refused_server_setting_is_quoted_from_the_log(tmp_path: Path) -> None:
    broker = DevBroker(tmp_path, owned=True, overrides={"num.io.threads": "-1"})
    with pytest.raises(StartFailed, match=r"num\.io\.threads"):
        broker.start()
    assert not broker.alive()


def test_a_recycled_process_number_is_not_taken_for_the_broker(tmp_path: Path) -> None:
    state = {"clients": 20001, "controller": 20002, "proxied": 20003, "advertised": None}
    stranger = {"pid": os.getpid(), "started_ticks": 1}
    (tmp_path / "broker.json").write_text(json.dumps(state | stranger))
    broker = DevBroker(tmp_path)
    assert not broker.alive()
    broker.kill()  # must not end this process
    assert CliRunner().invoke(app, ["status", "--folder", str(tmp_path)]).exit_code == 3


def all_threads_stand(pid: int) -> bool:
    """SIGSTOP is under way when `kill` returns: a thread that waits for a core answers one request more."""
    states = (stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat"))
    return set(states) == {"T"}


def test_status_tells_a_hung_broker_from_a_serving_one(own_broker: DevBroker) -> None:
    pid = own_broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: all_threads_stand(pid), "the broker stands still", progress=lambda: None)
        told = CliRunner().invoke(app, ["status", "--folder", str(own_broker.folder)])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert told.exit_code == 4
    assert "does not answer" in told.output


def test_clients_of_a_proxy_stay_behind_it(tmp_path: Path, topic_names: Callable[[], str]) -> None:
    topic = topic_names()
    with TcpProxy() as proxy:
        broker = DevBroker(tmp_path, owned=True, advertised_port=proxy.port)
        try:
            broker.start()
            proxy.forward_to(broker.proxied_port)
            create_topic(proxy.bootstrap, topic)
            producer = KafkaProducer(bootstrap_servers=proxy.bootstrap, acks="all")
            producer.send(topic, b"first", partition=0).get(timeout=300)
            proxy.stall()
            second = producer.send(topic, b"second", partition=0)
            write(broker.bootstrap, topic, [b"round the proxy"])  # the broker itself is well
            assert not second.is_done
            proxy.resume()
            second.get(timeout=300)
            proxy.cut()
            third = producer.send(topic, b"third", partition=0)
            proxy.heal()
            third.get(timeout=300)
            producer.close()
            assert read(broker.bootstrap, topic) == [b"first", b"round the proxy", b"second", b"third"]
        finally:
            broker.kill()


def test_a_warm_cache_needs_no_network(broker: DevBroker, no_network: None) -> None:
    assert [jar.name for jar in class_path(default_cache())] == list(digests())


def test_jars_that_cannot_be_fetched_say_what_to_do(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(JarsMissing, match=r"network.*copy the folder kafka-4.*STREAMRNN_CACHE"):
        DevBroker(tmp_path / "broker", cache=tmp_path / "cache").start()
    assert not (tmp_path / "broker").exists()


def test_a_damaged_jar_is_named(broker: DevBroker, tmp_path: Path) -> None:
    jars = tmp_path / f"kafka-{KAFKA_VERSION}" / "jars"
    jars.mkdir(parents=True)
    for jar in class_path(default_cache()):
        (jars / jar.name).symlink_to(jar)
    damaged = jars / f"kafka-clients-{KAFKA_VERSION}.jar"
    damaged.unlink()
    damaged.write_bytes(b"something else")
    with pytest.raises(JarDamaged, match=r"kafka-clients.*Delete"):
        DevBroker(tmp_path / "broker", cache=tmp_path).start()
