"""The in-memory broker must be as strict as Kafka: isolation, fencing, markers, group offsets, compaction, crashes."""

from __future__ import annotations

import pytest

from services.brokers.memory import (
    COMMIT_STEPS,
    Crash,
    FaultPoint,
    Faults,
    InjectedFault,
    Isolation,
    Marker,
    MemoryBroker,
    MemoryChangelog,
    MemorySink,
    MemorySource,
)
from services.predictor.ports import Fenced, Refused, Retriable
from services.records import Commit, Encoded, Role

GROUP, OWNER = "streamrnn-test", "streamrnn-test-shard-0"


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> MemoryBroker:
    broker = MemoryBroker(2, clock)
    for partition in range(2):
        for n in range(4):
            broker.append(Role.READINGS, partition, b"pump", b"%d" % n)
    return broker


def sink(broker: MemoryBroker, faults: Faults | None = None, exactly_once: bool = True) -> MemorySink:
    return MemorySink(broker, GROUP, OWNER, (0, 1), exactly_once=exactly_once, faults=faults)


def epoch(start: int = 0, end: int = 2, word: bytes = b"a") -> Commit:
    """Predictions and state rows in both partitions."""
    return Commit(
        started={0: start, 1: start},
        offsets={0: end, 1: end},
        writes=tuple(
            Encoded(role, partition, [b"pump"], [word], timestamp_ms=500)
            for role in (Role.PREDICTIONS, Role.CHANGELOG)
            for partition in (0, 1)
        ),
    )


def seen(broker: MemoryBroker, isolation: Isolation = Isolation.READ_COMMITTED) -> dict[tuple[Role, int], list[bytes]]:
    """Values that a consumer of each written partition gets."""
    return {
        (role, partition): broker.records(role, partition, isolation).values  # type: ignore[misc]
        for role in (Role.PREDICTIONS, Role.CHANGELOG)
        for partition in (0, 1)
    }


def everywhere(*words: bytes) -> dict[tuple[Role, int], list[bytes]]:
    return {(role, partition): [*words] for role in (Role.PREDICTIONS, Role.CHANGELOG) for partition in (0, 1)}


def settled(broker: MemoryBroker) -> dict[int, int]:
    """The group's offsets once a new owner has fenced everything."""
    successor = sink(broker)
    successor.fence()
    return dict(successor.committed())


# ---- transactions ------------------------------------------------------------------------------------------------


def test_a_commit_shows_everything_in_all_partitions(broker: MemoryBroker) -> None:
    owner = sink(broker)
    owner.fence()
    assert owner.committed() == {}
    owner.commit(epoch())
    assert seen(broker) == everywhere(b"a")
    assert owner.committed() == {0: 2, 1: 2}
    broker.check_integrity()


def test_an_open_transaction_is_seen_only_by_uncommitted_readers(broker: MemoryBroker) -> None:
    owner = sink(broker, Faults.once(FaultPoint.BEFORE_END, InjectedFault.CRASH))
    owner.fence()
    with pytest.raises(Crash):
        owner.commit(epoch())
    assert seen(broker) == everywhere()
    assert seen(broker, Isolation.READ_UNCOMMITTED) == everywhere(b"a")
    assert broker.log(Role.PREDICTIONS, 0).stable == 0
    broker.check_integrity()


def test_an_open_transaction_hides_what_others_wrote_after_it(broker: MemoryBroker) -> None:
    owner = sink(broker, Faults.once(FaultPoint.BEFORE_END, InjectedFault.CRASH))
    owner.fence()
    with pytest.raises(Crash):
        owner.commit(epoch())
    broker.append(Role.PREDICTIONS, 0, b"other", b"b")
    assert broker.records(Role.PREDICTIONS, 0).values == []
    settled(broker)
    assert broker.records(Role.PREDICTIONS, 0).values == [b"b"]  # the aborted record stays hidden for ever
    assert broker.records(Role.PREDICTIONS, 0, Isolation.READ_UNCOMMITTED).values == [b"a", b"b"]
    broker.check_integrity()


def test_markers_take_offsets_and_are_never_delivered(broker: MemoryBroker) -> None:
    owner = sink(broker)
    owner.fence()
    owner.commit(epoch(0, 2, b"a"))
    owner.commit(epoch(2, 4, b"b"))
    records = broker.records(Role.PREDICTIONS, 1)
    assert records.offsets.tolist() == [0, 2]
    assert records.values == [b"a", b"b"]
    assert [entry.marker for entry in broker.entries(Role.PREDICTIONS, 1)] == [None, Marker.COMMIT] * 2
    assert broker.log(Role.PREDICTIONS, 1).end == 4


