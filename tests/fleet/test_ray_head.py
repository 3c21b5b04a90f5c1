"""A Ray on another machine whose head is killed: the server says so, leaves, and started again goes on."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from chaos import random_model
from serving import Serving, streamrnn, write_config
from waiting import wait_for

from services.brokers.devbroker import DevBroker
from services.brokers.devbroker.server_settings import free_ports
from services.brokers.kafka_client import ColumnProducer, read_topic
from services.codecs import predictions
from services.fleet.ray_head import LEFT, answers

pytestmark = pytest.mark.chaos


class Head:
    """A Ray head that other processes join, started by its own command."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address, self._folder, self._port = f"127.0.0.1:{port}", folder, port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        low = free_ports(1)[0]
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={self._port}",
            "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=80000000",
            f"--temp-dir={self._folder}", f"--min-worker-port={low}", f"--max-worker-port={low + 60}",
            f"--ray-client-server-port={free_ports(1)[0]}", f"--dashboard-agent-listen-port={free_ports(1)[0]}",
        ]  # fmt: skip
        said = self._folder / "said.log"
        with said.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        started = self.process

        def look() -> bool:
            assert started.poll() is None, said.read_text()[-2000:]
            return answers(self.address)

        wait_for(look, "the head answers", progress=lambda: said.stat().st_size, pause_s=0.1)

    def kill(self) -> None:
        """SIGKILL to all of its processes, as when its machine is gone."""
        for one in [one for one in psutil.process_iter(["cmdline"]) if self._mine(one)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        if self.process is not None:
            self.process.wait()
            self.process = None

    def _mine(self, one: psutil.Process) -> bool:
        """Ray's processes name the head's folder or its address."""
        said = " ".join(one.info["cmdline"] or ())
        return str(self._folder) in said or (self.address in said and "127.0.0.2" not in said)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)  # of a Ray that was in this process before
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
    folder = Path(tempfile.mkdtemp(prefix="rh-"))  # short: Ray puts sockets below it
    one = Head(folder, free_ports(1)[0])
    one.start()
    yield one
    one.kill()
    shutil.rmtree(folder, ignore_errors=True)


def answered(bootstrap: str, pipeline: str) -> list[int]:
    got = read_topic({"bootstrap_servers": bootstrap}, f"{pipeline}.predictions")
    return sorted(int(at) for records in got.values() if len(records) for at in predictions.decode(records).at_ms)


def test_a_head_that_is_killed_and_comes_back_costs_a_restart_and_no_reading(
    head: Head, broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path
) -> None:
    name, times = topic_names(), [1_700_000_000_000 + 1000 * step for step in range(4)]
    model = random_model(tmp_path / "model", seed=1)
    low = free_ports(1)[0]
    flags = f"--min-worker-port={low} --max-worker-port={low + 60} --node-ip-address=127.0.0.2"
    flags += f" --dashboard-agent-listen-port={free_ports(1)[0]}"
    config = write_config(
        tmp_path, broker.bootstrap, model, name, fleet={"shards": 1, "ray_address": head.address, "ray_node": flags}
    )
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    producer = ColumnProducer({"bootstrap_servers": broker.bootstrap})

    def send(at_ms: int) -> None:
        value = b'{"at": %d, "x": [0.5, 1.0, null]}' % at_ms
        producer.append(f"{name}.readings", 0, [b"pump"], [value], time.time_ns() // 1_000_000)
        producer.flush()

    with Serving(config) as server:
        server.ready()
        send(times[0])
        server.until(lambda: answered(broker.bootstrap, name) == times[:1], "the first answer")
        head.kill()
        send(times[1])
        server.until(lambda: server.events("ray_head_away"), "word of the head")
        head.start()
        assert server.ended() == LEFT, server.tail()
        assert "was started anew" in server.events("leaving")[0]["reason"], server.tail()
    send(times[2])
    with Serving(config) as server:
        server.ready()
        send(times[3])
        server.until(lambda: len(answered(broker.bootstrap, name)) >= 4, "answers")
    producer.close()
    assert answered(broker.bootstrap, name) == times


def test_a_node_that_cannot_join_says_what_ray_said(head: Head, tmp_path: Path) -> None:
    from services.fleet.ray_head import NotJoined, become_node

    with pytest.raises(NotJoined, match=r"fleet\.ray_address: no node of the Ray at .*no-such-flag"):
        become_node(head.address, "--no-such-flag")
