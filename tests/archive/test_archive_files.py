"""The archive's files: what goes in comes back, whatever the rounds; what is damaged, foreign or missing is named."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest
from archiving import NOON_MS, Shelf, joined
from hypothesis import given, settings
from hypothesis import strategies as st

from services.archive import places, reading
from services.archive.archiver import Archiver
from services.archive.layout import Damaged, Gone
from services.archive.places import ArchiveInUse, NotWritten
from services.archive.verify import verify
from services.records import Records

HOUR_MS = 3_600_000


def shelf(rng: np.random.Generator, n: int = 100, partitions: int = 2, topic: str = "pumps") -> Shelf:
    """Records of every kind, with gaps between their offsets and times that go back and forth over days."""
    parts = {}
    for partition in range(partitions):
        offsets = np.cumsum(rng.integers(1, 4, n))
        times_ms = NOON_MS + np.cumsum(rng.integers(-2, 5, n)) * HOUR_MS
        times_ms[rng.integers(0, n)] = -1
        times_ms[rng.integers(0, n)] = 1 << 62
        blobs: list[bytes | None] = [None, b"", b"pump", b"\xff\x00" * 9]
        keys, values = ([blobs[pick] for pick in rng.integers(0, 4, n)] for _ in range(2))
        headers = {int(row): [("a", b"1"), ("a", None), ("", b"")] for row in rng.integers(0, n, 5)}
        parts[partition] = Records(partition, offsets, times_ms, keys, values, headers)
    return Shelf(topic, parts)


def rounds(where: str | Path, topic: Shelf, *, piece_bytes: int = 500, now_ms: int = NOON_MS + 900 * HOUR_MS,
           times: int = 1, stopped: Any = lambda: False) -> list[tuple[str, dict[str, Any]]]:  # fmt: skip
    """Runs a fresh archiver, and gives what it said."""
    told: list[tuple[str, dict[str, Any]]] = []
    place = places.place(where, topic.name)
    place.claim()
    try:
        archiver = Archiver(topic, place, lambda event, **fields: told.append((event, fields)),
                            piece_bytes=piece_bytes, now_ms=lambda: now_ms)  # fmt: skip
        for _ in range(times):
            archiver.round(stopped)
    finally:
        place.close()
    return told


def everything(where: str | Path, topic: Shelf) -> dict[int, Any]:
    return {
        partition: joined(list(reading.records(where, topic.name, partition, first, end, over_holes=True)))
        for partition, (first, end) in reading.spans(where, topic.name).items()
    }


def given_in(topic: Shelf) -> dict[int, Any]:
    return {partition: joined([part]) for partition, part in topic.parts.items()}


@pytest.fixture
def pumps(seed: int) -> Shelf:
    return shelf(np.random.default_rng(seed))


@pytest.fixture
def filled(tmp_path: Path, pumps: Shelf) -> Path:
    rounds(tmp_path, pumps)
    return tmp_path / "topic=pumps"


def pieces(root: Path) -> list[Path]:
    return sorted(root.glob("day=*/*"), key=lambda path: path.name)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_the_rounds_what_goes_in_comes_back(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    where = tmp_path_factory.mktemp("archive")
    topic = shelf(rng, int(rng.integers(1, 60)), int(rng.integers(1, 4)))
    ends = dict(topic.ends)
    for step in range(4):  # the stable end moves on, and rounds are stopped midway
        for partition, end in ends.items():
            topic.ends[partition] = end if step == 3 else int(rng.integers(topic.ends[partition] * (step > 0), end + 1))
        left = int(rng.integers(0, 9)) if step < 3 else 1 << 30
        budget = iter(range(left))
        rounds(where, topic, piece_bytes=int(rng.integers(1, 3000)), stopped=lambda it=budget: next(it, None) is None)
    assert everything(where, topic) == given_in(topic)
    assert {partition: end for partition, (_, end) in reading.spans(where, "pumps").items()} == ends
    verdict = verify(where, "pumps")
    assert verdict.wrong == [] and sum(found.records for found in verdict.partitions) == sum(
        map(len, topic.parts.values())
    )
    partition = int(rng.integers(0, len(ends)))
    first, end = sorted(rng.integers(0, ends[partition] + 1, 2).tolist())
    part = topic.parts[partition]
    inside = part.offsets[(part.offsets >= first) & (part.offsets < end)].tolist()
    assert joined(list(reading.records(where, "pumps", partition, first, end)))[0] == inside
    for one in topic.parts:  # so that the oldest days can be deleted without a hole in what stays
        days = [
            path.parent.name for path in pieces(where / "topic=pumps") if path.name.startswith(f"partition-{one:02d}")
        ]
        assert days == sorted(days)


def test_days_come_from_the_records_and_never_lie_beyond_tomorrow(filled: Path) -> None:
    for path in pieces(filled):
        day_ms = int(np.datetime64(path.parent.name[4:], "ms").astype(int))
        times_ms = pyarrow.dataset.dataset(path).to_table(columns=["timestamp_ms"]).column(0).to_numpy()
        assert (times_ms[times_ms < 1 << 62] < day_ms + 24 * HOUR_MS).all()
        assert day_ms <= NOON_MS + 900 * HOUR_MS + 24 * HOUR_MS


def test_others_read_it_as_a_plain_data_set(filled: Path, pumps: Shelf) -> None:
    table = pyarrow.dataset.dataset(filled.parent, partitioning="hive").to_table()
    assert table.num_rows == 200 and set(table.column("topic").to_pylist()) == {"pumps"}
    assert sorted(table.column("offset").to_pylist()) == sorted(
        offset for part in pumps.parts.values() for offset in part.offsets.tolist()
    )


def test_a_topic_of_aborted_records_alone_is_no_hole_when_retention_eats_it(tmp_path: Path) -> None:
    none = np.zeros(0, np.int64)
    topic = Shelf("pumps", {0: Records(0, none, none, [], [])})
    topic.ends[0] = 50
    place = places.place(tmp_path, "pumps")
    place.claim()
    told: list[str] = []
    archiver = Archiver(topic, place, lambda event, **_: told.append(event))
    archiver.round()
    topic.begins[0] = 50
    archiver.round()
    assert told == []
    topic.begins[0] = topic.ends[0] = 60  # and these nobody has seen
    archiver.round()
    assert told == ["records are gone"] and reading.holes(tmp_path, "pumps") == {0: [(50, 60)]}
    place.close()


FULL_DISK = """
import resource, sys
sys.path[:0] = ["tests/support", "tests/archive"]
import numpy as np
from test_archive_files import rounds, shelf
from services.archive.places import NotWritten
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))  # the kernel refuses every byte of a file after these
try:
    rounds(sys.argv[1], shelf(np.random.default_rng(1), 5000), piece_bytes=1 << 20)
