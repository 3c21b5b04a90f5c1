"""How far a shard is behind, in seconds; what it says it has lost; when it last kept something."""

from __future__ import annotations

import numpy as np
import pytest

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.brokers.memory import FaultPoint, Faults, InjectedFault
from services.driver import START_MS, StreamDriver
from services.predictor.lag import Lag
from services.records import Records, Role


def polled(partition: int, *timestamps_ms: int) -> Records:
    n = len(timestamps_ms)
    return Records(partition, np.arange(n), np.array(timestamps_ms), [b"pump-1"] * n, [b"{}"] * n)


def test_what_is_unread_came_after_what_was_read_last() -> None:
    lag = Lag()
    assert lag.see([polled(0, 1_000, 2_000)], {0: 5}, now_ms=62_000) == 60
    assert lag.see([], {0: 5}, now_ms=63_000) == 61, "it grows while nothing is read"
    assert lag.see([polled(0, 60_000)], {0: 0}, now_ms=64_000) == 0, "all is read"


def test_the_partition_that_is_furthest_behind_counts() -> None:
    lag = Lag()
    assert lag.see([polled(0, 9_000), polled(1, 2_000)], {0: 1, 1: 1}, now_ms=10_000) == 8
    assert lag.see([], {0: 1, 1: 0}, now_ms=10_000) == 1


def test_a_reading_after_an_hour_of_silence_is_not_an_hour_old() -> None:
    lag = Lag()
    lag.see([polled(0, 0)], {0: 0}, now_ms=1_000)
    lag.see([], {0: 0}, now_ms=3_600_000)
    assert lag.see([], {0: 1}, now_ms=3_600_500) == 0.5


def test_a_record_from_the_future_hides_nothing() -> None:
    lag, year_2100_ms = Lag(), 4_102_444_800_000
    assert lag.see([polled(0, 1_000, year_2100_ms, 2_000)], {0: 5}, now_ms=62_000) == 60
    assert lag.see([polled(0, 3_000, year_2100_ms)], {0: 4}, now_ms=63_000) == 60
    lag.see([polled(0, year_2100_ms)], {0: 3}, now_ms=64_000)
    assert lag.see([polled(0, 4_000)], {0: 2}, now_ms=65_000) == 61
    assert lag.see([], {0: 2}, now_ms=66_000) == 62


def test_a_reading_that_came_from_the_future_is_not_answered_before_it_came() -> None:
    driver = StreamDriver(Network(ModelConfig(("flow",), hidden=4)))
    driver.restart()
    driver.send("pump-1", at=START_MS, x=[1.0])
    driver.now_ms -= 3_600_000  # this machine's clock, from the reading's point of view
    driver.run()
    latency = driver.shard.stats.latency_s
    assert latency.counts.sum() == 1 and latency.total == 0


def test_what_is_unread_is_behind_even_where_no_stamp_says_by_how_much() -> None:
    lag = Lag()
    assert lag.see([], {0: 7}, now_ms=1_000_000) == 0.001
    assert lag.see([], {0: 7}, now_ms=1_002_000) == 2, "since it was first seen"
    assert lag.see([polled(0, 9_000_000)], {0: 6}, now_ms=1_003_000) == 3, "a stamp that is ahead says nothing"
    assert lag.see([polled(0, 9_000_000)], {0: 0}, now_ms=1_004_000) == 0
    assert lag.see([polled(0, 9_000_000)], {0: 5}, now_ms=1_004_000) == 0.001
    assert lag.see([], {0: 5}, now_ms=900_000) == 0.001, "a clock that was set back"


def test_readings_that_retention_has_eaten_are_counted_and_epochs_leave_their_time() -> None:
    driver = StreamDriver(Network(ModelConfig(("flow",), hidden=4)), partitions=1)
    driver.send("pump-1", at=START_MS, x=[1.0])
    driver.run()
    stats = driver.shard.stats
    assert stats.lost == 0 and stats.last_epoch_s * 1000 >= START_MS
    for turn in range(1, 6):
        driver.send("pump-1", at=START_MS + turn, x=[1.0])
    driver.crash()
    driver.broker.truncate(Role.READINGS, 0, before=4)
    driver.restart()
    assert driver.shard.stats.lost == 3
    assert driver.shard.stats.last_epoch_s == 0, "this life has kept none yet"
    driver.run()
    assert len(driver.predictions("pump-1")) == 3


@pytest.mark.parametrize("fault", [None, InjectedFault.LOST])
def test_a_reader_that_retention_overtakes_goes_on_behind_the_gap_and_counts_it_once(
    fault: InjectedFault | None,
) -> None:
    # The epoch after is dropped.
    faults = Faults() if fault is None else Faults.once(FaultPoint.BEFORE_OFFSETS, fault, nth=2)
    driver = StreamDriver(Network(ModelConfig(("flow",), hidden=4)), partitions=2, faults=faults)
    driver.send("pump-1", at=START_MS, x=[1.0], partition=0)
    driver.run()
    for second in range(1, 6):
        for partition in range(2):
            driver.send("pump-1", at=START_MS + second, x=[1.0], partition=partition)
    driver.broker.truncate(Role.READINGS, 0, before=4)
    shard = driver.shard
    driver.run()
    assert driver.shard is shard and shard.stats.lost == 3
    assert shard.stats.epochs["dropped"] == int(fault is not None)
    assert [sum(one.partition == partition for one in driver.predictions()) for partition in range(2)] == [3, 5]
    driver.crash()
    driver.send("pump-1", at=START_MS + 9, x=[1.0], partition=0)
    driver.run()
    assert driver.shard.stats.lost == 0 and len(driver.predictions()) == 9
