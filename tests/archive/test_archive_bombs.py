"""What an archive and a training do about a batch that unpacks to more than may be held, on a real broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archiving import Archive, archived, heard, send, verified
from bombs import highest_mib, send_bombs
from readings_topic import START_MS, ReadingsTopic, times, waves

from services.archive import reading
from services.archive.layout import Gone
from services.brokers.devbroker import DevBroker
from services.codecs.readings_write import encode
from services.trainer.ranges import asked, resolve
from services.trainer.topic_dataset import take
from services.trainer.topic_readers import ArchiveReader, KafkaReader, TopicReader

LIMIT = "--set=epoch.max_poll_mib=8"


def test_an_archive_passes_it_over_says_so_for_good_and_takes_no_memory(
    broker: DevBroker, topic: str, archive: Archive
) -> None:
    options = {"bootstrap_servers": broker.bootstrap}
    send(options, topic, [b"a", b"b"])
    service = archive.start("--every-s", "1", LIMIT)
    heard(service, "up to date")
    before_mib = highest_mib(service.pid)
    send_bombs(broker.bootstrap, topic, mib=100, times=2)
    send(options, topic, [b"c"])
    sentences = [heard(service, "batch passed over") for _ in range(2)]
    heard(service, "archived")
    assert highest_mib(service.pid) - before_mib < 100
    service.terminate()
    out, _ = service.communicate()
    assert service.returncode == 0 and "; 2 batches were passed over, which unpack to too much" in out
    for at, sentence in enumerate(sentences, 2):
        said = f"topic {topic}, partition 0: The record batch of "
        assert sentence["level"] == "warning" and sentence["what"].startswith(said)
        assert f"at offsets {at} to {at} unpacks to more than 8 MiB (epoch.max_poll_mib)" in sentence["what"]
    assert archived(archive.to, topic, 0)[::3] == ([0, 1, 4], [b"a", b"b", b"c"])
    assert reading.holes(archive.to, topic) == {0: [(2, 3), (3, 4)]}
    code, lines, wrong = verified(archive.to)
    assert (code, wrong) == (0, []) and f"hole: {sentences[0]['what']}" in lines
    with pytest.raises(Gone, match="offsets 2 to 2 of partition 0 could not be archived"):
        reading.records(archive.to, topic, 0, 0, 5)


def test_a_training_does_without_it_and_notes_where_it_is(
    broker: DevBroker, topic_names: Callable[[], str], tmp_path: Path
) -> None:
    topic = ReadingsTopic(broker.bootstrap, topic_names(), partitions=1)
    topic.write(0, b"a", encode(waves(50, 0), times(50)))
    send_bombs(broker.bootstrap, topic.name, mib=20, times=2)
    topic.write(0, b"a", encode(waves(50, 1), times(50) + 3_600_000), START_MS + 3_600_000)

    def noted(past: TopicReader) -> tuple[str, ...]:
        found = take(past, resolve(past, asked("0"), 0), features=("flow", "level"))
        assert found.source.rows == {0: 100}
        return found.notes

    first, second, counted = noted(KafkaReader(topic.options, topic.name, 8 << 20))
    for at, note in ((50, first), (51, second)):
        assert note.startswith(f"topic {topic.name}, partition 0: The record batch of ")
        assert f"at offsets {at} to {at} unpacks to more than 8 MiB (epoch.max_poll_mib)" in note
    assert counted.startswith("2 records were refused (batch_too_large 2)")
    archive = Archive(tmp_path, broker.bootstrap, topic.name)
    assert archive.once(LIMIT)[0] == 0
    notes = noted(ArchiveReader(topic.options, topic.name, archive.to))
    assert [note[:53] for note in notes] == [
        f"offsets {at} to {at} of partition 0 could not be archived" for at in (50, 51)
    ]