def test_offsets_are_pending_until_the_transaction_ends(broker: MemoryBroker) -> None:
    producer = broker.init_producer(OWNER)
    broker.write_offsets(GROUP, {0: 3}, OWNER, producer)
    with pytest.raises(Retriable, match="open"):
        broker.committed(GROUP, [0, 1])
    assert broker.committed(GROUP, [1]) == {}
    assert broker.committed("another group", [0]) == {}
    broker.end(OWNER, producer, commit=False)
    assert broker.committed(GROUP, [0]) == {}
    broker.write_offsets(GROUP, {0: 3}, OWNER, producer, note="mine")
    broker.end(OWNER, producer, commit=True)
    assert broker.offsets(GROUP) == {}  # decided, but not yet visible
    assert broker.committed(GROUP, [0]) == {0: (3, "mine")}
    assert broker.offsets(GROUP) == {0: 3}


def test_a_decided_transaction_is_completed_though_its_owner_died(broker: MemoryBroker) -> None:
    owner = sink(broker, Faults.once(FaultPoint.AFTER_END, InjectedFault.CRASH))
    owner.fence()
    with pytest.raises(Crash):
        owner.commit(epoch())
    assert seen(broker) == everywhere()  # markers are not written yet
    assert settled(broker) == {0: 2, 1: 2}
    assert seen(broker) == everywhere(b"a")


def test_an_empty_commit_is_refused(broker: MemoryBroker) -> None:
    owner = sink(broker)
    with pytest.raises(RuntimeError, match="fence"):
        owner.commit(epoch())
    owner.fence()
    with pytest.raises(ValueError, match="move an offset"):
        owner.commit(Commit({0: 2}, {0: 2}, ()))


# ---- fencing -----------------------------------------------------------------------------------------------------


def test_a_zombie_is_fenced_and_nothing_of_it_is_seen(broker: MemoryBroker) -> None:
    zombie, owner = sink(broker), sink(broker)
    zombie.fence()
    zombie.commit(epoch(0, 1, b"a"))
    owner.fence()
    with pytest.raises(Fenced):
        zombie.commit(epoch(1, 2, b"zombie"))
    owner.commit(epoch(1, 2, b"b"))
    assert seen(broker) == everywhere(b"a", b"b")
    assert seen(broker, Isolation.READ_UNCOMMITTED) == everywhere(b"a", b"b")
    broker.check_integrity()


@pytest.mark.parametrize("step", COMMIT_STEPS)
def test_a_takeover_in_the_middle_of_a_commit(broker: MemoryBroker, step: FaultPoint) -> None:
    owner = sink(broker)
    found: list[dict[int, int]] = []

    def take_over(at: FaultPoint) -> None:
        if at is step and not found:
            owner.fence()
            found.append(dict(owner.committed()))
            owner.commit(epoch(found[0].get(0, 0), 4, b"owner"))

    zombie = sink(broker, Faults(take_over))
    zombie.fence()
    if step in (FaultPoint.READ_BACK, FaultPoint.AFTER_END):  # it had been decided; the offsets have moved on since
        with pytest.raises(Retriable):
            zombie.commit(epoch(0, 2, b"zombie"))
        assert found == [{0: 2, 1: 2}]
        assert seen(broker) == everywhere(b"zombie", b"owner")
        with pytest.raises(Fenced):
            zombie.settle(epoch(0, 2, b"zombie"))
    else:
        with pytest.raises(Fenced):
            zombie.commit(epoch(0, 2, b"zombie"))
        assert found == [{}]
        assert seen(broker) == everywhere(b"owner")
    assert settled(broker) == {0: 4, 1: 4}
    broker.check_integrity()


def test_shards_with_different_ids_do_not_disturb_each_other(broker: MemoryBroker) -> None:
    first = MemorySink(broker, GROUP, "shard-0", (0,))
    second = MemorySink(broker, GROUP, "shard-1", (1,))
    first.fence()
    second.fence()
    first.commit(Commit({0: 0}, {0: 2}, (Encoded(Role.PREDICTIONS, 0, [b"k"], [b"a"], 0),)))
    second.commit(Commit({1: 0}, {1: 3}, (Encoded(Role.PREDICTIONS, 1, [b"k"], [b"b"], 0),)))
    assert first.committed() == {0: 2}
    assert second.committed() == {1: 3}
    assert broker.offsets(GROUP) == {0: 2, 1: 3}


# ---- every crash point -------------------------------------------------------------------------------------------

