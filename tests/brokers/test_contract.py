"""What every adapter behind `services.predictor.ports` promises, tried on Kafka (both ways) and in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from broker_worlds import PARTITIONS, KafkaWorld, MemoryWorld, World

from services.brokers.devbroker import DevBroker
from services.predictor.ports import Fenced, Forgotten, Refused, Source
from services.records import Commit, Encoded, Header, Records, Role

NOW_MS = time.time_ns() // 1_000_000  # Kafka deletes records that are older than the topic's retention


@pytest.fixture(params=["memory", "kafka", "kafka-plain"])
def world(request: pytest.FixtureRequest, topic_names: Callable[[], str]) -> Iterator[World]:
    if request.param == "memory":
        made: World = MemoryWorld()
    else:
        broker: DevBroker = request.getfixturevalue("broker")
        made = KafkaWorld(broker.bootstrap, topic_names(), fast=request.param == "kafka")
    yield made
    made.close()


def until(source: Source, rows: int, max_records: int = 10_000) -> dict[int, list[Records]]:
    """Polls until `rows` records have come."""
    polled: dict[int, list[Records]] = {partition: [] for partition in PARTITIONS}
    while rows > 0:
        for records in source.poll(max_records, 5.0):
            polled[records.partition].append(records)
            rows -= len(records)
    return polled


def values(polled: list[Records]) -> list[bytes | None]:
    return [value for records in polled for value in records.values]


def numbered(count: int, word: bytes = b"v") -> list[bytes | None]:
    return [b"%b%d" % (word, n) for n in range(count)]


def encoded(role: Role, partition: int, records: list[bytes | None], word: bytes = b"key") -> Encoded:
    keys: list[bytes | None] = [b"%b%d" % (word, n % 7) for n in range(len(records))]
    return Encoded(role, partition, keys, records, NOW_MS)


def epoch(start: int, end: int, word: bytes = b"a", rows: int = 3) -> Commit:
    """Predictions and state rows in both partitions."""
    writes = [encoded(role, p, numbered(rows, word)) for role in (Role.PREDICTIONS, Role.CHANGELOG) for p in PARTITIONS]
    return Commit(dict.fromkeys(PARTITIONS, start), dict.fromkeys(PARTITIONS, end), tuple(writes))


# ---- source ----------------------------------------------------------------------------------------------------------


def test_records_come_as_they_were_sent_and_in_order(world: World) -> None:
    headers: list[list[Header]] = [[], [("unit", b"bar"), ("unit", b"twice")], []]
    world.send(0, [b"pump", None, b""], [b"one", b"", None], headers)
    world.send(1, [b"fan"], [b"\x00\xff" * 5000])
    source = world.source()
    source.seek({0: 0, 1: 0})
    polled = until(source, 4)
    (first,) = polled[0]
    assert (first.keys, first.values) == ([b"pump", None, b""], [b"one", b"", None])
    assert first.offsets.tolist() == [0, 1, 2]
    assert {row: list(found) for row, found in first.headers.items()} == {1: headers[1]}
    assert (first.timestamps_ms > NOW_MS).all()
    assert values(polled[1]) == [b"\x00\xff" * 5000]


def test_a_poll_gives_no_more_than_asked_for_and_the_next_goes_on(world: World) -> None:
    world.send(0, [b"k"] * 2500, numbered(2500))
    source = world.source((0,))
    source.seek({0: 7})
    polled = until(source, 2493, max_records=1000)[0]
    assert all(len(records) <= 1000 for records in polled)
    assert values(polled) == numbered(2500)[7:]
    assert [offset for records in polled for offset in records.offsets.tolist()] == list(range(7, 2500))


def test_seek_forgets_what_was_fetched(world: World) -> None:
    world.send(0, [b"k"] * 100, numbered(100))
    world.send(1, [b"k"] * 100, numbered(100))
    source = world.source()
    source.seek({0: 0, 1: 0})
    until(source, 30, max_records=10)
    source.seek({0: 5, 1: 50})
    polled = until(source, 145)
    assert values(polled[0]) == numbered(100)[5:]
    assert values(polled[1]) == numbered(100)[50:]


def test_partitions_that_were_never_sought_start_at_their_beginning(world: World) -> None:
    world.send(1, [b"k"], [b"v"])
    source = world.source()
    assert source.beginning() == {0: 0, 1: 0}
    assert values(until(source, 1)[1]) == [b"v"]


def test_an_empty_poll_is_empty(world: World) -> None:
    assert world.source().poll(10, 0.05) == []


def test_lag_is_what_is_left_to_read(world: World) -> None:
    world.send(0, [b"k"] * 10, numbered(10))
    source = world.source()
    source.seek({0: 4, 1: 0})
    until(source, 2, max_records=2)
    assert source.lag() == {0: 4, 1: 0}
    until(source, 4)
    source.poll(10, 0.05)
    assert source.lag() == {0: 0, 1: 0}


def test_what_was_read_and_is_to_be_read_again_is_behind(world: World) -> None:
    source = world.source()
    source.seek({0: 0, 1: 0})
    source.poll(10, 0.05)
    world.send(0, [b"k"] * 10, numbered(10))  # after the source was opened
    until(source, 10)
    source.seek({0: 3, 1: 0})  # as after an epoch that was dropped
    assert source.lag() == {0: 7, 1: 0}
    until(source, 7)
    source.poll(10, 0.05)
    assert source.lag() == {0: 0, 1: 0}


# ---- sink ----------------------------------------------------------------------------------------------------------


def test_a_commit_shows_all_of_itself_in_order(world: World) -> None:
    sink = world.sink()
    sink.fence()
    assert sink.committed() == {}
    sink.commit(epoch(0, 5, b"a"))
    sink.commit(epoch(5, 9, b"b"))
    assert sink.committed() == {0: 9, 1: 9}
    for role in (Role.PREDICTIONS, Role.CHANGELOG):
        for partition in PARTITIONS:
            assert world.read(role, partition).values == [*numbered(3, b"a"), *numbered(3, b"b")]
    assert len(world.read(Role.DEAD_LETTERS, 0)) == 0


def test_offsets_of_one_partition_leave_the_others(world: World) -> None:
    sink = world.sink()
    sink.fence()
    sink.commit(Commit({0: 0}, {0: 3}, (encoded(Role.PREDICTIONS, 0, numbered(3)),)))
    assert sink.committed() == {0: 3}
    sink.commit(Commit({1: 0}, {1: 2}, (encoded(Role.PREDICTIONS, 1, numbered(2)),)))
    assert sink.committed() == {0: 3, 1: 2}


def test_dead_letters_keep_bytes_and_headers(world: World) -> None:
    headers: list[list[Header]] = [
        [("name", b"\xff\x00"), ("name", b"again")],
        [],
        [("null", None), ("ümlaut", b"")],
    ]
    keys: list[bytes | None] = [None, b"k" * 300, None]
    bodies: list[bytes | None] = [b"{", b"\x00" * 10, None]
    sink = world.sink()
    sink.fence()
    sink.commit(Commit({0: 0}, {0: 3}, (Encoded(Role.DEAD_LETTERS, 0, keys, bodies, NOW_MS, headers),)))
    letters = world.read(Role.DEAD_LETTERS, 0)
    found = {row: list(kept) for row, kept in letters.headers.items()}
    assert letters.keys == keys
    if world.null_headers:
        assert letters.values == bodies
        assert found == {0: headers[0], 2: headers[2]}
    else:
        assert letters.values == [b"{", b"\x00" * 10, b""]
        assert found == {0: headers[0], 2: [("null", b""), ("ümlaut", b"")]}
    assert letters.timestamps_ms.tolist() == [NOW_MS] * 3


def test_a_large_commit_arrives_whole_and_in_order(world: World) -> None:
    sink = world.sink()
    sink.fence()
    many = [b"%06d" % n + b"x" * 300 for n in range(20_000)]
    sink.commit(Commit({0: 0}, {0: 1}, (encoded(Role.PREDICTIONS, 0, list(many)),)))
    assert world.read(Role.PREDICTIONS, 0).values == many


def test_a_commit_of_nothing_is_a_mistake(world: World) -> None:
    sink = world.sink()
    sink.fence()
    with pytest.raises(ValueError, match="offset"):
        sink.commit(Commit({0: 3}, {0: 3}, ()))
    sink.commit(Commit({0: 3}, {0: 4}, ()))
    assert sink.committed() == {0: 4}


def test_commit_before_fence_is_a_mistake(world: World) -> None:
    with pytest.raises(RuntimeError, match="fence"):
        world.sink().commit(epoch(0, 1))


# ---- ownership -------------------------------------------------------------------------------------------------------


def test_the_newer_owner_wins_and_the_older_is_told(world: World) -> None:
    older, newer = world.sink(), world.sink()
    older.fence()
    older.commit(epoch(0, 2, b"a"))
    newer.fence()
    assert newer.committed() == {0: 2, 1: 2}
    with pytest.raises(Fenced):
        older.commit(epoch(2, 4, b"z"))
    newer.commit(epoch(2, 5, b"b"))
    assert newer.committed() == {0: 5, 1: 5}
    assert world.read(Role.PREDICTIONS, 0).values == [*numbered(3, b"a"), *numbered(3, b"b")]


def test_other_shards_are_not_fenced(world: World) -> None:
    one, two = world.sink("shard-0"), world.sink("shard-1")
    one.fence()
    two.fence()
    one.commit(Commit({0: 0}, {0: 1}, (encoded(Role.PREDICTIONS, 0, numbered(1)),)))
    two.commit(Commit({1: 0}, {1: 1}, (encoded(Role.PREDICTIONS, 1, numbered(1)),)))
    assert one.committed() == {0: 1, 1: 1}


def test_settle_tells_a_kept_commit_from_a_dropped_one(world: World) -> None:
    sink = world.sink()
    sink.fence()
    assert sink.settle(epoch(0, 2)) is False
    sink.commit(epoch(0, 2))
    assert sink.settle(epoch(0, 2)) is True
    assert sink.settle(epoch(2, 4)) is False
    sink.commit(epoch(2, 4))
    assert sink.committed() == {0: 4, 1: 4}


def test_ends_are_those_of_the_readings(world: World) -> None:
    sink = world.sink()
    sink.fence()
    assert sink.ends() == {0: 0, 1: 0}
    world.send(1, [b"k"] * 3, numbered(3))
    assert sink.ends() == {0: 0, 1: 3}


def test_a_commit_may_leave_the_offsets_where_they_are(world: World) -> None:
    sink = world.sink()
    sink.fence()
    sink.commit(epoch(0, 2, b"a"))
    still = epoch(2, 2, b"b")
    sink.commit(still)
    assert sink.committed() == {0: 2, 1: 2}
    assert sink.settle(still) is True
    sink.commit(epoch(2, 3, b"c"))
    assert world.read(Role.PREDICTIONS, 0).values == [*numbered(3, b"a"), *numbered(3, b"b"), *numbered(3, b"c")]


def test_an_owner_that_was_replaced_can_not_commit_without_moving_offsets(world: World) -> None:
    older, newer = world.sink(), world.sink()
    older.fence()
    older.commit(epoch(0, 2, b"a"))
    newer.fence()
    still = epoch(2, 2, b"b")
    with pytest.raises(Fenced):
        older.commit(still)
    newer.commit(still)
    with pytest.raises(Fenced, match="another owner"):
        older.settle(still)
    assert world.read(Role.PREDICTIONS, 0).values == [*numbered(3, b"a"), *numbered(3, b"b")]


def test_settle_after_another_owner_has_committed_leaves(world: World) -> None:
    older, newer = world.sink(), world.sink()
    older.fence()
    newer.fence()
    newer.commit(epoch(0, 7))
    with pytest.raises(Fenced, match="another owner"):
        older.settle(epoch(0, 2))


def test_without_transactions_two_owners_do_not_shut_each_other_out(world: World) -> None:
    one, two = world.sink(exactly_once=False), world.sink(exactly_once=False)
    one.fence()
    two.fence()
    one.commit(epoch(0, 2, b"a"))
    two.commit(epoch(0, 2, b"b"))
    assert one.committed() == {0: 2, 1: 2}
    assert world.read(Role.PREDICTIONS, 0).values == [*numbered(3, b"a"), *numbered(3, b"b")]
    assert one.settle(epoch(0, 2)) is True


# ---- what operators do, and what Kafka forgets -----------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.PREDICTIONS, Role.CHANGELOG])
def test_offsets_of_a_topic_that_was_made_anew_are_refused(world: World, role: Role) -> None:
    sink = world.sink()
    sink.fence()
    sink.commit(epoch(0, 2))
    before = sink.topic_ids
    world.sink().fence()  # nothing has changed
    world.remake(role)
    newer = world.sink()
    with pytest.raises(Refused, match=r"made anew.*streamrnn topics start-over"):
        newer.fence()
    with pytest.raises(Refused, match="made anew"):
        newer.check_topics(before)
    with pytest.raises(Refused, match="made anew"):
        sink.settle(epoch(2, 4))


def test_offsets_that_are_gone_are_nobody_elses(world: World) -> None:
    sink = world.sink()
    sink.fence()
    sink.commit(epoch(0, 2))
    world.forget_offsets()
    with pytest.raises(Forgotten):
        sink.settle(epoch(2, 4))
    newer = world.sink()
    newer.fence()
    assert newer.committed() == {}
    newer.commit(epoch(2, 4))
    assert newer.committed() == {0: 4, 1: 4}


def test_who_holds_the_changelog_open_is_named(world: World) -> None:
    sink, changelog = world.sink(), world.changelog()
    sink.fence()
    sink.commit(epoch(0, 2))
    assert changelog.held_open(0) == ""
    world.hold_open()
    assert "has been open since offset" in changelog.held_open(0)
    assert "producer id" in changelog.held_open(0)
    assert changelog.held_open(1) == ""


# ---- changelog -------------------------------------------------------------------------------------------------------


def test_the_changelog_gives_rows_and_tombstones_up_to_its_end(world: World) -> None:
    sink, changelog = world.sink(), world.changelog()
    sink.fence()
    rows: list[bytes | None] = [b"row", None, b"other"]
    write = Encoded(Role.CHANGELOG, 1, [b"a", b"a", b"b"], rows, NOW_MS)
    sink.commit(Commit({1: 0}, {1: 3}, (write,)))
    early = changelog.read(1)
    sink.commit(Commit({1: 3}, {1: 4}, (encoded(Role.CHANGELOG, 1, [b"late"]),)))
    first, end = changelog.span(1)
    read = list(early)
    assert [key for records in read for key in records.keys] == [b"a", b"a", b"b"]
    assert values(read) == rows
    assert first == 0
    assert end > max(int(records.offsets[-1]) for records in read) + 1
    assert values(list(changelog.read(1))) == [*rows, b"late"]


def test_an_empty_changelog_ends_at_once(world: World) -> None:
    changelog = world.changelog()
    assert changelog.span(0) == (0, 0)
    assert list(changelog.read(0)) == []


def test_the_changelog_is_read_partition_after_partition(world: World) -> None:
    sink, changelog = world.sink(), world.changelog()
    sink.fence()
    sink.commit(epoch(0, 1, b"a", rows=5000))
    read: Mapping[int, list[Records]] = {partition: list(changelog.read(partition)) for partition in (1, 0, 1)}
    assert values(read[0]) == values(read[1]) == numbered(5000, b"a")
