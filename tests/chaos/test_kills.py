"""SIGKILL and SIGSTOP on real Kafka and real Ray; every prediction is compared with an offline unroll, bit for bit.

In full by `make chaos`, and a short form of it in `make test`.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import pytest
from chaos import Chaos, soak
from verdict import Report, verify

from services.brokers.kafka_client import ColumnProducer, read_topic

pytestmark = pytest.mark.chaos

SEED = 20_261_123


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_nothing_is_lost_or_doubled_by_fifty_kills_of_actors_ten_of_the_broker_and_five_zombies() -> None:
    report = soak(kills=50, broker_kills=10, zombies=5, seed=SEED)
    assert (report.kills, report.broker_kills, report.zombies) == (50, 10, 5)
    assert report.readings > 5_000
    assert report.rejected > 0
    assert report.clean, asdict(report)
    assert report.zombies_fenced > 0, asdict(report)  # woke up, and found themselves shut out


def test_nothing_is_lost_or_doubled_by_some_kills_of_actors_and_of_the_broker_and_by_a_zombie() -> None:
    with Chaos(SEED, rate=100.0, stall_timeout_s=6.0) as chaos:
        chaos.suffer(kills=6, broker_kills=2, zombies=1)
        report = chaos.finish()
        assert (report.kills, report.broker_kills, report.zombies) == (6, 2, 1)
        assert report.readings > 1_000 and report.rejected > 0
        assert report.clean, asdict(report)

        again = read_topic(chaos.settings.kafka, chaos.settings.topics.predictions)[0]
        reading = read_topic(chaos.settings.kafka, chaos.settings.topics.readings)[0]
        write(chaos, chaos.settings.topics.predictions, again.keys[0], again.values[0])
        assert (judged(chaos).doubled, judged(chaos).lost) == (1, 0), "the check sees what is there twice"
        write(chaos, chaos.settings.topics.readings, reading.keys[0], b'{"at": 1800000000000, "x": [1, 2, 3]}')
        spoiled = judged(chaos)
        assert (spoiled.lost, spoiled.bit_identical, spoiled.state_identical, spoiled.offsets_agree) == (
            1, True, False, False,
        ), "the check sees what is not there"  # fmt: skip


def write(chaos: Chaos, topic: str, key: bytes | None, value: bytes | None) -> None:
    with ColumnProducer(chaos.settings.kafka) as producer:
        producer.append(topic, 0, [key], [value], time.time_ns() // 1_000_000)
        producer.flush()


def judged(chaos: Chaos) -> Report:
    """What the check says of the topics as they are."""
    report = Report()
    verify(chaos.settings, read_topic(chaos.settings.kafka, chaos.settings.topics.readings), report)
    return report


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_same_blows_without_transactions_do_double_readings() -> None:
    """Shows that it is the transaction: all else is the same. A reading is doubled when the kill falls between its
    prediction and its state row, so the writing must hardly ever pause.
    """
    with Chaos(SEED, delivery="at_least_once", rate=3000.0, tick_s=0.003) as chaos:
        for _ in range(20):
            for shard in range(chaos.shards):
                chaos.kill_actor(shard)
        report = chaos.finish()
    assert report.doubled > 0, asdict(report)
    assert report.lost == 0, "at-least-once must still answer everything"