POINTS = [
    (step, nth, fault)
    for fault in InjectedFault
    for step in COMMIT_STEPS
    for nth in (range(1, 5) if step is FaultPoint.AFTER_APPEND else [1])
]


@pytest.mark.parametrize(("step", "nth", "fault"), POINTS)
def test_whatever_fails_all_or_nothing_is_seen(
    broker: MemoryBroker, step: FaultPoint, nth: int, fault: InjectedFault
) -> None:
    before = sink(broker)
    before.fence()
    before.commit(epoch(0, 1, b"before"))
    owner = sink(broker, Faults.once(step, fault, nth))
    owner.fence()
    with pytest.raises(Crash if fault is InjectedFault.CRASH else Retriable):
        owner.commit(epoch(1, 2, b"now"))
    kept = step in (FaultPoint.AFTER_END, FaultPoint.READ_BACK)
    if fault is InjectedFault.LOST:
        assert owner.settle(epoch(1, 2, b"now")) is kept
    assert settled(broker) == ({0: 2, 1: 2} if kept else {0: 1, 1: 1})
    assert seen(broker) == (everywhere(b"before", b"now") if kept else everywhere(b"before"))
    broker.check_integrity()


def test_a_lost_epoch_can_be_committed_again_by_the_same_owner(broker: MemoryBroker) -> None:
    owner = sink(broker, Faults.once(FaultPoint.BEFORE_END, InjectedFault.LOST))
    owner.fence()
    with pytest.raises(Retriable):
        owner.commit(epoch())
    with pytest.raises(RuntimeError, match="settle"):
        owner.commit(epoch())  # it would get into the transaction that is still open
    assert owner.settle(epoch()) is False
    owner.commit(epoch())
    assert seen(broker) == everywhere(b"a")
    assert [entry.marker for entry in broker.entries(Role.PREDICTIONS, 0)] == [None, Marker.ABORT, None, Marker.COMMIT]


def test_settling_may_fail_and_be_tried_again(broker: MemoryBroker) -> None:
    faults = [None, InjectedFault.LOST, InjectedFault.LOST, InjectedFault.LOST, None]  # by number of the settle call
    tries = 0

    def choose(step: FaultPoint) -> InjectedFault | None:
        nonlocal tries
        if step is FaultPoint.AFTER_END:
            return InjectedFault.LOST
        if step is FaultPoint.SETTLE:
            tries += 1
            return faults[tries]
        return None

    owner = sink(broker, Faults(choose))
    owner.fence()
    with pytest.raises(Retriable):
        owner.commit(epoch())
    for _ in range(3):
        with pytest.raises(Retriable):
            owner.settle(epoch())
    assert owner.settle(epoch()) is True


def unsettled(broker: MemoryBroker, commit: Commit) -> MemorySink:
    """An owner that has committed offset 1 everywhere and does not know what became of `commit`; it was dropped."""
    owner = sink(broker, Faults.once(FaultPoint.BEFORE_END, InjectedFault.LOST, nth=2))
    owner.fence()
    owner.commit(epoch(0, 1))
    with pytest.raises(Retriable):
        owner.commit(commit)
    return owner


def test_a_zombie_that_settles_leaves_when_another_owner_has_read_other_partitions(broker: MemoryBroker) -> None:
    """It would go on with positions of earlier there, and answer readings twice."""
    mine = Commit({0: 1}, {0: 2}, (Encoded(Role.PREDICTIONS, 0, [b"pump"], [b"mine"], 0),))
    zombie = unsettled(broker, mine)
    owner = sink(broker)
    owner.fence()
    owner.commit(Commit({1: 1}, {1: 2}, (Encoded(Role.PREDICTIONS, 1, [b"pump"], [b"theirs"], 0),)))
    with pytest.raises(Fenced):
        zombie.settle(mine)


def test_a_zombie_that_settles_leaves_when_another_owner_has_committed_the_same_epoch(broker: MemoryBroker) -> None:
    zombie = unsettled(broker, epoch(1, 2))
    owner = sink(broker)
    owner.fence()
    owner.commit(epoch(1, 2))
    with pytest.raises(Fenced):
        zombie.settle(epoch(1, 2))


def test_an_owner_that_settles_goes_on_when_nobody_has_committed(broker: MemoryBroker) -> None:
    zombie = unsettled(broker, epoch(1, 2))
    owner = sink(broker)
    owner.fence()
    assert zombie.settle(epoch(1, 2)) is False
    zombie.commit(epoch(1, 2))
    with pytest.raises(Fenced):
        owner.commit(epoch(1, 2))


