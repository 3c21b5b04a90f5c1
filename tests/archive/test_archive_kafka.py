"""`streamrnn archive` as its users meet it: real Kafka, real processes, real files, and what befalls them."""

from __future__ import annotations

import random
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from archiving import NOON_MS, Archive, archived, heard, joined, make_topic, send, verified
from kafka import TopicPartition

from services.archive import reading
from services.archive.layout import Gone
from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import read_topic
from services.brokers.kafka_connect import open_admin, open_producer
from services.brokers.kafka_history import KafkaHistory

DAY_MS = 86_400_000


def in_kafka(options: dict[str, Any], topic: str, partition: int) -> Any:
    return joined([read_topic(options, topic, [partition])[partition]])


def delete_before(options: dict[str, Any], topic: str, offset: int) -> None:
    with open_admin(options) as admin:
        admin.delete_records({TopicPartition(topic, 0): offset})


def test_committed_records_are_archived_as_they_came_and_aborted_ones_are_not(
    options: dict[str, Any], topic: str, archive: Archive
) -> None:
    producer = open_producer(options, transactional_id=topic)
    producer.init_transactions()
    for number, keep in enumerate((False, True, True, False)):
        producer.begin_transaction()
        for value in (b'{"at": 1}', b"\xff\x00 no JSON", None, b""):
            headers = [("name", b"\xff"), ("empty", b"")] if value else []
            producer.send(topic, value, None if value == b"" else b"k%d" % number, headers, partition=0)
        producer.flush()
        (producer.commit_transaction if keep else producer.abort_transaction)()
    producer.close()
    code, out, events = archive.once()
    assert code == 0 and out.startswith(f"8 records of {topic} in 1 files"), events
    assert archived(archive.to, topic, 0) == in_kafka(options, topic, 0)
    # 4 x (4 records and a marker): the aborted tail is covered, too
    assert reading.spans(archive.to, topic) == {0: (0, 20)}
    files = archive.files()
    code, out, _ = archive.once()
    assert code == 0 and out.startswith("0 records") and archive.files() == files
    send(options, topic, [b"later"])
    assert archive.once()[1].startswith("1 records")
    assert archived(archive.to, topic, 0) == in_kafka(options, topic, 0)
    assert verified(archive.to) == (0, ["partition 0: offsets 0 to 20, 9 records in 2 files"], [])


def test_nothing_of_an_open_transaction_is_archived_until_it_is_committed(
    options: dict[str, Any], topic: str, archive: Archive
) -> None:
    send(options, topic, [b"before"])
    producer = open_producer(options, transactional_id=topic)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"open", b"k", partition=0)
    producer.flush()
    send(options, topic, [b"after"])
    assert archive.once()[1].startswith("1 records")
    assert reading.spans(archive.to, topic) == {0: (0, 1)}
    producer.commit_transaction()
    producer.close()
    assert archive.once()[1].startswith("2 records")
    assert archived(archive.to, topic, 0)[3] == [b"before", b"open", b"after"]


@pytest.mark.chaos
def test_killed_again_and_again_nothing_is_lost_or_doubled(
    options: dict[str, Any], topic: str, archive: Archive, seed: int
) -> None:
    chance = random.Random(seed)
    for partition in (0, 1):
        send(options, topic, [b"%d-%d" % (partition, row) + b"." * 60 for row in range(8000)], partition)
    for _ in range(5):
        process = archive.start("--once", "--piece-mb", "0.02")
        heard(process, "archived", chance.randint(1, 9))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert archive.once()[0] == 0
    for partition in (0, 1):
        assert archived(archive.to, topic, partition) == in_kafka(options, topic, partition)
    assert verified(archive.to)[0] == 0
    assert all(name == ".lock" or name.startswith("day=") for name in archive.files())


def test_a_file_holds_one_day_and_late_records_stay_in_their_order(
    options: dict[str, Any], topic: str, archive: Archive
) -> None:
    midnight_ms = NOON_MS + DAY_MS // 2
    for at_ms, word in ((-1, b"a"), (0, b"b"), (-2, b"late"), (1, b"c"), (3 * DAY_MS, b"d"), (900 * DAY_MS, b"ahead")):
        send(options, topic, [word] * 3, at_ms=midnight_ms + at_ms)
    days = [datetime.now(UTC)]
    assert archive.once()[0] == 0
    days.append(datetime.now(UTC))
    pieces = [name[:14] for name in archive.files() if name != ".lock"]
    assert pieces[:-1] == ["day=2026-11-15", "day=2026-11-16", "day=2026-11-19"]
    assert pieces[-1] in {f"day={day + timedelta(days=1):%Y-%m-%d}" for day in days}  # a clock that is ahead: tomorrow
    assert archived(archive.to, topic, 0) == in_kafka(options, topic, 0)


