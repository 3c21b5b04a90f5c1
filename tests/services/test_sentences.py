"""Generated and gathered sequences: their truth is true, their parts are apart, and equal seeds give equal tables."""

from __future__ import annotations

import csv
import keyword
import struct
from collections import Counter
from pathlib import Path

import pytest

from services.cli.datasets_fetch import NoSuchTables, fetch
from services.datasets.sentences import LOCATION, ORGANISATION, OTHER, PERSON, entities, sentiment
from services.datasets.table_sets import TABLE_SETS
from services.datasets.tables import Split, Table
from services.datasets.translations import MAGIC, catalogue, tokens
from services.datasets.wheels import DataUnavailable
from services.datasets.word_kinds import KINDS, word_kinds


def sequences(table: Table) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        found.setdefault(cells["stream"], []).append(cells)
    return found


@pytest.mark.parametrize("make", [entities, sentiment, word_kinds])
def test_equal_seeds_give_equal_tables_and_times_go_on(make) -> None:
    split: Split = make(seed=3)
    assert split == make(seed=3)
    assert split != make(seed=4)
    for table in (split.train, split.test):
        at_ms = [int(cell) for cell in table.column("at")]
        assert at_ms == sorted(set(at_ms))


@pytest.mark.parametrize("both_sides", [False, True])
def test_no_name_of_the_test_part_was_ever_seen(both_sides: bool) -> None:
    split = entities(both_sides=both_sides)
    names = [
        {row["word"] for rows in sequences(part).values() for row in rows if row["tag"] != OTHER}
        for part in (split.train, split.test)
    ]
    shared = names[0] & names[1]
    assert shared <= {"San", "New", "Port", "Saint", "united", "royal", "first"}  # first words of two
    assert len(names[1]) > 400
    tags = Counter(split.test.column("tag"))
    assert set(tags) == {PERSON, ORGANISATION, LOCATION, OTHER}
    assert min(tags.values()) > 200


def test_the_lectures_sentence_is_one_that_can_be_made() -> None:
    table = entities(train=4000).train
    spoken = {" ".join(row["word"] for row in rows): [row["tag"] for row in rows] for rows in sequences(table).values()}
    assert spoken["Kelly worked at google in San Francisco"] == [
        PERSON,
        OTHER,
        OTHER,
        ORGANISATION,
        OTHER,
        LOCATION,
        LOCATION,
    ]


def test_words_alone_do_not_tell_the_mood() -> None:
    """The same bag of words ends well in one order and badly in the other."""
    split = sentiment()
    moods: dict[tuple[str, ...], set[str]] = {}
    spoken: list[set[tuple[str, ...]]] = []
    for part in (split.train, split.test):
        said = set()
        for rows in sequences(part).values():
            words = tuple(row["word"] for row in rows)
            said.add(words)
            moods.setdefault(tuple(sorted(words)), set()).add(rows[-1]["mood"])
            assert all(not row["mood"] for row in rows[:-1])
            assert [row["end"] for row in rows] == ["0"] * (len(rows) - 1) + ["1"]
        spoken.append(said)
    assert not spoken[0] & spoken[1]
    stories = {bag: found for bag, found in moods.items() if bag.count("the") == 2}
    assert sum(len(found) == 2 for found in stories.values()) > 0.6 * len(stories)
    truth = {
        " ".join(row["word"] for row in rows): rows[-1]["mood"]
        for part in (split.train, split.test)
        for rows in sequences(part).values()
    }
    assert truth["the cat chased the mouse"] == "negative"
    assert truth["the mouse chased the cat"] == "positive"
    assert truth["the film was not good"] == truth["the film was bad"] == "negative"


def test_python_knows_its_words() -> None:
    split = word_kinds()
    kinds = dict(zip(split.train.column("word"), split.train.column("kind"), strict=True))
    assert set(kinds.values()) == set(KINDS)
    assert all(kinds[word] == "keyword" for word in keyword.kwlist)
    assert (kinds["ValueError"], kinds["len"], kinds["dict"], kinds["json"]) == (
        "exception",
        "function",
        "type",
        "module",
    )
    strange = set(split.test.column("word")) - set(kinds)
    assert strange and len(strange) < 0.1 * len(kinds)