except NotWritten as error:
    sys.stdout.write(str(error))
"""


def test_a_full_disk_is_told_and_nothing_half_written_stays(tmp_path: Path) -> None:
    topic = shelf(np.random.default_rng(1), 5000)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"{tmp_path}/topic=pumps cannot be written to: there is no room (File too large)" in done.stdout
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]
    rounds(tmp_path, topic, piece_bytes=1 << 20)
    assert everything(tmp_path, topic) == given_in(topic)


def test_a_place_that_is_no_folder_is_told(tmp_path: Path, pumps: Shelf) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match=r"Not a directory"):
        rounds(tmp_path / "file", pumps)
    with pytest.raises(NotWritten, match=r"nonsense://x/y cannot be used") as refused:
        rounds("nonsense://user:secret@x/y?secret=secret", pumps)
    assert "secret" not in str(refused.value)


def test_no_bit_can_change_unseen(filled: Path, pumps: Shelf, seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = everything(filled.parent, pumps)
    path = pieces(filled)[0]
    content = path.read_bytes()
    for at in rng.choice(len(content), 80, replace=False).tolist():
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(changed)
        wrong = verify(filled.parent, "pumps").wrong
        if wrong:
            assert path.name in wrong[0]
        else:  # in a name, a statistic or a size that nobody needs
            assert everything(filled.parent, pumps) == right
    path.write_bytes(content)
    assert verify(filled.parent, "pumps").wrong == []


def test_an_archive_whose_end_is_damaged_is_not_gone_on_with(filled: Path, pumps: Shelf) -> None:
    last = [path for path in pieces(filled) if path.name.startswith("partition-01")][-1]
    last.write_bytes(last.read_bytes()[:-20])
    with pytest.raises(Damaged, match=rf"{last.name} cannot be read.*Put back a good copy"):
        rounds(filled.parent, pumps)


def test_files_that_are_not_its_own_are_named(filled: Path, pumps: Shelf) -> None:
    for name in ("notes.txt", "day=2026-11-15/partition-00-5-9.parquet", "day=2026-13-45/" + pieces(filled)[0].name):
        strange = filled / name
        strange.parent.mkdir(exist_ok=True)
        strange.write_text("hello")
        with pytest.raises(Damaged, match=rf"{re.escape(str(strange))} is not a file of this archive; move it"):
            rounds(filled.parent, pumps)
        strange.unlink()
    (filled / "day=2026-13-45").rmdir()
    first, second = pieces(filled)[:2]
    second.write_bytes(first.read_bytes())
    (wrong,) = verify(filled.parent, "pumps").wrong
    assert f"{second.name} does not hold what its name says" in wrong


def test_a_file_that_is_missing_in_between_is_named(filled: Path, pumps: Shelf) -> None:
    before, missing, after = pieces(filled)[:3]
    missing.unlink()
    first, last = (int(number) for number in missing.stem.split("-")[2:4])
    with pytest.raises(
        Damaged, match=f"offsets {first} to {last} of partition 0 are missing .*{before.name}.*{after.name}"
    ):
        rounds(filled.parent, pumps)
    with pytest.raises(Damaged, match="are missing"):
        reading.spans(filled.parent, "pumps")


def test_the_oldest_files_may_be_deleted(filled: Path, pumps: Shelf) -> None:
    oldest = sorted(path.name for path in filled.glob("day=*"))[0]
    for path in filled.glob(f"{oldest}/*"):
        path.unlink()
    begins = {partition: first for partition, (first, _) in reading.spans(filled.parent, "pumps").items()}
    assert all(begins.values()) and rounds(filled.parent, pumps)[0][0] == "archive goes on"
    assert verify(filled.parent, "pumps").wrong == []
    with pytest.raises(
        Gone, match=rf"holds {begins[0]} to {pumps.ends[0] - 1}, and offsets 0 to 9 of partition 0 were"
    ):
        reading.records(filled.parent, "pumps", 0, 0, 10)


def test_a_half_written_file_of_a_killed_archiver_is_cleared_away(filled: Path, pumps: Shelf) -> None:
    (filled / f".{pieces(filled)[-1].name}.part").write_bytes(b"PAR1")
    assert everything(filled.parent, pumps) == given_in(pumps)
    rounds(filled.parent, pumps)
    assert not list(filled.glob("*.part"))


def test_a_place_has_one_writer(tmp_path: Path, pumps: Shelf) -> None:
    place = places.place(tmp_path, "pumps")
    place.claim()
    with pytest.raises(ArchiveInUse, match=r"is being written to by another archiver \(process \d+ on"):
        rounds(tmp_path, pumps)
    place.close()
    rounds(tmp_path, pumps)


def test_an_object_store_holds_the_same_and_two_writers_are_found_out(pumps: Shelf) -> None:
    where = f"fsspec+memory://bucket-{secrets.token_hex(4)}/archive"
    rounds(where, pumps)
    assert everything(where, pumps) == given_in(pumps)
    assert places.topics(where) == ["pumps"] and verify(where, "pumps").wrong == []
    store = places.place(where, "pumps")
    path = store.paths()[0]
    with store.open(path) as source:
        content = pyarrow.py_buffer(source.read())
    with pytest.raises(ArchiveInUse, match="is there already"):
        store.publish(path, content)
    longer = re.sub(r"\d{20}\.parquet", f"{10**6:020d}.parquet", path)
    store.publish(longer, content)
    with pytest.raises(Damaged, match="hold the same offsets, so two archivers have written here at once"):
        rounds(where, pumps)


def test_files_follow_on_each_other(filled: Path) -> None:
    for partition in ("00", "01"):
        spans = [path.stem.split("-")[2:4] for path in pieces(filled) if path.name.startswith(f"partition-{partition}")]
        assert all(int(before[1]) + 1 == int(after[0]) for before, after in pairwise(spans)) and len(spans) > 3
