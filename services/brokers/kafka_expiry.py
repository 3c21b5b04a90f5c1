"""When Kafka forgets whom it has not heard of: a group's offsets, and transactional ids. kafka-python lives here."""

from __future__ import annotations

from typing import NamedTuple

from services.brokers.kafka_connect import asked, open_admin
from services.brokers.kafka_options import Options
from services.brokers.kafka_survey import broker_settings

DAY_MS = 86_400_000
LEAST_MS = 100


class Expiry(NamedTuple):
    """After how long without a commit; None where this user may not see the brokers' settings."""

    offsets_ms: int | None  # offsets.retention.minutes
    ids_ms: int | None  # transactional.id.expiration.ms


def read(options: Options) -> Expiry:
    """As one of the brokers has it. Raises Retriable when none answers."""
    with open_admin(options) as admin:
        found = asked(options, "describing the cluster", admin.describe_cluster)
        settings = broker_settings(admin, found["brokers"][0]["broker_id"])
    minutes, ids_ms = settings.get("offsets.retention.minutes"), settings.get("transactional.id.expiration.ms")
    return Expiry(None if minutes is None else int(minutes) * 60_000, None if ids_ms is None else int(ids_ms))


def renew_ms(expiry: Expiry) -> int:
    """How often an idle owner commits where it stands: daily, and four times before anything of it is forgotten."""
    known = [one // 4 for one in expiry if one is not None]
    return max(LEAST_MS, min([DAY_MS, *known]))
