"""A broker that is there but takes no connection or login as it is set up: each way is told apart, by a sentence that
names the setting and the fix, and refused logins wait.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos import random_model
from secured import PASSWORD, Authority, SecuredBroker
from serving import Serving, streamrnn, write_config
from waiting import wait_for

from services.brokers.kafka_client import open_producer, read_topic
from services.brokers.kafka_connect import Misfit, open_admin
from services.brokers.kafka_logins import Gate
from services.doctor import Target, examined
from services.doctor.examination import CHECKS
from services.predictor.ports import Retriable
from services.settings import Settings

WRONG = "the-wrong-one-5d2"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with SecuredBroker(tmp_path_factory.mktemp("secured")) as running:
        yield running


def misfits(secured: SecuredBroker, folder: Path) -> dict[str, tuple[dict[str, Any], str, str]]:
    """Way -> what is set instead, what is said, and the fix."""
    plain, other = secured.broker.bootstrap, Authority(folder, "another")
    return {
        "wrong password": (
            {"sasl_plain_password": WRONG},
            "refuses the login of pumpreader by PLAIN: Authentication failed: Invalid username or password",
            "kafka.sasl_plain_password",
        ),
        "wrong authority": (
            {"ssl_cafile": str(other.file)},
            "is not accepted by kafka.ssl_cafile .*another.pem: self.signed certificate",
            "Set kafka.ssl_cafile",
        ),
        "no authority": (
            {"ssl_cafile": None},
            "is not accepted by the authorities of this machine .kafka.ssl_cafile is not set",
            "Set kafka.ssl_cafile",
        ),
        "another name": (
            {"bootstrap_servers": secured.options["bootstrap_servers"].replace("127.0.0.1", "localhost")},
            "is not for localhost",
            "kafka.bootstrap_servers",
        ),
        "no TLS": (
            {"security_protocol": "SASL_PLAINTEXT"},
            "wants TLS, and kafka.security_protocol is SASL_PLAINTEXT",
            "Set kafka.security_protocol: SASL_SSL",
        ),
        "neither": (
            {"security_protocol": "PLAINTEXT"},
            "wants TLS, and kafka.security_protocol is PLAINTEXT",
            "Set kafka.security_protocol: SSL",
        ),
        "no login": (
            {"security_protocol": "SSL"},
            "wants a login, and kafka.security_protocol is SSL",
            "SASL_SSL, kafka.sasl_mechanism .it offers PLAIN",
        ),
        "unknown mechanism": (
            {"sasl_mechanism": "SCRAM-SHA-256"},
            "does not know kafka.sasl_mechanism SCRAM-SHA-256: it offers PLAIN",
            "Set kafka.sasl_mechanism",
        ),
        "TLS where there is none": (
            {"bootstrap_servers": plain, "security_protocol": "SSL"},
            "speaks without TLS, and kafka.security_protocol is SSL",
            "Set kafka.security_protocol: PLAINTEXT",
        ),
        "a login where there is none": (
            {"bootstrap_servers": plain, "security_protocol": "SASL_PLAINTEXT"},
            "takes no logins, and kafka.security_protocol is SASL_PLAINTEXT",
            "Set kafka.security_protocol: PLAINTEXT",
        ),
    }


def test_each_way_is_told_apart_in_every_client_and_by_the_doctor(secured: SecuredBroker, tmp_path: Path) -> None:
    assert answers(secured.options)
    for way, (instead, said, fix) in misfits(secured, tmp_path).items():
        options = {**secured.options, "bootstrap_timeout_ms": 1000, **instead}
        sentence = wait_for(lambda options=options: misfit(options), f"{way} is told apart")
        assert re.search(said, sentence) and re.search(fix, sentence), f"{way}: {sentence}"
        assert WRONG not in sentence and PASSWORD not in sentence
        settings = Settings(kafka=options)
        (line,) = examined(Target(settings, 30.0), tuple(one for one in CHECKS if one.name == "kafka"))
        assert line.level == "fail" and re.search(said, line.said) and re.search(fix, line.fix), f"{way}: {line}"
        assert WRONG not in f"{line.said}{line.fix}"


def misfit(options: dict[str, Any]) -> str:
    """What is said of these options; empty where the broker was too slow to show what it makes of them."""
    try:
        with open_admin(options):
            return ""
    except Misfit as error:
        return str(error)
    except Retriable:
        return ""


def send(bootstrap: str, topic: str, partition: int, values: list[bytes]) -> None:
    with open_producer({"bootstrap_servers": bootstrap}) as producer:
        producer.append(topic, partition, [b"pump"] * len(values), values, time.time_ns() // 1_000_000)
        producer.flush()


def answers(options: dict[str, Any]) -> bool:
    """True where a client with these options gets an answer."""
    with open_admin(options) as admin:
        return bool(admin.describe_cluster()["brokers"])


def test_a_wrong_password_is_tried_ever_less_often_and_the_server_says_why(
    secured: SecuredBroker, tmp_path: Path
) -> None:
    model = random_model(tmp_path / "model", seed=1)
    options = {**secured.options, "sasl_plain_password": WRONG, "client_id": "locked-out"}
    config = write_config(tmp_path, secured.options["bootstrap_servers"], model, "locked", kafka=options)
    before = len(secured.refused_logins_s())
    with Serving(config) as server:
        (away, *_) = server.until(lambda: refused(server), "it says why")
        assert "kafka.sasl_plain_password" in away["error"]
        (reason,) = json.loads(server.get("/readyz")[1])["reasons"]
        assert "refuses the login of pumpreader" in reason and server.get("/healthz")[0] == 200
        server.until(lambda: len(secured.refused_logins_s()) > before + 2, "a third login")
        first_s, _, third_s = secured.refused_logins_s()[before : before + 3]
        assert third_s - first_s > 4  # waits of 5 and 10 s, but two clients may have tried at once
        assert WRONG not in "\n".join(server.lines)


def test_a_password_that_changes_under_a_running_server_is_not_hammered(tmp_path: Path) -> None:
    with SecuredBroker(tmp_path / "changing") as secured:
        at = secured.broker.bootstrap
        model = random_model(tmp_path / "model", seed=1)
        config = write_config(tmp_path, at, model, "rotated", kafka=secured.options)
        assert streamrnn("topics", "create", "-c", str(config)).returncode == 0
        with Serving(config) as server:
            server.ready()
            secured.broker.stop()
            changed = secured.with_password("a-new-one-77f")
            try:
                changed.start()
                secured.proxy.forward_to(changed.proxied_port)
                assert server.until(lambda: refused(server), "it says why")
                assert PASSWORD not in "\n".join(server.lines)
                server.until(lambda: span_s(secured) > 10, "some more logins")
                clients = (
                    6  # two in each of three processes, which wait 5 s, then 10 s; a client alone would try at once
                )
                assert len(secured.refused_logins_s()) <= clients * (1 + span_s(secured) / 5)
            finally:
                changed.kill()
            secured.broker.start()
            secured.proxy.forward_to(secured.broker.proxied_port)
            at = secured.broker.bootstrap
            send(at, "rotated.readings", 0, [b'{"at": 1700000000000, "x": [1, 2, 3]}'])
            server.until(lambda: read_topic({"bootstrap_servers": at}, "rotated.predictions")[0].values, "it goes on")


def span_s(secured: SecuredBroker) -> float:
    """Seconds between the first login that was refused and the last."""
    times_s = secured.refused_logins_s()
    return times_s[-1] - times_s[0] if times_s else 0.0


def refused(server: Serving) -> list[dict[str, Any]]:
    """Events that say that a login is refused."""
    return [event for event in server.events("broker_away") if "refuses the login of pumpreader" in event["error"]]


def test_waits_between_logins_grow_up_to_a_minute() -> None:
    now_s = 0.0
    gate = Gate(lambda: now_s)
    waits = []
    for _ in range(6):
        for _ in range(3):  # of several that were under way one counts
            gate.refused(RuntimeError("no"))
        waits.append(gate.wait_s())
        now_s += gate.wait_s()
    assert waits == [5, 10, 20, 40, 60, 60]
    gate.passed()
    assert gate.wait_s() == 0 and gate.error is None


def test_a_mechanism_that_nobody_knows_is_refused_with_the_settings(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("kafka: {security_protocol: SASL_SSL, sasl_mechanism: SCRAM}\n")
    done = streamrnn("config", "validate", "-c", str(tmp_path / "odd.yaml"))
    assert done.returncode == 2 and "SCRAM-SHA-256" in done.stdout + done.stderr