# ---- at least once -----------------------------------------------------------------------------------------------


def test_at_least_once_writes_predictions_then_states_then_offsets(broker: MemoryBroker) -> None:
    def written(step: FaultPoint, nth: int = 1) -> tuple[int, int, dict[int, int]]:
        fresh = MemoryBroker(2, lambda: 0)
        owner = sink(fresh, Faults.once(step, InjectedFault.CRASH, nth), exactly_once=False)
        owner.fence()
        with pytest.raises(Crash):
            owner.commit(epoch())
        values = seen(fresh)
        predictions = sum(len(values[Role.PREDICTIONS, partition]) for partition in (0, 1))
        states = sum(len(values[Role.CHANGELOG, partition]) for partition in (0, 1))
        return predictions, states, fresh.offsets(GROUP)

    assert written(FaultPoint.AFTER_BEGIN) == (0, 0, {})
    assert written(FaultPoint.AFTER_APPEND, 1) == (1, 0, {})
    assert written(FaultPoint.AFTER_APPEND, 3) == (2, 1, {})
    assert written(FaultPoint.BEFORE_OFFSETS) == (2, 2, {})
    assert written(FaultPoint.BEFORE_END) == (2, 2, {0: 2, 1: 2})


def test_at_least_once_has_no_markers_and_no_fencing(broker: MemoryBroker) -> None:
    zombie, owner = sink(broker, exactly_once=False), sink(broker, exactly_once=False)
    zombie.fence()
    owner.fence()
    zombie.commit(epoch())
    owner.commit(epoch())
    assert seen(broker) == everywhere(b"a", b"a")  # doubled: that is what the setting says
    assert [entry.marker for entry in broker.entries(Role.PREDICTIONS, 0)] == [None, None]


# ---- source ------------------------------------------------------------------------------------------------------


def test_the_source_reads_on_from_where_it_is(broker: MemoryBroker) -> None:
    source = MemorySource(broker, (0, 1))
    assert source.lag() == {0: 4, 1: 4}
    first = source.poll(6, 0.0)
    assert [(records.partition, records.values) for records in first] == [
        (0, [b"0", b"1", b"2", b"3"]),
        (1, [b"0", b"1"]),
    ]
    assert source.lag() == {0: 0, 1: 2}
    assert [(records.partition, records.offsets.tolist()) for records in source.poll(6, 0.0)] == [(1, [2, 3])]
    assert source.poll(6, 0.0) == []
    source.seek({0: 3})
    assert [(records.partition, records.values) for records in source.poll(6, 0.0)] == [(0, [b"3"])]


def test_the_source_skips_aborted_and_open_readings(broker: MemoryBroker) -> None:
    sensor = broker.init_producer("sensor")
    broker.write(Encoded(Role.READINGS, 0, [b"pump"], [b"aborted"], 0), "sensor", sensor)
    broker.end("sensor", sensor, commit=False)
    broker.complete("sensor")
    broker.write(Encoded(Role.READINGS, 0, [b"pump"], [b"open"], 0), "sensor", sensor)
    source = MemorySource(broker, (0,))
    assert source.poll(100, 0.0)[0].values == [b"0", b"1", b"2", b"3"]
    assert source.lag() == {0: 0}  # past the marker, up to the open transaction
    broker.end("sensor", sensor, commit=True)
    broker.complete("sensor")
    assert source.poll(100, 0.0)[0].offsets.tolist() == [6]


def test_poll_sizes_and_headers(broker: MemoryBroker) -> None:
    broker.append(Role.READINGS, 1, b"pump", b"4", headers=[("unit", b"bar")], timestamp_ms=77)
    sizes = iter([1, 5, 0, 3])
    source = MemorySource(broker, (0, 1), poll_size=lambda room: next(sizes))
    one, all_of_it = source.poll(100, 0.0)
    assert (len(one), len(all_of_it)) == (1, 5)
    assert all_of_it.headers == {4: (("unit", b"bar"),)}
    assert all_of_it.timestamps_ms.tolist() == [1000, 1000, 1000, 1000, 77]
    assert [records.partition for records in source.poll(100, 0.0)] == [0]  # partition 1 was first, and gave none


def test_retention_moves_the_beginning_and_never_skips_silently(broker: MemoryBroker) -> None:
    source = MemorySource(broker, (0, 1))
    broker.truncate(Role.READINGS, 0, 3)
    assert source.beginning() == {0: 3, 1: 0}
    assert source.poll(100, 0.0)[0].offsets.tolist() == [3]
    assert source.overtaken == {0: 3}
    with pytest.raises(ValueError, match="last stable"):
        broker.truncate(Role.READINGS, 0, 5)
    broker.check_integrity()


