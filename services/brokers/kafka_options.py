"""The `kafka:` section of the settings -> constructor arguments of kafka-python's consumer, producer and admin client.

Lives here: which settings a person may give, which the adapters keep for themselves, and why. Imports the standard
library only, so that settings can be checked without the client library.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Options = Mapping[str, Any]
"""The `kafka:` section as it was read: names of kafka-python's constructor arguments to plain values."""

CONNECTION = (
    "bootstrap_servers", "client_id", "client_dns_lookup", "api_version", "bootstrap_timeout_ms", "request_timeout_ms",
    "retry_backoff_ms", "reconnect_backoff_ms", "reconnect_backoff_max_ms", "connections_max_idle_ms",
    "metadata_max_age_ms", "max_in_flight_requests_per_connection", "receive_message_max_bytes",
    "socket_options", "proxy_url", "security_protocol", "ssl_check_hostname", "ssl_cafile", "ssl_certfile",
    "ssl_keyfile", "ssl_password", "ssl_crlfile", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password",
    "sasl_kerberos_name", "sasl_kerberos_service_name", "sasl_kerberos_domain_name", "sasl_oauth_token_provider",
)  # fmt: skip
"""What every client takes."""

CONSUMER_ONLY = (
    "client_rack", "fetch_min_bytes", "fetch_max_wait_ms", "fetch_max_bytes", "max_partition_fetch_bytes", "check_crcs",
    "enable_incremental_fetch_sessions",
)  # fmt: skip
PRODUCER_ONLY = ("compression_type", "delivery_timeout_ms", "transaction_timeout_ms", "max_block_ms",
                 "max_request_size")  # fmt: skip

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM")

KEPT = {
    "group_id": "set `group` instead: offsets are committed in the transaction, under the pipeline's group",
    "group_instance_id": "shards own fixed partitions; there is no group membership",
    "transactional_id": "each shard has its own, made of the group and the shard's number",
    "enable_idempotence": "always on; without it retries would double predictions",
    "acks": "always `all`; a prediction that one broker alone has can be lost",
    "retries": "bounded by delivery_timeout_ms",
    "isolation_level": "always read_committed; readings of aborted transactions were never sent",
    "enable_auto_commit": "always off; offsets are committed with the predictions",
    "auto_commit_interval_ms": "nothing is committed automatically",
    "auto_offset_reset": "a committed offset that is gone is reported, never skipped in silence",
    "default_offset_commit_callback": "offsets are committed in the transaction",
    "partition_assignment_strategy": "shards own fixed partitions",
    "session_timeout_ms": "there is no group membership",
    "heartbeat_interval_ms": "there is no group membership",
    "max_poll_interval_ms": "there is no group membership",
    "max_poll_records": "set `epoch.max_readings` instead",
    "consumer_timeout_ms": "the loop has its own",
    "key_deserializer": "records are decoded column by column",
    "value_deserializer": "records are decoded column by column",
    "key_serializer": "records are encoded column by column",
    "value_serializer": "records are encoded column by column",
    "partitioner": "a prediction goes to the partition of its reading",
    "linger_ms": "always 0; an epoch is sent whole",
    "batch_size": "an epoch's records travel as one batch a partition",
    "allow_auto_create_topics": "always off; use `streamrnn topics create`",
    "exclude_internal_topics": "topics are named one by one",
    "ssl_context": "an object cannot stand in a file; give ssl_cafile, ssl_certfile and ssl_keyfile",
    "ssl_ciphers": "the client library ignores it; restrict ciphers on the brokers (ssl.cipher.suites)",
    "receive_buffer_bytes": "the client library ignores it; give socket_options, e.g. [[1, 8, 65536]] for SO_RCVBUF",
    "send_buffer_bytes": "the client library ignores it; give socket_options, e.g. [[1, 7, 65536]] for SO_SNDBUF",
    "selector": "an object cannot stand in a file",
    "kafka_client": "an object cannot stand in a file",
    "metric_reporters": "the metrics are on telemetry.port",
    "metrics_enabled": "the metrics are on telemetry.port",
    "metrics_num_samples": "the metrics are on telemetry.port",
    "metrics_sample_window_ms": "the metrics are on telemetry.port",
    "metric_group_prefix": "the metrics are on telemetry.port",
    "socks5_proxy": "deprecated by the client library; use proxy_url",
}
"""Arguments that are not a person's to choose -> why, and what to do instead."""

