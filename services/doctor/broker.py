"""Kafka's brokers: whether they answer, at which addresses, as which version; their clock. May import brokers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from services.brokers import kafka_options
from services.brokers.kafka_options import Options
from services.doctor.lines import CheckResult, Target, days

LEAST = (2, 5)
"""The first Kafka whose transactions can be fenced without a consumer group's members (KIP-447)."""
AHEAD_MS, FAR_AHEAD_MS = 1_000, 60_000
CONNECT_S = 3.0


def kafka(patient: Target) -> Iterator[CheckResult]:
    """Bootstrap servers answer; every broker can be reached at the address it tells; it is new enough."""
    from services.brokers import kafka_survey
    from services.brokers.kafka_connect import Misfit
    from services.predictor.ports import Refused, Retriable

    settings = patient.settings
    try:
        cluster = kafka_survey.cluster(settings.kafka)
    except Misfit as error:
        yield CheckResult("kafka", "fail", error.said, f"{error.fix.rstrip('.')}.")
        return
    except (Retriable, Refused) as error:
        yield CheckResult("kafka", "fail", str(error), _advice(settings.kafka))
        return
    yield CheckResult(
        "kafka",
        "ok",
        f"{kafka_options.brokers(settings.kafka)}: cluster {cluster.name} with {len(cluster.brokers)} brokers",
    )
    if not settings.kafka.get("proxy_url"):
        for broker in cluster.brokers:
            if why := _unreachable(broker.host, broker.port):
                yield CheckResult(
                    "kafka",
                    "fail",
                    f"broker {broker.number} tells its clients to come to {broker.host}:"
                    f"{broker.port}, which cannot be reached from here: {why}",
                    "Correct the broker's advertised.listeners, or this machine's names and routes.",
                )
    spoken = ".".join(map(str, cluster.version))
    if not cluster.version:
        yield CheckResult("kafka", "unknown", "no broker could be asked for its version", "See the lines above.")
    elif cluster.version < LEAST:
        yield CheckResult(
            "kafka",
            "fail",
            f"the oldest broker speaks as Kafka {spoken}",
            f"Use Kafka {'.'.join(map(str, LEAST))} or later.",
        )
    else:
        yield CheckResult("kafka", "ok", f"the brokers speak as Kafka {spoken}, or later")
    most_ms = int(cluster.settings.get("transaction.max.timeout.ms", -1))
    if 0 <= most_ms < settings.epoch.timeout_s * 1000:
        yield CheckResult(
            "kafka",
            "fail",
            f"epoch.timeout_s is {settings.epoch.timeout_s:g}, and the brokers allow "
            f"transactions of {days(most_ms)} at most",
            f"Set epoch.timeout_s: {most_ms // 1000}, or raise transaction.max.timeout.ms.",
        )


def _advice(options: Options) -> str:
    """What to do when no answer comes, by whether anybody listens."""
    listening = []
    for server in kafka_options.consumer(options)["bootstrap_servers"]:
        host, _, port = server.rpartition(":")
        if port.isdecimal() and not _unreachable(host.strip("[]"), int(port)):
            listening.append(server)
    if not listening:
        return "Correct kafka.bootstrap_servers, or start Kafka and look again."
    return (
        f"{listening[0]} listens. Its broker may send clients on to where nobody can be reached from here: correct its "
        "advertised.listeners."
    )


def _unreachable(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S):
            return ""
    except OSError as error:
        return str(error.strerror or error)


def clock(patient: Target) -> Iterator[CheckResult]:
    """This machine's clock beside Kafka's."""
    from services.brokers.kafka_survey import skew

    found = skew(patient.settings.kafka, patient.clock_s)
    if found is None:
        yield CheckResult(
            "clock",
            "unknown",
            "this Kafka does not say what time it is: that takes Kafka 3.3 or later with "
            "KRaft, and the right DESCRIBE on the cluster",
            "Compare both machines' clocks with chronyc or timedatectl.",
        )
        return
    off_ms = max(0.0, abs(found.ahead_ms) - found.error_ms)
    way = "ahead of" if found.ahead_ms > 0 else "behind"
    text = f"this clock is {abs(found.ahead_ms) / 1000:.3f} s {way} Kafka's, give or take {found.error_ms / 1000:.3f} s"
    if off_ms < AHEAD_MS:
        yield CheckResult("clock", "ok", text)
    else:
        yield CheckResult(
            "clock",
            "fail" if off_ms >= FAR_AHEAD_MS else "warn",
            f"{text}: latencies, lags and the ages of streams are wrong by that much",
            "Let NTP set both clocks (`timedatectl set-ntp true`).",
        )
