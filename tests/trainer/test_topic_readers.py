"""A range that begins in the archive and ends in the topic is the range that the topic once held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archiving import Archive
from readings_topic import START_MS, ReadingsTopic, times, waves

from services.brokers.devbroker import DevBroker
from services.codecs.readings_write import encode
from services.trainer.ranges import WrongRange, asked, resolve
from services.trainer.topic_dataset import take
from services.trainer.topic_readers import ArchiveReader, KafkaReader

DAY_MS = 86_400_000


def test_what_was_lost_before_it_was_archived_is_noted_and_passed_over(
    broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path
) -> None:
    topic = ReadingsTopic(broker.bootstrap, topic_names(), partitions=1)
    archive = Archive(tmp_path, broker.bootstrap, topic.name)
    topic.write(0, b"a", encode(waves(100, 0), times(100)))
    assert archive.once()[0] == 0
    topic.write(0, b"a", encode(waves(100, 1), times(100) + DAY_MS), START_MS + DAY_MS)
    topic.forget(0, 130)
    assert archive.once()[0] == 0
    both = ArchiveReader(topic.options, topic.name, archive.to)
    found = take(both, resolve(both, asked("20"), 0), features=("flow", "level"))
    assert found.source.rows == {0: 150} and found.source.partitions == {0: (20, 200)}
    (note,) = found.notes
    assert note.startswith("offsets 100 to 129 of partition 0 could not be archived (`streamrnn archive verify` says")
    assert take(both, resolve(both, asked("140"), 0), features=("flow", "level")).notes == ()
    with pytest.raises(WrongRange, match="only what could not be archived, and marks of transactions"):
        take(both, resolve(both, asked("105", "120"), 0), features=("flow", "level"))


def test_what_retention_has_eaten_is_read_from_the_archive(
    broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path
) -> None:
    topic = ReadingsTopic(broker.bootstrap, topic_names(), partitions=1)
    for day in range(3):
        topic.write(0, b"a", encode(waves(100, day), times(100) + day * DAY_MS), START_MS + day * DAY_MS)
    kafka = KafkaReader(topic.options, topic.name)
    since = asked(str(START_MS + DAY_MS))
    before = take(kafka, resolve(kafka, since, 0), features=("flow", "level"))
    archive = Archive(tmp_path, broker.bootstrap, topic.name)
    assert archive.once()[0] == 0
    topic.write(0, b"a", encode(waves(50, 9), times(50) + 3 * DAY_MS), START_MS + 3 * DAY_MS)
    topic.forget(0, 250)

    with pytest.raises(WrongRange, match="eaten everything before offset 250"):
        resolve(kafka, since, 0)
    both = ArchiveReader(topic.options, topic.name, archive.to)
    assert both.spans() == {0: (0, 350)}
    assert dict(resolve(both, since, 0).partitions) == {0: (100, 350)}
    assert dict(resolve(both, asked("0:7"), 0).partitions) == {0: (7, 350)}
    again = take(both, resolve(both, asked("100", "300"), 0), features=("flow", "level"))
    assert again.material.digest == before.material.digest
    longer = take(both, resolve(both, since, 0), features=("flow", "level"))
    np.testing.assert_array_equal(longer.material.series[0].x[200:], waves(50, 9))
