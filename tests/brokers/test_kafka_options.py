"""The `kafka:` section: every argument of the client library is either a setting or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from services.brokers import kafka_options
from services.brokers.kafka_connect import open_admin
from services.predictor.ports import Refused, Retriable

CHOSEN = {*kafka_options.CONNECTION, *kafka_options.CONSUMER_ONLY, *kafka_options.PRODUCER_ONLY}


def test_every_argument_of_the_client_library_is_accounted_for() -> None:
    arguments = {*KafkaConsumer.DEFAULT_CONFIG, *KafkaProducer.DEFAULT_CONFIG, *KafkaAdminClient.DEFAULT_CONFIG}
    assert {*CHOSEN, *kafka_options.KEPT} == arguments
    assert not CHOSEN & set(kafka_options.KEPT)
    for client, chosen in (
        (KafkaConsumer, kafka_options.consumer),
        (KafkaProducer, kafka_options.producer),
        (KafkaAdminClient, kafka_options.admin),
    ):
        assert set(chosen(dict.fromkeys(CHOSEN - {"bootstrap_servers"}))) <= set(client.DEFAULT_CONFIG)


@pytest.mark.parametrize("name", sorted(kafka_options.KEPT))
def test_what_the_service_keeps_for_itself_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=f"kafka.{name} cannot be set: .{{10}}"):
        kafka_options.check({name: "x"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bootstrap_server": "x"}, "did you mean kafka.bootstrap_servers"),
        ({"sasl_plain_pass": "hunter2"}, "did you mean kafka.sasl_plain_password"),
        ({"bootstrap_servers": ""}, "bootstrap_servers is empty"),
        ({"security_protocol": "TLS"}, "use PLAINTEXT, SSL"),
        ({"security_protocol": "SASL_SSL"}, "sasl_mechanism must be given"),
        ({"sasl_oauth_token_provider": "hunter2 but no reference"}, "package.module:Class"),
    ],
)
def test_mistakes_are_named_and_secrets_are_not(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        kafka_options.check(options)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "options", [{"request_timeout_ms": "soon"}, {"request_timeout_ms": -1}, {"ssl_cafile": "/nowhere/ca.pem"}]
)
def test_values_that_cannot_be_used_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=f"kafka.{next(iter(options))}"):
        open_admin(options)


def test_plain_values_become_what_the_client_library_wants(tmp_path: Path) -> None:
    cafile = tmp_path / "ca.pem"
    cafile.touch()
    options = {
        "bootstrap_servers": "one:9092, two:9092",
        "api_version": "3.9",
        "request_timeout_ms": "20000",
        "socket_options": [[1, 8, 65536]],
        "ssl_cafile": str(cafile),
        "sasl_oauth_token_provider": "collections:OrderedDict",
        "client_rack": "west",
        "compression_type": "lz4",
    }
    consumer, producer, admin = (
        getattr(kafka_options, client)(options) for client in ("consumer", "producer", "admin")
    )
    assert consumer["bootstrap_servers"] == ["one:9092", "two:9092"]
    assert consumer["api_version"] == (3, 9)
    assert producer["request_timeout_ms"] == 20_000
    assert admin["socket_options"] == [(1, 8, 65536)]
    assert repr(admin["sasl_oauth_token_provider"]) == "OrderedDict()"
    assert consumer["client_rack"] == "west"
    assert "client_rack" not in producer
    assert producer["compression_type"] == "lz4"
    assert "compression_type" not in consumer


def test_nobody_at_the_address_is_said_with_the_cause() -> None:
    with pytest.raises(Retriable, match=r"127\.0\.0\.1:1 does not answer: .*refused"):
        open_admin({"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 300})