def test_what_retention_ate_is_told_recorded_and_never_passed_over(
    options: dict[str, Any], topic: str, archive: Archive
) -> None:
    send(options, topic, [b"%d" % row for row in range(10)])
    assert archive.once()[0] == 0
    send(options, topic, [b"%d" % row for row in range(10, 30)])
    delete_before(options, topic, 25)
    code, out, events = archive.once()
    told = [event for event in events if event["event"] == "records are gone"]
    sentence = f"offsets 10 to 24 of topic {topic}, partition 0 were deleted before they were archived"
    assert code == 0 and "15 offsets were gone already" in out
    assert [(event["level"], event["what"]) for event in told] == [("warning", sentence)]
    assert reading.spans(archive.to, topic) == {0: (0, 30)}
    assert reading.holes(archive.to, topic) == {0: [(10, 25)]}
    assert archived(archive.to, topic, 0)[0] == [*range(10), *range(25, 30)]
    code, lines, wrong = verified(archive.to)
    assert (code, wrong) == (0, []) and f"hole: {sentence}" in lines
    with pytest.raises(Gone, match="offsets 10 to 24 of partition 0 could not be archived"):
        reading.records(archive.to, topic, 0, 5, 30)
    assert joined(list(reading.records(archive.to, topic, 0, 3, 10)))[0] == list(range(3, 10))


def test_an_archive_that_begins_late_says_so(options: dict[str, Any], topic: str, archive: Archive) -> None:
    send(options, topic, [b"v"] * 10)
    delete_before(options, topic, 4)
    _, _, events = archive.once()
    assert [event["offset"] for event in events if event["event"] == "archive begins"] == [4]
    assert reading.spans(archive.to, topic) == {0: (4, 10)}


def test_reading_goes_on_from_the_archive_into_the_topic(options: dict[str, Any], topic: str, archive: Archive) -> None:
    send(options, topic, [b"%d" % row for row in range(20)])
    assert archive.once()[0] == 0
    send(options, topic, [b"%d" % row for row in range(20, 40)])
    delete_before(options, topic, 12)
    history = KafkaHistory(options, topic)
    for first, end in ((0, 40), (3, 17), (20, 40), (0, 20), (19, 21)):
        found = joined(list(reading.onward(archive.to, history, 0, first, end)))
        assert found[0] == list(range(first, end))
        assert found[3] == [b"%d" % row for row in range(first, end)]
    with pytest.raises(Gone, match=r"ends at offset 40, before 41"):
        reading.onward(archive.to, history, 0, 0, 41)
    delete_before(options, topic, 30)
    with pytest.raises(Gone, match=r"offsets 20 to 29 are in neither.*archive holds 0 to 19, the topic begins at 30"):
        reading.onward(archive.to, history, 0, 0, 40)


def test_two_archivers_never_double(options: dict[str, Any], topic: str, archive: Archive) -> None:
    send(options, topic, [b"%d" % row + b"." * 60 for row in range(5000)])
    racing = [archive.start("--once", "--piece-mb", "0.02") for _ in range(3)]
    ended = [(process.communicate(), process.returncode) for process in racing]
    codes = [code for _, code in ended]
    assert 0 in codes and set(codes) <= {0, 3}
    assert archived(archive.to, topic, 0) == in_kafka(options, topic, 0)
    assert verified(archive.to)[0] == 0
    service = archive.start("--every-s", "1")
    heard(service, "up to date")
    code, _, events = archive.once()
    assert code == 3 and f"another archiver (process {service.pid} on" in events[-1]["reason"]


def test_the_service_goes_on_until_sigterm(options: dict[str, Any], topic: str, archive: Archive) -> None:
    service = archive.start("--every-s", "1")
    heard(service, "up to date")
    send(options, topic, [b"one"])
    assert heard(service, "archived")["lag"] == 0
    send(options, topic, [b"two"], partition=1)
    assert heard(service, "archived")["file"].endswith("partition-01-00000000000000000000-00000000000000000000.parquet")
    service.send_signal(signal.SIGTERM)
    out, _ = service.communicate()
    assert service.returncode == 0 and out.startswith(f"2 records of {topic} in 2 files")


def test_the_service_waits_for_a_broker_that_is_away(own_broker: DevBroker, tmp_path: Path) -> None:
    options = {"bootstrap_servers": own_broker.bootstrap}
    topic = make_topic(options, "away")
    send(options, topic, [b"one"])
    archive = Archive(tmp_path, own_broker.bootstrap, topic)
    try:
        service = archive.start("--every-s", "1")
        heard(service, "up to date")
        own_broker.kill()
        assert own_broker.bootstrap in heard(service, "broker_away")["error"]
        own_broker.restart()
        heard(service, "broker_back")
        send(options, topic, [b"two"])
        heard(service, "archived")
        assert archived(archive.to, topic, 0)[3] == [b"one", b"two"]
    finally:
        archive.stop()


def test_a_topic_that_was_made_anew_is_refused(options: dict[str, Any], topic: str, archive: Archive) -> None:
    send(options, topic, [b"v"] * 10)
    assert archive.once()[0] == 0
    with open_admin(options) as admin:
        admin.delete_topics([topic])
    make_topic(options, topic)
    code, _, events = archive.once()
    assert code == 4
    assert "ends at offset 0" in events[-1]["reason"] and "Archive it to another place" in events[-1]["reason"]


def test_a_topic_that_does_not_exist_is_named(broker: DevBroker, tmp_path: Path) -> None:
    missing = Archive(tmp_path, broker.bootstrap, "no-such-topic")
    code, _, events = missing.once()
    assert code == 4 and "topic no-such-topic does not exist" in events[-1]["reason"]