DEFAULTS: dict[str, Any] = {
    "bootstrap_servers": "127.0.0.1:9092",
    "bootstrap_timeout_ms": 5_000,  # one attempt; whoever asked tries again
    "reconnect_backoff_max_ms": 1_000,  # the library's 30 s would be added to every outage
}
CONSUMER_DEFAULTS: dict[str, Any] = {
    "retry_backoff_ms": 20,
    "fetch_max_wait_ms": 200,  # also how long a seek waits for the fetch under way
    "max_partition_fetch_bytes": 4 << 20,
}
PRODUCER_DEFAULTS: dict[str, Any] = {
    "retry_backoff_ms": 2,  # the broker is still writing the last transaction's markers when the next one begins
    "max_request_size": 32 << 20,
}


def check(options: Options) -> None:
    """Raises ValueError for a setting that does not exist, is not a person's to choose, or cannot be used. Connects to
    nothing, and never repeats a secret.
    """
    known = (*CONNECTION, *CONSUMER_ONLY, *PRODUCER_ONLY)
    for name in options:
        if name in KEPT:
            raise ValueError(f"kafka.{name} cannot be set: {KEPT[name]}")
        if name not in known:
            near = difflib.get_close_matches(str(name), (*known, *KEPT), n=1, cutoff=0.0)[0]
            raise ValueError(f"kafka.{name} is not a setting of the Kafka client; did you mean kafka.{near}?")
    if options.get("bootstrap_servers", True) in ("", [], None):
        raise ValueError("kafka.bootstrap_servers is empty; give host:port, or a list of them")
    if (protocol := options.get("security_protocol") or "PLAINTEXT") not in (
        "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL",
    ):  # fmt: skip
        raise ValueError(f"kafka.security_protocol is {protocol!r}; use PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
    if "SASL" in protocol and not options.get("sasl_mechanism"):
        raise ValueError(f"kafka.security_protocol is {protocol}, so kafka.sasl_mechanism must be given")
    if (mechanism := options.get("sasl_mechanism")) and mechanism not in MECHANISMS:
        raise ValueError(f"kafka.sasl_mechanism is {mechanism!r}; use {', '.join(MECHANISMS)}")
    if (names := options.get("sasl_oauth_token_provider")) and not _is_reference(names):
        raise ValueError("kafka.sasl_oauth_token_provider must read `package.module:Class`")


def consumer(options: Options) -> dict[str, Any]:
    """Arguments of a KafkaConsumer, without those the adapters own."""
    return _arguments(options, (*CONNECTION, *CONSUMER_ONLY), {**DEFAULTS, **CONSUMER_DEFAULTS})


def producer(options: Options) -> dict[str, Any]:
    """Arguments of a KafkaProducer, without those the adapters own."""
    return _arguments(options, (*CONNECTION, *PRODUCER_ONLY), {**DEFAULTS, **PRODUCER_DEFAULTS})


def admin(options: Options) -> dict[str, Any]:
    """Arguments of a KafkaAdminClient."""
    return _arguments(options, CONNECTION, DEFAULTS)


def brokers(options: Options) -> str:
    """The bootstrap servers in words, for messages."""
    servers = options.get("bootstrap_servers", DEFAULTS["bootstrap_servers"])
    return servers if isinstance(servers, str) else ", ".join(servers)


def _arguments(options: Options, names: tuple[str, ...], defaults: Mapping[str, Any]) -> dict[str, Any]:
    check(options)
    arguments = dict(defaults)
    arguments.update({name: value for name, value in options.items() if name in names and value is not None})
    servers = arguments["bootstrap_servers"]
    if isinstance(servers, str):
        arguments["bootstrap_servers"] = [server.strip() for server in servers.split(",") if server.strip()]
    for name in arguments:
        if name.endswith(("_ms", "_bytes", "_connection")):
            arguments[name] = _number(name, arguments[name])
    if (version := arguments.get("api_version")) is not None:
        parts = version.split(".") if isinstance(version, str) else version
        arguments["api_version"] = tuple(int(part) for part in parts)
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"):
        if name in arguments and not Path(arguments[name]).is_file():
            raise ValueError(f"kafka.{name} names no file: {arguments[name]}")
    if (sockets := arguments.get("socket_options")) is not None:
        arguments["socket_options"] = [tuple(option) for option in sockets]
    if (reference := arguments.get("sasl_oauth_token_provider")) is not None:
        module, _, name = reference.partition(":")
        arguments["sasl_oauth_token_provider"] = getattr(importlib.import_module(module), name)()
    return arguments


def _number(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise ValueError(f"kafka.{name} must be a whole number, not {value!r}") from None
    if number < 0 or isinstance(value, bool):
        raise ValueError(f"kafka.{name} must be a whole number of at least 0, not {value!r}")
    return number


def _is_reference(text: object) -> bool:
    module, colon, name = str(text).partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))
