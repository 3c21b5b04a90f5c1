"""A dead letter is the record as it came, and why; or as much of it as the topic takes."""

import pytest

from services.codecs import dead_letters
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.records import Reason, Role

NOW_MS = 1_794_698_000_000
BAD = [b'{"at":1,"x":["1"]}', None, b"\xff\xff\xff\xff\x00", b"", b"x" * 5000, b"{}"]
KEYS = [b"\xff\x00", b"k", None, b"", b"k", b"k" * 300]
HEADERS = {0: [("trace", b"\x00\xff"), ("trace", None)], 4: [("__connect.errors.topic", b"earlier")]}


@pytest.fixture(scope="module")
def rejected(polled):
    return ReadingDecoder(Schema(("power",))).decode(polled(BAD, KEYS, HEADERS))[1]


def size(letters, row):
    headers = sum(len(name) + len(value or b"") for name, value in letters.headers[row])
    return len(letters.keys[row] or b"") + len(letters.values[row] or b"") + headers


def test_bytes_key_and_headers_as_they_came(rejected):
    letters = dead_letters.encode(rejected, "plant.readings", "streamrnn-plant", NOW_MS)
    assert (letters.role, letters.partition, letters.timestamp_ms) == (Role.DEAD_LETTERS, 3, NOW_MS)
    assert letters.values == BAD
    assert letters.keys == KEYS
    for row in range(len(BAD)):
        own = HEADERS.get(row, [])
        assert list(letters.headers[row][: len(own)]) == own


def test_why(rejected):
    letters = dead_letters.encode(rejected, "plant.readings", "streamrnn-plant", NOW_MS, task="1")
    for row, headers in enumerate(letters.headers):
        last = dict(headers)
        assert last["streamrnn.reason"].decode() == rejected.reasons[row]
        assert last["__connect.errors.exception.message"].decode() == rejected.details[row]
        assert last["__connect.errors.topic"] == b"plant.readings"
        assert last["__connect.errors.partition"] == b"3"
        assert last["__connect.errors.offset"] == b"%d" % (100 + 2 * row)
        assert last["__connect.errors.connector.name"] == b"streamrnn-plant"
        assert last["__connect.errors.task.id"] == b"1"
        of_key = rejected.reasons[row] in (Reason.MISSING_KEY, Reason.KEY_TOO_LONG)
        assert last["__connect.errors.stage"] == (b"KEY_CONVERTER" if of_key else b"VALUE_CONVERTER")
        assert last["__connect.errors.class.name"]
        assert last["__connect.errors.exception.class.name"]
    assert len(set(rejected.reasons)) >= 4


def test_a_value_too_large_is_cut(rejected):
    letters = dead_letters.encode(rejected, "t", "g", NOW_MS, max_bytes=3000)
    last = dict(letters.headers[4])
    assert last["streamrnn.truncated"] == b"5000"
    assert 1000 < len(letters.values[4]) < 3000
    assert BAD[4].startswith(letters.values[4])
    assert size(letters, 4) <= 3000
    assert letters.headers[4][0] == HEADERS[4][0]
    assert letters.values[:4] == BAD[:4]
    assert not any("truncated" in name for name, _ in letters.headers[0])


def test_a_key_or_headers_too_large_are_cut(polled):
    many = [(f"h{i}", b"v" * 100) for i in range(100)]
    records = polled([b"x" * 5000, b"y" * 10], [b"k" * 200_000, b"k"], {0: many, 1: many})
    letters = dead_letters.encode(
        ReadingDecoder(Schema(("power",))).decode(records)[1], "t", "g", NOW_MS, max_bytes=4000
    )
    assert size(letters, 0) <= 4000
    assert size(letters, 1) <= 4000
    assert dict(letters.headers[0])["streamrnn.truncated.key"] == b"200000"
    assert dict(letters.headers[0])["streamrnn.truncated"] == b"5000"
    assert dict(letters.headers[0])["streamrnn.truncated.headers"] == b"100"
    assert dict(letters.headers[1])["streamrnn.truncated.headers"] == b"100"
    assert (letters.keys[1], letters.values[1]) == (b"k", b"y" * 10)


def test_none(polled):
    rejected = ReadingDecoder(Schema(("power",))).decode(polled([]))[1]
    assert len(dead_letters.encode(rejected, "t", "g", NOW_MS)) == 0