def compiled(pairs: list[tuple[str, str]], magic: int = MAGIC) -> bytes:
    """A gettext catalogue, as msgfmt writes it."""
    texts = [[text.encode() for text in side] for side in zip(*pairs, strict=True)]
    start, tables = 28 + 16 * len(pairs), b""
    for side in texts:
        for text in side:
            tables += struct.pack("<2I", len(text), start)
            start += len(text) + 1
    head = struct.pack("<7I", magic, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return head + tables + b"".join(text + b"\0" for side in texts for text in side)


def test_a_catalogue_gives_pairs_without_header_contexts_and_plurals() -> None:
    content = compiled(
        [
            ("", "Language: de\n"),
            ("Yes", "Ja"),
            ("month\x04May", "Mai"),
            ("%d day\0%d days", "%d Tag\0%d Tage"),
            ("No", ""),
        ]
    )
    assert catalogue(content) == [("Yes", "Ja"), ("May", "Mai"), ("%d day", "%d Tag")]


@pytest.mark.parametrize(
    "content", [b"", b"nothing of the kind", compiled([("a", "b")], 7), compiled([("a", "b")])[:40]]
)
def test_another_file_is_no_catalogue(content: bytes) -> None:
    with pytest.raises(DataUnavailable, match="cannot be read"):
        catalogue(content)


def test_messages_are_cut_into_words_placeholders_and_marks() -> None:
    assert tokens("You don't have %(count)d items, %s!") == (
        "you",
        "don't",
        "have",
        "%(count)d",
        "items",
        ",",
        "%s",
        "!",
    )


def test_a_split_is_written_as_two_tables(tmp_path: Path) -> None:
    split = sentiment(train=30, test=10)
    assert split.write(tmp_path / "deep" / "folder") == [
        tmp_path / "deep/folder/train.csv",
        tmp_path / "deep/folder/test.csv",
    ]
    with (tmp_path / "deep/folder/test.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == split.test.columns == ("stream", "at", "word", "end", "mood")
    assert [tuple(row) for row in rows[1:]] == list(split.test.rows)
    assert sorted(path.name for path in (tmp_path / "deep/folder").iterdir()) == ["test.csv", "train.csv"]


def test_the_first_rows_are_whole_sequences() -> None:
    split = sentiment(train=50, test=20)
    few = split.first(40)
    assert 30 < len(few.train.rows) <= 40 and len(few.test.rows) <= 10
    assert few.train.rows[-1][3] == few.test.rows[-1][3] == "1"
    assert split.first(1).train.column("end").count("1") == 1
    assert split.first(10**6) == split
    assert len(word_kinds().first(7).train.rows) == 7


def test_fetch_writes_tables_and_a_wrong_name_lists_them(tmp_path: Path) -> None:
    fetch("entities", tmp_path, readings=100)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    assert lines[0] == "stream,at,word,end,tag"
    assert lines[1].endswith(",Kelly,0,PERSON") and 90 < len(lines) <= 101
    with pytest.raises(NoSuchTables) as refused:
        fetch("entitees", tmp_path)
    assert all(name in str(refused.value) for name in TABLE_SETS)


@pytest.mark.parametrize("name", sorted(TABLE_SETS))
def test_every_set_has_both_parts_in_the_same_columns(name: str) -> None:
    try:
        split = TABLE_SETS[name].make(None)
    except DataUnavailable as error:
        pytest.skip(str(error))
    assert split.train.columns == split.test.columns
    assert split.train.columns[:2] == ("stream", "at")
    assert len(split.train.rows) > len(split.test.rows) > 100
    assert all(len(row) == len(split.train.columns) for row in split.train.rows[:1000])
    assert split.citation


def test_a_customers_day_has_its_mean_in_the_right_hour() -> None:
    import numpy as np

    from services.datasets.load_profiles import day_profiles, parse

    quarters = np.tile(np.repeat(np.arange(24), 4), 10)[:, None] * np.array([[1.0, 2.0]], np.float32)
    at_ms = 1_451_606_400_000 + 900_000 * np.arange(960)  # 2016-01-01, a Friday
    split = day_profiles(at_ms, quarters.astype(np.float32), ("G1", "H0"), "nobody")
    assert len(split.train.rows) == 16 and len(split.test.rows) == 4
    row = dict(zip(split.train.columns, split.train.rows[1], strict=True))
    assert (row["stream"], row["load_00"], row["load_23"], row["mean"], row["saturday"]) == ("H0", "0", "46", "23", "0")
    assert dict(zip(split.train.columns, split.train.rows[2], strict=True))["saturday"] == "1"
    with pytest.raises(DataUnavailable, match="does not begin"):
        parse(b"when;what\n1;2\n")
