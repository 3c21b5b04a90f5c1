"""Opens and drops kafka-python's clients without leaving threads behind, and says what their errors mean to the caller.

Every failure becomes one of the ports' errors: `Retriable` (try again), `Fenced` (leave), `Refused` (a person acts).
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors

from services.brokers import kafka_listener, kafka_logins, kafka_options
from services.brokers.kafka_batch import CODECS
from services.brokers.kafka_options import Options
from services.brokers.kafka_producer import Producer
from services.predictor.ports import Fenced, Refused, Retriable

# The library logs every attempt to reconnect as errors, dozens a second; what matters of it becomes an error of ours.
# Whoever wants to read it sets the level of this logger beforehand.
if (library := logging.getLogger("kafka")).level == logging.NOTSET:
    library.setLevel(logging.CRITICAL)

T = TypeVar("T")

ANSWER_MS = 5_000
"""How long a question may take that is asked outside of transactions."""

DENIED = (
    kafka_errors.AuthorizationError,
    kafka_errors.SecurityDisabledError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.UnsupportedCodecError,
    kafka_errors.InvalidTransactionTimeoutError,
)
LOGIN = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)
LIBRARY_NAMES = re.compile(r"^(?:\[Error \d+\] |\w+Error: )+")
"""What the client library puts before the brokers' own words."""
FENCED = (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError)


class Misfit(Retriable):
    """A broker is there, and does not take the connection or the login as it is set up. Waiting harms nothing, and ends
    when the broker's side is mended; `fix` is what a person can do on this one.
    """

    def __init__(self, said: str, fix: str) -> None:
        super().__init__(f"{said}. {fix}")
        self.said, self.fix = said, fix


def open_consumer(options: Options, **own: Any) -> KafkaConsumer:
    """A consumer that commits nothing by itself and sees committed records only, unless `own` says otherwise."""
    fixed = {
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }
    return _open(KafkaConsumer, kafka_options.consumer, options, {**fixed, **own})


def open_producer(options: Options, **own: Any) -> Producer:
    """An idempotent producer; with `transactional_id` in `own`, a transactional one."""
    fixed = {
        "acks": "all",
        "linger_ms": 0,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }
    producer: Producer = _open(Producer, kafka_options.producer, options, {**fixed, **own})
    return producer


def open_admin(options: Options) -> KafkaAdminClient:
    """An admin client; use it in a `with`."""
    return _open(KafkaAdminClient, kafka_options.admin, options, {})


def drop(producer: KafkaProducer, wait_s: float = 0.0) -> None:
    """Lets go of a producer whatever state it is in. Returns after `wait_s` even if closing blocks, which it can."""

    def close() -> None:
        with suppress(Exception):
            producer._sender.force_close()
        with suppress(Exception):
            producer.close(timeout=5)

    closing = threading.Thread(target=close, name="kafka-producer-drop", daemon=True)
    closing.start()
    closing.join(wait_s)


def close_consumer(consumer: KafkaConsumer) -> None:
    """Closes a consumer that has committed nothing; never raises."""
    with suppress(Exception):
        consumer.close(autocommit=False, timeout_ms=1000)


def is_connected(consumer: KafkaConsumer) -> bool:
    """Whether any broker is connected at this moment; True when that cannot be told."""
    client = getattr(consumer, "_client", None)
    try:
        return any(client.connected(broker.node_id) for broker in client.cluster.brokers())  # type: ignore[union-attr]
    except Exception:
        return True


def missing_codec(options: Options) -> str:
    """What to install for `kafka.compression_type`; empty: nothing."""
    wanted = str(options.get("compression_type") or "none").lower()
    if all(name != wanted or is_installed() for name, is_installed in CODECS.values()):
        return ""
    return f"kafka.compression_type is {wanted}, which is not installed; run `pip install 'streamrnn[fast]'`"


