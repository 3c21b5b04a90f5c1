"""Offsets, states and topics that no longer belong together, on a real Kafka: a start finds out, serve and doctor say
so in the same words, and nothing is lost or doubled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chaos import random_model
from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import PolicyViolationError
from serving import Serving, streamrnn
from told_apart import BOTH, Owner, Twins
from waiting import wait_for

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_connect import Producer, drop, open_admin, open_producer
from services.doctor import CheckResult, Target, examined
from services.doctor.examination import CHECKS
from services.predictor.ports import Refused


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "model", seed=1)


@pytest.fixture
def twins(broker: DevBroker, model: Path, tmp_path: Path, topic_names: Callable[[], str]) -> Twins:
    short = {"bootstrap_servers": broker.bootstrap, "metadata_max_age_ms": 3000}  # the server looks at topics as often
    return Twins(tmp_path, broker.bootstrap, model, topic_names(), epoch={"timeout_s": 5}, kafka=short)


def states(twins: Twins) -> list[CheckResult]:
    """What the doctor says of what this is about."""
    checks = tuple(check for check in CHECKS if check.name in ("kafka", "topics", "states"))
    return [line for line in examined(Target(twins.settings, limit_s=60.0), checks) if line.check == "states"]


def start_over(twins: Twins, *more: str) -> str:
    done = streamrnn("topics", "start-over", "-c", str(twins.config), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(sentence: str) -> str:
    """Without what a sentence and a line of the doctor have differently: the dot between what is and what to do."""
    return sentence.lower().replace(". ", " ").replace("; ", " ").rstrip(".")


# ---- a transaction that has not ended --------------------------------------------------------------------------------


@pytest.fixture
def foreigner(twins: Twins) -> Iterator[Producer]:
    """Somebody whose transaction stays open."""
    made = open_producer(twins.kafka, transactional_id=f"foreign-{twins.pipeline}", transaction_timeout_ms=800_000)
    made.init_transactions()
    yield made
    drop(made, wait_s=2.0)


def test_states_behind_an_open_transaction_are_waited_for_and_never_left_out(twins: Twins, foreigner: Producer) -> None:
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(2)
        foreigner.begin_transaction()
        foreigner.send(twins.topic("changelog"), b"?", b"somebody else's", partition=0)
        foreigner.flush()
        owner.answers(3)  # their states lie behind the transaction
    with Owner(twins) as owner:
        with pytest.raises(Refused) as refused:
            owner.shard.start()
        assert len(owner.said("changelog_held_open")) == 10, "it has waited, and said so"
    why = str(refused.value)
    assert "producer id" in why and f"transactional id foreign-{twins.pipeline}" in why
    assert f"kafka-transactions.sh --bootstrap-server {twins.kafka['bootstrap_servers']} abort" in why
    assert f"--topic {twins.topic('changelog')} --partition 0 --start-offset" in why
    (line,) = states(twins)
    assert (line.level, plain(f"{line.said} {line.fix}")) == ("fail", plain(why))

    ends = iter([foreigner.abort_transaction])
    with Owner(twins, lambda seconds: next(ends, lambda: time.sleep(0.1))()) as owner:
        owner.shard.start()
        assert owner.said("changelog_held_open")
        owner.answers(2)
    assert [line.level for line in states(twins)] == ["ok"]


# ---- topics made anew ------------------------------------------------------------------------------------------------


def test_a_changelog_that_was_made_anew_is_not_taken_for_no_states(twins: Twins) -> None:
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(3)
    twins.make_anew("changelog")
    with Owner(twins) as owner, pytest.raises(Refused) as refused:
        owner.shard.start()
    assert f"topic {twins.topic('changelog')} was deleted and made anew" in str(refused.value)
    (line,) = states(twins)
    assert (line.level, plain(f"{line.said} {line.fix}")) == ("fail", plain(str(refused.value)))

    told = start_over(twins, "--dry-run")
    assert f"made anew  {twins.topic('changelog')}" in told
    assert "partition 0: 0 states are forgotten; the group stands at 3 and goes on at 3" in told
    assert [line.level for line in states(twins)] == ["fail"], "nothing was done"
    start_over(twins, "--yes")
    assert [line.level for line in states(twins)] == ["ok"]
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(3)


def test_readings_that_are_made_anew_under_a_running_server_end_it(twins: Twins) -> None:
    with Serving(twins.config) as server:
        server.ready()
        twins.send(20)
        server.until(lambda: set(twins.offsets().values()) == {20}, "all are read")
        twins.make_anew("readings")
        twins.sent = 0
        twins.send(40)
        assert server.ended() == 4, server.tail()
        (leaving,) = server.events("leaving")
        assert f"topic {twins.topic('readings')} was deleted and made anew" in leaving["reason"]
        assert "streamrnn topics start-over" in leaving["reason"]
    (line,) = states(twins)
    assert (line.level, plain(f"{line.said} {line.fix}")) == ("fail", plain(leaving["reason"]))
    twins.make_anew("predictions")  # those of before are not to be counted
    start_over(twins, "--yes")
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(2)  # 42 of 42


def test_a_changelog_of_which_only_older_records_were_deleted(twins: Twins) -> None:
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(2)
        owner.answers(1)  # which writes newer rows and sentinels
    tps = [TopicPartition(twins.topic("changelog"), partition) for partition in BOTH]

    def policy(value: str) -> None:
        with open_admin(twins.kafka) as admin:
            admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, tps[0].topic, configs={"cleanup.policy": value})]
            )

    policy("delete")
    with open_admin(twins.kafka) as admin:
        wait_for(lambda: deletes(admin, dict.fromkeys(tps, 1)), "records of the changelog may be deleted")
    policy("compact")
    assert [(line.level, "records before offset 1 were deleted" in line.said) for line in states(twins)] == [
        ("warn", True), ("warn", True), ("ok", False),
    ]  # fmt: skip
    with Owner(twins) as owner:
        owner.shard.start()
        assert owner.said("states_deleted") == [{"partition": p, "before": 1, "since": 0} for p in BOTH]
        owner.answers(1)
    assert [line.level for line in states(twins)] == ["ok"], "it has been said"


def deletes(admin: KafkaAdminClient, before: dict[TopicPartition, int]) -> bool:
    """Deletes records; whether Kafka let it."""
    try:
        admin.delete_records(before)
    except PolicyViolationError:  # the change of the policy has not come to the partition's leader yet
        return False
    return True


def test_offsets_that_were_moved_are_refused_until_one_starts_over(twins: Twins) -> None:
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(3)
    moved = {TopicPartition(twins.topic("readings"), partition): OffsetAndMetadata(5, "", -1) for partition in (0, 1)}
    twins.send(4)
    with open_admin(twins.kafka) as admin:
        admin.alter_group_offsets(twins.group, moved)
    with Owner(twins) as owner, pytest.raises(Refused, match="those of the readings between are missing") as refused:
        owner.shard.start()
    (line,) = states(twins)
    assert (line.level, plain(f"{line.said} {line.fix}")) == ("fail", plain(str(refused.value)))
    twins.make_anew("predictions")
    assert "1 states are forgotten; the group stands at 5 and goes on at 0" in start_over(
        twins, "--yes", "--from", "beginning"
    )
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(1)


# ---- what Kafka forgets ----------------------------------------------------------------------------------------------

FORGETFUL = {
    "transactional.id.expiration.ms": "4000",
    "transaction.remove.expired.transaction.cleanup.interval.ms": "200",
    "producer.id.expiration.ms": "1000",
    "producer.id.expiration.check.interval.ms": "200",
    "offsets.retention.minutes": "1",
    "offsets.retention.check.interval.ms": "1000",
}
"""Ids are forgotten after four seconds; offsets after a minute, the least that Kafka can be told."""


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[DevBroker]:
    running = DevBroker(tmp_path / "broker", owned=True, overrides=FORGETFUL)
    try:
        yield running.start()
    finally:
        running.kill()


def ids(twins: Twins) -> list[str]:
    """Transactional ids that Kafka knows."""
    with open_admin(twins.kafka) as admin:
        return [one.transactional_id for found in admin.list_transactions().values() for one in found]


def test_a_pipeline_outlives_what_kafka_forgets(forgetful: DevBroker, model: Path, tmp_path: Path) -> None:
    twins = Twins(tmp_path, forgetful.bootstrap, model, "idle")
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(3)
        number = twins.signature()
        owner.turns(
            lambda: twins.signature() > number + 8, "it renews four times within an expiration, for two of them"
        )
        assert ids(twins), "its id has outlived its expiration"
        with open_admin(twins.kafka) as admin:
            admin.delete_groups([twins.group])
        owner.turns(lambda: twins.offsets() == {0: 3, 1: 3}, "the next renewal says again where it stands")
        owner.answers(3)
    wait_for(lambda: not ids(twins), "the stopped server's id is forgotten")
    with open_admin(twins.kafka) as admin:
        admin.delete_groups([twins.group])
    forgotten, soon = states(twins)
    assert forgotten.level == soon.level == "warn"
    assert "has forgotten the offsets" in forgotten.said and "forgets an idle pipeline within 4 s" in soon.said
    with Owner(twins) as owner:
        owner.shard.options = replace(owner.shard.options, renew_ms=None)  # no renewal is to say it in its stead
        owner.shard.start()
        assert owner.said("offsets_expired") == [{"partitions": [0, 1], "offsets": {0: 6, 1: 6}}]
        owner.turns(lambda: twins.offsets() == {0: 6, 1: 6}, "it says at once where it stands")
        owner.answers(3)


def test_a_pipeline_without_transactions_outlives_what_kafka_forgets(
    forgetful: DevBroker, model: Path, tmp_path: Path
) -> None:
    twins = Twins(tmp_path, forgetful.bootstrap, model, "idle", delivery="at_least_once")

    def forgotten() -> None:
        with open_admin(twins.kafka) as admin:
            admin.delete_groups([twins.group])

    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(3)
        number = twins.signature()
        owner.turns(lambda: twins.signature() > number + 8, "it renews, and its producer's id is forgotten meanwhile")
        forgotten()
        owner.turns(lambda: twins.offsets() == {0: 3, 1: 3}, "the next renewal says again where it stands")
        owner.answers(3)
    forgotten()
    with Owner(twins) as owner:
        owner.shard.start()
        assert owner.said("offsets_expired") == [{"partitions": [0, 1], "offsets": {0: 6, 1: 6}}]
        owner.turns(lambda: twins.offsets() == {0: 6, 1: 6}, "it says at once where it stands")
        owner.answers(3)


@pytest.mark.slow
def test_offsets_that_kafka_itself_has_forgotten(forgetful: DevBroker, model: Path, tmp_path: Path) -> None:
    """In real time: a minute is the least that Kafka can be told to keep offsets."""
    twins = Twins(tmp_path, forgetful.bootstrap, model, "idle")
    with Owner(twins) as owner:
        owner.shard.start()
        owner.answers(3)
        number = twins.signature()
        owner.turns(lambda: twins.signature() > number + 80, "80 renewals, one a second")
        assert twins.offsets() == {0: 3, 1: 3}, "an idle owner is not forgotten"
        owner.answers(3)
    wait_for(lambda: not twins.offsets(), "Kafka forgets the offsets of a stopped one")
    with Owner(twins) as owner:
        owner.shard.start()
        assert owner.said("offsets_expired")
        owner.answers(3)
