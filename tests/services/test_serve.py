"""The server as its users meet it: real processes, real Kafka, and the mistakes people make."""

import contextlib
import ipaddress
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from chaos import FEATURES, random_model
from kafka import KafkaAdminClient
from serving import Serving, streamrnn, write_config

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import ColumnProducer, group_offsets, read_topic
from services.codecs import predictions

pytestmark = pytest.mark.usefixtures("shared_ray")

CANARY = "canary7f3a"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "model", seed=1)


def send(bootstrap: str, topic: str, values: list[bytes], partition: int = 0, key: bytes = b"pump-1") -> None:
    producer = ColumnProducer({"bootstrap_servers": bootstrap})
    producer.append(topic, partition, [key] * len(values), values, time.time_ns() // 1_000_000)
    producer.flush()
    producer.close()


def reading(step: int) -> bytes:
    return json.dumps({"at": 1_700_000_000_000 + 1000 * step, "x": [step * 0.1, 1.0, None]}).encode()


def answered(bootstrap: str, pipeline: str) -> int:
    got = read_topic({"bootstrap_servers": bootstrap}, f"{pipeline}.predictions")
    return sum(len(predictions.decode(records)) for records in got.values() if len(records))


def test_serves_refuses_bad_records_and_leaves_in_time_on_sigterm(
    broker: DevBroker, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMRNN__FLEET__RAY_ADDRESS")  # its own Ray's processes are looked at, too
    hidden = {"sasl_plain_password": f"{CANARY}1", "ssl_password": f"{CANARY}2"}
    archive = f"s3://u:{CANARY}3@host/x?sig={CANARY}4"
    config = write_config(tmp_path, broker.bootstrap, model, "orderly", kafka=hidden, retrain={"archive": archive})
    assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
    with Serving(config) as server:
        server.ready()
        half = rb'{"at":"2026-11-14T22:13:20\ud800Z","x":[1,2,3]}'  # of a surrogate pair
        bad = [b"not json", b'{"at": 1, "x": [1, 2]}', b'{"at": 1, "x": [1, 2, NaN]}', b"[" * (1 << 19), half]
        send(broker.bootstrap, "orderly.readings", [reading(0), *bad, reading(1)])
        server.until(lambda: answered(broker.bootstrap, "orderly") == 2, "two predictions")
        server.until(lambda: "streamrnn_readings_total{" in server.get("/metrics")[1], "metrics")
        server.until(lambda: server.get("/readyz")[0] == 200, "readiness")
        assert server.get("/healthz")[0] == 200
        assert listening_beyond_this_machine(server) == []
        assert (Path.home() / ".ray" / "auth_token").stat().st_mode & 0o077 == 0, "others may read Ray's token"
        shown = [server.get(page)[1] for page in ("/metrics", "/live.json", "/readyz")] + arguments_of(server)
        began_s = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
        assert not [text for text in (*shown, *server.lines) if CANARY in text], "a secret is shown"
        assert time.monotonic() - began_s < 30, server.tail()  # what Kubernetes gives it
        (stopped,) = server.events("shard_stopped")
        assert stopped["position"] == {"0": 7, "1": 0}
        assert stopped.items() >= {"level": "info", "shard": 0, "incarnation": 0, "readings": 2}.items()
        assert stopped["epoch"] >= 1
    letters = read_topic({"bootstrap_servers": broker.bootstrap}, "orderly.dead-letters")[0]
    assert letters.values == bad
    reasons = [dict(letters.headers[row])["streamrnn.reason"] for row in range(len(bad))]
    assert reasons == [b"not_json", b"wrong_length", b"not_finite", b"too_deep", b"bad_time"]
    assert group_offsets({"bootstrap_servers": broker.bootstrap}, "streamrnn-orderly", "orderly.readings")[0] == 7


def arguments_of(server: Serving) -> list[str]:
    """The command lines of a server and of all that it has started, which every user of a machine can read."""
    top, found = psutil.Process(server.process.pid), []
    for one in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(" ".join(one.cmdline()))
    return found


def listening_beyond_this_machine(server: Serving) -> list[tuple[str, str]]:
    """Processes of a server, and of the Ray that it has started, where others than this machine could reach them."""
    found = []
    top = psutil.Process(server.process.pid)
    for one in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            for at in one.net_connections("inet"):
                ip = at.laddr.ip.removeprefix("::ffff:") if at.laddr else ""
                if at.status == psutil.CONN_LISTEN and not ipaddress.ip_address(ip).is_loopback:
                    found.append((one.name(), at.laddr.ip))
    return found


def test_of_two_servers_with_one_identity_the_newer_wins_and_the_older_says_why(
    broker: DevBroker, model: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, broker.bootstrap, model, "twins")
    streamrnn("topics", "create", "-c", str(config))
    with Serving(config) as older:
        older.ready()
        send(broker.bootstrap, "twins.readings", [reading(0)])
        older.until(lambda: answered(broker.bootstrap, "twins") == 1, "the older answers")
        with Serving(config) as newer:
            newer.ready()
            send(broker.bootstrap, "twins.readings", [reading(1)])
            newer.until(lambda: answered(broker.bootstrap, "twins") == 2, "one of them answers")
            assert older.ended() == 3
            assert "another server with group 'streamrnn-twins'" in older.tail()
            send(broker.bootstrap, "twins.readings", [reading(2)])
            newer.until(lambda: answered(broker.bootstrap, "twins") == 3, "the newer goes on")


def test_waits_for_a_broker_that_is_not_there_yet_and_says_so(
    own_broker: DevBroker, model: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, own_broker.bootstrap, model, "early")
    streamrnn("topics", "create", "-c", str(config))
    own_broker.stop()
    with Serving(config) as server:
        server.until(lambda: server.events("broker_away"), "it says that the broker is away")
        assert server.get("/readyz")[0] == 503
        assert server.get("/healthz")[0] == 200
        own_broker.restart()
        server.ready()
        send(own_broker.bootstrap, "early.readings", [reading(0)])
        server.until(lambda: answered(own_broker.bootstrap, "early") == 1, "a prediction")


def test_refuses_topics_that_would_break_a_promise_and_names_the_setting(
    broker: DevBroker, model: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, broker.bootstrap, model, "homeless")
    with Serving(config) as server:
        assert server.ended() == 4
        assert "homeless.readings" in server.tail()
        assert "streamrnn topics create" in server.tail()
    streamrnn("topics", "create", "-c", str(config))
    more = write_config(tmp_path, broker.bootstrap, model, "homeless", topics={"partitions": 6})
    check = streamrnn("topics", "check", "-c", str(more))
    assert "partitions" in check.stdout
    assert check.returncode == 1


def test_refuses_an_output_topic_that_takes_no_message_of_ours(broker: DevBroker, model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, broker.bootstrap, model, "narrow")
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        admin.create_topics({"narrow.predictions": {"num_partitions": 2, "replication_factor": 1,
                                                    "configs": {"max.message.bytes": "300"}}})  # fmt: skip
    streamrnn("topics", "create", "-c", str(config))
    with Serving(config) as server:
        assert server.ended() == 4
        assert "max.message.bytes" in server.tail()
        assert "narrow.predictions" in server.tail()


def test_refuses_a_damaged_model_and_one_of_other_features(broker: DevBroker, model: Path, tmp_path: Path) -> None:
    damaged = random_model(tmp_path / "damaged", seed=2)
    blob = bytearray((damaged / "model.safetensors").read_bytes())
    blob[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(blob)
    config = write_config(tmp_path, broker.bootstrap, damaged, "damaged")
    streamrnn("topics", "create", "-c", str(config))
    with Serving(config) as server:
        assert server.ended() == 4
        assert "model.safetensors" in server.tail()
    config = write_config(tmp_path, broker.bootstrap, model, "foreign")
    streamrnn("topics", "create", "-c", str(config))
    with Serving(config) as server:
        server.ready()
        value = json.dumps({"at": 1, "x": {"flow": 1.0, "pressure": 2.0}}).encode()
        send(broker.bootstrap, "foreign.readings", [value, reading(0)])
        server.until(lambda: answered(broker.bootstrap, "foreign") == 1, "the good reading is answered")
    letter = read_topic({"bootstrap_servers": broker.bootstrap}, "foreign.dead-letters")[0]
    headers = dict(letter.headers[0])
    assert headers["streamrnn.reason"] == b"unknown_feature"
    assert b"pressure" in headers["__connect.errors.exception.message"]
    assert all(feature.encode() in headers["__connect.errors.exception.message"] for feature in FEATURES)


def test_a_server_that_is_killed_goes_on_where_it_was(
    broker: DevBroker, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMRNN__FLEET__RAY_ADDRESS")  # all of it dies at once, its Ray too
    config = write_config(tmp_path, broker.bootstrap, model, "phoenix")
    streamrnn("topics", "create", "-c", str(config))
    with Serving(config) as server:
        server.ready()
        send(broker.bootstrap, "phoenix.readings", [reading(step) for step in range(5)])
        server.until(lambda: answered(broker.bootstrap, "phoenix") == 5, "five predictions")
        os.killpg(server.process.pid, signal.SIGKILL)
        server.ended()
    send(broker.bootstrap, "phoenix.readings", [reading(step) for step in range(5, 8)])
    with Serving(config) as server:
        ready = server.ready().events("ready")[0]
        assert ready["streams"] == 1
        server.until(lambda: answered(broker.bootstrap, "phoenix") == 8, "the rest")
    got = predictions.decode(read_topic({"bootstrap_servers": broker.bootstrap}, "phoenix.predictions")[0])
    assert got.offsets.tolist() == list(range(8))
    assert [bool(flags & 1) for flags in got.flags.tolist()] == [True] + [
        False
    ] * 7  # "new" once: nothing was forgotten


def test_a_damaged_state_row_is_the_trouble_of_its_stream_and_shows(
    broker: DevBroker, model: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, broker.bootstrap, model, "scratched")
    streamrnn("topics", "create", "-c", str(config))
    with Serving(config) as server:
        server.ready()
        for key in (b"pump-1", b"pump-2"):
            send(broker.bootstrap, "scratched.readings", [reading(0)], key=key)
        server.until(lambda: answered(broker.bootstrap, "scratched") == 2, "two predictions")
    send(broker.bootstrap, "scratched.changelog", [b"somebody's"], key=b"pump-2")
    with Serving(config) as server:
        server.ready()
        for key in (b"pump-1", b"pump-2"):
            send(broker.bootstrap, "scratched.readings", [reading(1), reading(2)], key=key)
        server.until(lambda: answered(broker.bootstrap, "scratched") == 4, "the other stream's predictions")
        status, body = server.get("/readyz")
        assert (status, json.loads(body)["reasons"]) == (
            503, ["shard 0 cannot read the state row of 1 stream; see the alert StreamrnnInternalError"]
        )  # fmt: skip
        (told,) = server.events("internal_error")
        assert told.items() >= {"level": "error", "place": "restore", "stream": "pump-2", "partition": 0}.items()
        assert "state_rows.py" in told["stack"]
        rejected = 'streamrnn_rejected_total{reason="internal"} 2.0'
        server.until(lambda: rejected in server.get("/metrics")[1], "the dead letters' metric")
        assert 'streamrnn_internal_errors_total{place="restore"} 1.0' in server.get("/metrics")[1]
    letters = read_topic({"bootstrap_servers": broker.bootstrap}, "scratched.dead-letters")[0]
    assert (letters.keys, letters.values) == ([b"pump-2"] * 2, [reading(1), reading(2)])
    got = predictions.decode(read_topic({"bootstrap_servers": broker.bootstrap}, "scratched.predictions")[0])
    new = [flags & 1 for stream, flags in zip(got.streams, got.flags.tolist(), strict=True) if stream == b"pump-1"]
    assert new == [1, 0, 0]


def test_a_broker_that_is_away_for_a_minute_costs_nothing(own_broker: DevBroker, model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, own_broker.bootstrap, model, "outage", epoch={"timeout_s": 20})
    streamrnn("topics", "create", "-c", str(config))
    with Serving(config) as server:
        server.ready()
        send(own_broker.bootstrap, "outage.readings", [reading(step) for step in range(3)])
        server.until(lambda: answered(own_broker.bootstrap, "outage") == 3, "three predictions")
        own_broker.kill()
        time.sleep(60)  # the length of the outage is the case, not a wait for something
        own_broker.restart()
        send(own_broker.bootstrap, "outage.readings", [reading(step) for step in range(3, 6)])
        server.until(lambda: answered(own_broker.bootstrap, "outage") == 6, "the rest")
    got = predictions.decode(read_topic({"bootstrap_servers": own_broker.bootstrap}, "outage.predictions")[0])
    assert got.offsets.tolist() == list(range(6))


def test_a_broker_that_goes_away_while_the_fleet_starts_is_waited_for(
    own_broker: DevBroker, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMRNN__FLEET__RAY_ADDRESS")  # its own Ray takes some seconds to start, in which it happens
    config = write_config(tmp_path, own_broker.bootstrap, model, "unlucky")
    streamrnn("topics", "create", "-c", str(config))
    with Serving(config) as server:  # it has seen the topics, and shuts out earlier servers once Ray has started
        server.until(lambda: "the fleet to start" in server.get("/readyz")[1], "Ray is starting")
        own_broker.kill()
        server.until(lambda: server.events("broker_away"), "it says that the broker is away")
        assert "does not answer" in server.get("/readyz")[1] and server.get("/healthz")[0] == 200
        own_broker.restart()
        server.ready()
        send(own_broker.bootstrap, "unlucky.readings", [reading(0)])
        server.until(lambda: answered(own_broker.bootstrap, "unlucky") == 1, "a prediction")