def check_partitions(options: Options, consumer: KafkaConsumer, topic: str, partitions: Iterable[int]) -> None:
    """Raises Refused when the topic or one of the partitions does not exist, Retriable when nobody answers."""
    found = asked(options, f"looking for topic {topic}", consumer.partitions_for_topic, topic)
    if not found:
        raise Refused(
            f"topic {topic} does not exist at {kafka_options.brokers(options)}, or this user may not see it; "
            "create it with `streamrnn topics create`, or give its name under `topics`"
        )
    if missing := sorted(set(partitions) - set(found)):
        raise Refused(f"topic {topic} has {len(found)} partitions, and partition {missing[0]} is expected; "
                      "add partitions to it, or lower topics.partitions")  # fmt: skip


def asked(options: Options, doing: str, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """The value of a call, whose failures become the ports' errors."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        raise meaning(error, options, doing) from error


def meaning(error: Exception, options: Options, doing: str) -> Exception:
    """The port's error for a failure of the client library, with what was being done and what to do about it."""
    if isinstance(error, Retriable | Fenced | Refused):
        return error
    if isinstance(error, LOGIN):
        return _login_refused(error, options)
    where = f"{doing} ({kafka_options.brokers(options)})"
    name = type(error).__name__
    said = str(error) if name in str(error) else f"{name}: {error}"
    if isinstance(error, DENIED):
        return Refused(f"{where} was refused: {said}. Check the kafka: settings, and the ACLs of this user")
    return Retriable(f"{where} failed: {said}")


def is_fenced(error: BaseException | None) -> bool:
    """True when the error, or one that it wraps, says that the transactional id has another owner."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, FENCED):
            return True
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = inner or error.__cause__ or error.__context__
    return False


def _open(kind: Any, chosen: Callable[[Options], dict[str, Any]], options: Options, own: dict[str, Any]) -> Any:
    clients: list[Any] = []
    try:
        arguments = {**chosen(options), **own}
    except ValueError as error:
        raise Refused(str(error)) from error

    if kind is Producer and (missing := missing_codec(options)):
        raise Refused(missing)

    def remember(**configs: Any) -> Any:
        clients.append(kafka_logins.client(kind, arguments, **configs))
        return clients[-1]

    try:
        return kind(**{**arguments, "kafka_client": remember})
    except Exception as error:
        for client in clients:
            with suppress(Exception):
                client.close()
        if isinstance(error, kafka_errors.KafkaTimeoutError | kafka_errors.KafkaConnectionError):
            raise _silence(arguments, options) from error
        raise meaning(error, options, "connecting to Kafka") from error


def refused_login(options: Options) -> Misfit | None:
    """Whether the last login of this process was refused, without asking."""
    error = kafka_logins.gate_of(kafka_options.consumer(options)).error
    return None if error is None else _login_refused(error, options)


def _login_refused(error: Exception, options: Options) -> Misfit:
    user, mechanism = options.get("sasl_plain_username"), options.get("sasl_mechanism")
    return Misfit(
        f"Kafka at {kafka_options.brokers(options)} refuses the login{f' of {user}' if user else ''} by {mechanism}: "
        f"{LIBRARY_NAMES.sub('', str(error)) or type(error).__name__}",
        "Check kafka.sasl_plain_username, kafka.sasl_plain_password and kafka.sasl_mechanism. Logins are tried again "
        f"after {kafka_logins.FIRST_S:.0f} s, then ever later, up to once in {kafka_logins.LONGEST_S:.0f} s",
    )


def _silence(arguments: dict[str, Any], options: Options) -> Retriable:
    """What to say of brokers that do not answer, after a look at those that listen."""
    if (error := kafka_logins.gate_of(arguments).error) is not None:
        return _login_refused(error, options)
    silent = f"Kafka at {kafka_options.brokers(options)} does not answer"
    if arguments.get("proxy_url"):
        return Retriable(f"{silent}: no connection through kafka.proxy_url")
    why = ""
    for server in arguments["bootstrap_servers"]:
        host, _, port = server.rpartition(":")
        try:
            found = kafka_listener.mismatch(host.strip("[]") or "127.0.0.1", int(port), arguments)
        except (OSError, ValueError) as error:
            why = why or str(error)
            continue
        if found is not None:
            return Misfit(*found)
        why = "the port is open, but no answer came; its broker may be starting, or send clients on to where nobody is"
        break
    return Retriable(f"{silent}: {why}")
