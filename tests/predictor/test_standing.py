"""Whether offsets, states and topics belong together when a shard starts, in memory; on Kafka: tests/services."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.brokers.memory import Crash, FaultPoint, Faults, InjectedFault, MemoryChangelog
from services.codecs import sentinels
from services.driver import GROUP, StreamDriver
from services.predictor.ports import Changelog, Refused
from services.records import Encoded, Flag, Role

AT = 1_700_000_000_000


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(ModelConfig(("flow", "level"), cell="lstm", hidden=6)).eval()


def sent(driver: StreamDriver, first: int, count: int) -> None:
    for step in range(first, first + count):
        for stream in ("a", "b", "c"):
            driver.send(stream, at=AT + step, x=[float(step), 1.0])


def bits(driver: StreamDriver) -> list[tuple[str, int, bytes]]:
    return [(one.stream, one.offset, np.asarray(one.y).tobytes()) for one in driver.predictions()]


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_start_without_offsets_goes_on_where_the_changelog_says(network: Network, exactly_once: bool) -> None:
    ours, calm = (StreamDriver(network, partitions=2, exactly_once=exactly_once) for _ in range(2))
    for driver in (ours, calm):
        sent(driver, 0, 3)
        driver.run()
    ours.crash()
    offsets = ours.broker.offsets(GROUP)
    ours.broker.compact(Role.CHANGELOG, delete_retention_ms=0)
    ours.broker.forget_offsets(GROUP)
    ours.turn()
    assert ours.broker.offsets(GROUP) == {0: 0, **offsets}, "the first turn says again where the group stands"
    for driver in (ours, calm):
        sent(driver, 3, 3)
        driver.run()
    assert bits(ours) == bits(calm)


def test_without_transactions_a_sentinel_that_is_ahead_of_expired_offsets_loses_and_doubles_nothing(
    network: Network,
) -> None:
    faults = Faults.once(FaultPoint.BEFORE_OFFSETS, InjectedFault.CRASH, nth=2)
    ours, calm = StreamDriver(network, exactly_once=False, faults=faults), StreamDriver(network, exactly_once=False)
    sent(ours, 0, 2)
    ours.run()
    sent(ours, 2, 2)
    with pytest.raises(Crash):
        ours.run()
    assert ours.broker.offsets(GROUP) == {0: 6}
    ours.broker.forget_offsets(GROUP)
    sent(ours, 4, 2)
    ours.run()
    sent(calm, 0, 6)
    calm.run()
    assert bits(ours) == bits(calm)


def test_a_store_that_is_behind_what_was_committed_is_refused(network: Network) -> None:
    driver = StreamDriver(network)
    sent(driver, 0, 2)
    driver.run()
    driver.crash()
    driver.broker.write_offsets(GROUP, {0: 7})
    with pytest.raises(Refused, match=r"committed offset is 7, but the changelog's states end before reading 6"):
        driver.restart()


def test_a_changelog_whose_records_were_deleted_is_not_taken_for_no_states(network: Network) -> None:
    driver = StreamDriver(network)
    sent(driver, 0, 2)
    driver.run()
    driver.crash()
    offsets = driver.broker.offsets(GROUP)
    driver.broker.truncate(Role.CHANGELOG, 0, driver.broker.log(Role.CHANGELOG, 0).end)
    with pytest.raises(Refused, match="changelog holds nothing of what was committed"):
        driver.restart()
    assert driver.broker.offsets(GROUP) == offsets


@pytest.mark.parametrize("exactly_once", [True, False])
def test_states_of_which_only_the_older_were_deleted_are_told_of_once(network: Network, exactly_once: bool) -> None:
    driver = StreamDriver(network, exactly_once=exactly_once)
    sent(driver, 0, 1)
    driver.run()
    between = driver.broker.log(Role.CHANGELOG, 0).end
    driver.send("d", at=AT, x=[1.0, 1.0])
    driver.run()
    driver.broker.compact(Role.CHANGELOG, delete_retention_ms=0)
    driver.crash()
    driver.restart()
    assert "states_deleted" not in [name for name, _ in driver.events], "compaction deletes nobody's newest"
    driver.crash()
    driver.broker.truncate(Role.CHANGELOG, 0, between)
    driver.restart()
    assert ("states_deleted", {"partition": 0, "before": between, "since": 0}) in driver.events
    sent(driver, 1, 1)
    driver.run()
    assert [Flag.NEW in one.flags for one in driver.predictions()] == [True] * 7
    driver.crash()
    driver.events.clear()
    driver.restart()
    assert "states_deleted" not in [name for name, _ in driver.events]


def test_an_idle_partition_beside_a_busy_one_is_signed_as_often(network: Network) -> None:
    driver = StreamDriver(network, partitions=2)
    reading = b'{"at": 1700000000000, "x": [1, 2]}'
    for partition in (0, 1):
        driver.send_record(b"pump", reading, partition=partition)
    driver.run()
    assert driver.shard is not None
    driver.shard.options = replace(driver.shard.options, renew_ms=10_000)
    signed = driver.broker.records(Role.CHANGELOG, 1).keys.count(sentinels.KEY)
    for _ in range(6):  # never is nothing committed for as long as 10 s
        driver.advance(4_000)
        driver.send_record(b"pump", reading, partition=0)
        driver.run()
    assert driver.broker.records(Role.CHANGELOG, 1).keys.count(sentinels.KEY) - signed == 2


def test_offsets_that_an_operator_has_set_beforehand_are_where_a_pipeline_begins(network: Network) -> None:
    driver = StreamDriver(network)
    sent(driver, 0, 2)
    driver.broker.write_offsets(GROUP, {0: 3})
    driver.run()
    assert [one.offset for one in driver.predictions()] == [3, 4, 5]
    driver.crash()
    driver.restart()


def test_states_of_other_topics_are_refused_also_without_offsets(network: Network) -> None:
    driver = StreamDriver(network)
    sent(driver, 0, 2)
    driver.run()
    driver.crash()
    driver.broker.remake(Role.READINGS)  # which takes the group's offsets with it
    with pytest.raises(Refused, match="made anew"):
        driver.restart()


def test_an_open_transaction_over_the_changelog_is_waited_for_then_refused(network: Network) -> None:
    driver = StreamDriver(network)
    sent(driver, 0, 2)
    driver.run()
    driver.crash()
    foreign = driver.broker.init_producer("foreign")
    driver.broker.write(Encoded(Role.CHANGELOG, 0, [b"?"], [b"?"], 0), "foreign", foreign)
    began_ms = driver.now_ms
    with pytest.raises(Refused, match=r"producer id \d+ has been open since offset"):
        driver.restart()
    assert driver.now_ms - began_ms >= 60_000
    driver.broker.end("foreign", foreign, commit=False)
    driver.broker.complete("foreign")
    driver.restart()


# ---- records with the sentinel's key that are none of ours -----------------------------------------------------------

FORGED: dict[str, bytes | None] = {
    "something else": b"something else",
    "a tombstone": None,
    "of another partition": sentinels.encode(sentinels.Sentinel(7, 6, 0, {})),
    "of before all readings": sentinels.encode(sentinels.Sentinel(0, -1, 0, {})),
    "of topics that are no text": sentinels.encode(sentinels.Sentinel(0, 6, 0, {}))[:-16] + b"\xff" * 16,
    "of other topics": sentinels.encode(sentinels.Sentinel(0, 6, 0, dict.fromkeys(Role, "other"))),
}


class InPieces(StreamDriver):
    """Its changelog is read one record at a time."""

    def changelog(self) -> Changelog:
        return MemoryChangelog(self.broker, chunk=1)


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize("compacted", [True, False])
@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("kind", [StreamDriver, InPieces])
def test_a_stray_record_in_a_sentinels_place_neither_refuses_a_start_nor_changes_it(
    network: Network, kind: type[StreamDriver], forged: bytes | None, compacted: bool, exactly_once: bool
) -> None:
    ours, calm = (kind(network, exactly_once=exactly_once) for _ in range(2))
    for driver in (ours, calm):
        sent(driver, 0, 2)
        driver.run()
        driver.crash()
    ours.broker.append(Role.CHANGELOG, 0, sentinels.KEY, forged)
    if compacted:
        ours.broker.compact(Role.CHANGELOG)
    if compacted and forged == FORGED["of other topics"]:
        with pytest.raises(Refused, match=r"made anew.*start over"):  # nothing tells it from one that is true
            ours.restart()
        return
    shard = ours.restart()
    assert shard.stats.internal_errors == {"restore": 1}
    assert shard.stats.unreadable_streams == 0, "it is no stream's trouble"
    for driver in (ours, calm):
        sent(driver, 2, 2)
        driver.run()
    assert bits(ours) == bits(calm)
    ours.crash()
    assert ours.restart().stats.internal_errors == {}, "the next sentinel is newer"


def test_a_stray_record_is_passed_over_also_where_the_offsets_have_expired(network: Network) -> None:
    driver = StreamDriver(network)
    sent(driver, 0, 2)
    driver.run()
    driver.crash()
    for forged in FORGED.values():
        driver.broker.append(Role.CHANGELOG, 0, sentinels.KEY, forged)
    driver.broker.forget_offsets(GROUP)
    driver.turn()
    assert driver.broker.offsets(GROUP) == {0: 6}


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize("expired", [True, False])
def test_a_forged_sentinel_of_todays_topics_loses_and_doubles_nothing(
    network: Network, expired: bool, exactly_once: bool
) -> None:
    driver = StreamDriver(network, exactly_once=exactly_once)
    sent(driver, 0, 2)
    driver.run()
    driver.crash()
    forged = sentinels.Sentinel(0, 1 << 62, 0, driver.broker.topic_ids())
    driver.broker.append(Role.CHANGELOG, 0, sentinels.KEY, sentinels.encode(forged))
    if expired:
        driver.broker.forget_offsets(GROUP)
    if exactly_once or expired:
        with pytest.raises(Refused, match="start over with `streamrnn topics start-over`"):
            driver.turn()
        assert driver.broker.offsets(GROUP) == ({} if expired else {0: 6})
    else:
        sent(driver, 2, 2)
        driver.run()
        assert [one.offset for one in driver.predictions()] == [*range(12)], "the group's own offset counts"


def test_a_stray_record_in_a_changelog_without_more_is_no_start_of_something_else(network: Network) -> None:
    driver = StreamDriver(network)
    driver.broker.append(Role.CHANGELOG, 0, sentinels.KEY, b"something else")
    sent(driver, 0, 1)
    driver.run()
    assert len(driver.predictions()) == 3
