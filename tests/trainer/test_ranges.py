"""Which readings are meant, on real Kafka: offsets, times, the latest; and what is said of those that are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from readings_topic import START_MS, ReadingsTopic, times, waves

from services.brokers.devbroker import DevBroker
from services.codecs.readings_write import encode
from services.trainer.ranges import Range, WrongRange, asked, resolve
from services.trainer.topic_readers import KafkaReader

HOUR_MS = 3_600_000
NOW_MS = START_MS + 10 * HOUR_MS


@pytest.fixture
def topic(broker: DevBroker, topic_names: Callable[[], str]) -> ReadingsTopic:
    """Partition 0: 100 readings of an hour each; partition 1: 40."""
    made = ReadingsTopic(broker.bootstrap, topic_names())
    for partition, hours in ((0, 10), (1, 4)):
        for hour in range(hours):
            values = encode(waves(10, hour), times(10))
            made.write(partition, b"a", values, START_MS + hour * HOUR_MS)
    return made


def spans(topic: ReadingsTopic, begin: str | None = None, end: str | None = None, last: str | None = None) -> object:
    return dict(resolve(KafkaReader(topic.options, topic.name), asked(begin, end, last), NOW_MS).partitions)


def test_a_range_is_asked_for_in_offsets_times_and_from_the_end(topic: ReadingsTopic) -> None:
    whole = {0: (0, 100), 1: (0, 40)}
    assert spans(topic) == whole
    assert spans(topic, "20", "30") == {0: (20, 30), 1: (20, 30)}
    assert spans(topic, "0:90") == {0: (90, 100)}
    assert spans(topic, "0:90,1:10", "1:20") == {0: (90, 100), 1: (10, 20)}
    assert spans(topic, str(START_MS + 3 * HOUR_MS)) == {0: (30, 100), 1: (30, 40)}
    assert spans(topic, str(START_MS + HOUR_MS), str(START_MS + 2 * HOUR_MS)) == {0: (10, 20), 1: (10, 20)}
    assert spans(topic, last="2h") == {0: (80, 100)}
    assert spans(topic, last="28") == {0: (80, 100), 1: (32, 40)}  # of every partition the same share
    assert spans(topic, last="9d") == whole


@pytest.mark.parametrize(
    ("begin", "end", "last", "said"),
    [
        ("soon", None, None, "--from 'soon' is neither a time"),
        (None, None, "soon", "--last 'soon' is neither"),
        ("1", None, "2h", "leave one of them out"),
        ("0:1,0:2", None, None, "names a partition twice"),
    ],
)
def test_what_cannot_be_meant_is_said_without_asking_kafka(
    begin: str | None, end: str | None, last: str | None, said: str
) -> None:
    with pytest.raises(WrongRange, match=said):
        asked(begin, end, last)


def test_offsets_that_are_not_there_are_named(topic: ReadingsTopic) -> None:
    with pytest.raises(WrongRange, match=r"partition 1: --to 60 is not there yet; what is left is offsets 0 to 100 of"):
        spans(topic, "20", "60")
    with pytest.raises(WrongRange, match="has no partition 7; it has 2"):
        spans(topic, "7:0")
    with pytest.raises(WrongRange, match=r"partition 0: --from 30 is offset 30 and comes after --to 20"):
        spans(topic, "30", "20")
    with pytest.raises(WrongRange, match="no reading in the range asked for; what is left is offsets 0 to 100"):
        spans(topic, "20", "20")
    with pytest.raises(WrongRange, match="no reading in the range asked for"):
        spans(topic, str(NOW_MS + HOUR_MS))


def test_what_retention_has_eaten_is_named_with_what_is_left(topic: ReadingsTopic) -> None:
    topic.forget(0, 35)
    gone = r"partition 0: offset 20 is gone, for retention has eaten everything before 35; what is left is offsets 35"
    with pytest.raises(WrongRange, match=gone):
        spans(topic, "0:20")
    with pytest.raises(WrongRange, match=r"eaten everything before offset 35, maybe some of it from after"):
        spans(topic, str(START_MS + HOUR_MS))
    assert spans(topic, str(START_MS + 5 * HOUR_MS)) == {0: (50, 100)}
    assert spans(topic) == {0: (35, 100), 1: (0, 40)}
    assert spans(topic, last="9d") == {0: (35, 100), 1: (0, 40)}
    (note,) = resolve(KafkaReader(topic.options, topic.name), asked(last="9d"), NOW_MS).notes
    assert "was to begin at 2026-09-13T00:13:20Z, and retention has eaten everything before offset 35 of" in note
    assert "of partition 0, 2026-09-21T17:13:20Z: training does with what is left" in note and "partition 1" not in note
    for enough in ("7h", "5h", "50"):  # offset 35 is of seven hours ago
        assert resolve(KafkaReader(topic.options, topic.name), asked(last=enough), NOW_MS).notes == ()


def test_an_empty_topic_is_said_to_be_empty(broker: DevBroker, topic_names: Callable[[], str]) -> None:
    with pytest.raises(WrongRange, match="no reading in the range asked for; it is empty"):
        spans(ReadingsTopic(broker.bootstrap, topic_names()))


def test_a_range_names_itself() -> None:
    assert str(Range("t", {1: (2, 3), 0: (5, 9)})) == "t [0: 5..9, 1: 2..3]"
    assert Range("t", {1: (2, 3), 0: (5, 9)}).offsets == 5