def test_an_offset_beyond_the_end_is_refused(broker: MemoryBroker) -> None:
    source = MemorySource(broker, (0,))
    source.seek({0: 5})
    with pytest.raises(Refused, match="made anew"):
        source.poll(100, 0.0)


def test_unknown_partition(broker: MemoryBroker) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        broker.append(Role.READINGS, 2, b"pump", b"0")


# ---- changelog ---------------------------------------------------------------------------------------------------


def rows(changelog: MemoryChangelog, partition: int = 0) -> list[tuple[bytes | None, bytes | None]]:
    return [row for records in changelog.read(partition) for row in zip(records.keys, records.values, strict=True)]


def test_the_changelog_is_read_to_its_stable_end_at_the_time_of_the_call(broker: MemoryBroker) -> None:
    changelog = MemoryChangelog(broker, chunk=2)
    for n in range(5):
        broker.append(Role.CHANGELOG, 0, b"%d" % n, b"row")
    reading = changelog.read(0)
    broker.append(Role.CHANGELOG, 0, b"later", b"row")
    assert [len(records) for records in reading] == [2, 2, 1]
    assert changelog.span(0) == (0, 6)
    assert list(changelog.read(1)) == []


def test_compaction_keeps_the_last_row_and_its_offset(broker: MemoryBroker, clock: Clock) -> None:
    owner = sink(broker, Faults.once(FaultPoint.BEFORE_END, InjectedFault.LOST, nth=3))
    owner.fence()
    owner.commit(epoch(0, 1, b"old"))
    owner.commit(epoch(1, 2, b"new"))
    with pytest.raises(Retriable):
        owner.commit(epoch(2, 3, b"aborted"))
    owner.settle(epoch(2, 3, b"aborted"))
    changelog = MemoryChangelog(broker)
    assert rows(changelog) == [(b"pump", b"old"), (b"pump", b"new")]
    end = broker.log(Role.CHANGELOG, 0).end
    broker.compact(Role.CHANGELOG)
    assert rows(changelog) == [(b"pump", b"new")]
    (records,) = changelog.read(0)
    assert records.offsets.tolist() == [2]
    assert broker.records(Role.CHANGELOG, 0, Isolation.READ_UNCOMMITTED).values == [b"new"]
    assert broker.log(Role.CHANGELOG, 0).end == end
    broker.check_integrity()
    clock.now_ms += 100_000_000
    broker.compact(Role.CHANGELOG)
    assert [entry.marker for entry in broker.entries(Role.CHANGELOG, 0)] == [None]  # old markers are gone
    assert rows(changelog) == [(b"pump", b"new")]
    broker.append(Role.CHANGELOG, 0, b"pump", b"newer")
    assert broker.records(Role.CHANGELOG, 0).offsets.tolist() == [2, end]
    broker.check_integrity()


def test_compaction_drops_tombstones_only_when_they_are_old(broker: MemoryBroker, clock: Clock) -> None:
    broker.append(Role.CHANGELOG, 0, b"pump", b"row")
    broker.append(Role.CHANGELOG, 0, b"pump", None)
    broker.compact(Role.CHANGELOG, delete_retention_ms=100)
    assert rows(MemoryChangelog(broker)) == [(b"pump", None)]
    clock.now_ms += 101
    broker.compact(Role.CHANGELOG, delete_retention_ms=100)
    assert rows(MemoryChangelog(broker)) == []
    assert broker.log(Role.CHANGELOG, 0).end == 2
    with pytest.raises(ValueError, match="key"):
        broker.append(Role.CHANGELOG, 0, None, b"row")


def test_compaction_leaves_an_open_transaction_alone(broker: MemoryBroker) -> None:
    broker.append(Role.CHANGELOG, 0, b"pump", b"old")
    broker.append(Role.CHANGELOG, 0, b"pump", b"new")
    owner = sink(broker, Faults.once(FaultPoint.BEFORE_END, InjectedFault.CRASH))
    owner.fence()
    with pytest.raises(Crash):
        owner.commit(epoch(0, 1, b"open"))
    broker.append(Role.CHANGELOG, 0, b"pump", b"after")
    broker.compact(Role.CHANGELOG)
    assert broker.records(Role.CHANGELOG, 0, Isolation.READ_UNCOMMITTED).values == [b"new", b"open", b"after"]
    settled(broker)
    assert rows(MemoryChangelog(broker)) == [(b"pump", b"new"), (b"pump", b"after")]
    broker.check_integrity()
