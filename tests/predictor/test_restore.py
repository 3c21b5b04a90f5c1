"""A stream whose state row cannot be read, or cannot be true, is set aside alone; what is of many is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.codecs import state_rows
from services.driver import Prediction, StreamDriver
from services.predictor.batcher import ROW_BITS
from services.predictor.ports import Refused
from services.predictor.state_store import NAMES
from services.records import Reason, Role

AT = 1_700_000_000_000

torch.manual_seed(5)
FORWARD = Network(ModelConfig(("flow", "level"), cell="lstm", hidden=6)).eval()


def bits(made: list[Prediction]) -> list[tuple[Any, ...]]:
    """Without offsets."""
    return [(one.at_ms, one.y.tobytes(), np.float32(one.score).tobytes(), one.flags, one.row) for one in made]


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda row: b"",
    lambda row: b"SR",
    lambda row: row[:-1],
    lambda row: row + b"\0",
    lambda row: b"XX" + row[2:],
    lambda row: row[:24] + b"\xff\xff" + row[26:],
    lambda row: row[:46] + b"\xff\xff\xff\xff" + row[50:],
]


def served(stream: str, *others: str, exactly_once: bool = True) -> StreamDriver:
    """Each stream has had two readings."""
    driver = StreamDriver(FORWARD, exactly_once=exactly_once)
    for step in range(2):
        for name in (stream, *others):
            driver.send(name, AT + 1000 * step, [float(step), 1.0])
    driver.run()
    driver.crash()
    return driver


def row_of(driver: StreamDriver, stream: str) -> bytes:
    records = state_rows.newest(driver.broker.records(Role.CHANGELOG, 0))
    value = records.values[records.keys.index(stream.encode())]
    assert value is not None
    return value


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_row_that_cannot_be_read_is_the_trouble_of_its_stream(damage: Callable[[bytes], bytes]) -> None:
    check_trouble_of_b(True, damage, b"state row that cannot be read")


def check_trouble_of_b(exactly_once: bool, changed: Callable[[bytes], bytes], said: bytes) -> None:
    """A row of stream b that was changed costs its stream, until a tombstone ends it, and no neighbour."""
    hurt, well = (served("a", "b", "c", exactly_once=exactly_once) for _ in range(2))
    hurt.broker.append(Role.CHANGELOG, 0, b"b", changed(row_of(hurt, "b")))
    for driver in (hurt, well):
        driver.restart()
        for name in "abc":
            driver.send(name, AT + 2000, [5.0, 1.0])
        driver.run()
    for name in "ac":
        assert bits(hurt.predictions(name)) == bits(well.predictions(name))
    assert len(hurt.predictions("b")) == 2
    (letter,) = hurt.dead_letters()
    assert (letter.key, letter.reason) == (b"b", Reason.INTERNAL)
    assert said in (letter.headers["__connect.errors.exception.message"] or b"")
    assert hurt.shard is not None
    assert hurt.shard.stats.unreadable_streams == 1
    assert hurt.shard.stats.internal_errors == {"restore": 1}

    hurt.crash()
    hurt.broker.append(Role.CHANGELOG, 0, b"b", None)
    hurt.restart()
    hurt.send("b", AT + 3000, [5.0, 1.0])
    hurt.run()
    assert len(hurt.predictions("b")) == 3
    assert hurt.shard.stats.unreadable_streams == 0


def rewritten(row: bytes, **changed: Any) -> bytes:
    """The row with other fields, and its memory with another `name`, `layout` or size in `bytes`."""
    size = state_rows.HEADER.itemsize
    head, entry = np.frombuffer(row, state_rows.HEADER, 1).copy(), np.frombuffer(row[size:], state_rows.ENTRY, 1).copy()
    for field, value in changed.items():
        (head if field in state_rows.HEADER.names else entry)[field] = value
    return head.tobytes() + entry.tobytes() + row[size + entry.itemsize :].ljust(int(entry["bytes"][0]), b"\0")


STRAYS: dict[str, dict[str, Any]] = {
    "of a reading that has not been": {"offset": 1 << 62},
    "of the reading that comes next": {"offset": 6},
    "of another release": {"version": 3},
    "of another partition": {"partition": 3},
    "of another layout": {"layout": 7},
    "of a larger network": {"bytes": 100_000},
    "of another model": {"name": b"another"},
}


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
def test_a_whole_row_that_cannot_be_true_is_the_trouble_of_its_stream(
    stray: dict[str, Any], exactly_once: bool
) -> None:
    check_trouble_of_b(exactly_once, lambda row: rewritten(row, **stray), b"state row that is not of this pipeline")


@pytest.mark.parametrize("exactly_once", [True, False])
@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
@pytest.mark.parametrize("own", [1, 30])
def test_many_rows_that_cannot_be_true_are_a_mistake_of_a_person(
    own: int, stray: dict[str, Any], exactly_once: bool
) -> None:
    driver = served(*[f"own-{i}" for i in range(own)], exactly_once=exactly_once)
    at_end = {field: 2 * own if value == 6 else value for field, value in stray.items()}
    for i in range(1 if own == 1 else 11):
        row = rewritten(row_of(driver, "own-0"), **at_end)
        driver.broker.append(Role.CHANGELOG, 0, b"stray-%d" % i, row)
    with pytest.raises(Refused, match="start over with `streamrnn topics start-over`"):
        driver.restart()


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
def test_a_handful_beside_very_many_rows_is_no_mistake_of_that_kind(stray: dict[str, Any]) -> None:
    own = 1200
    driver = served(*[f"own-{i}" for i in range(own)])
    at_end = {field: 2 * own if value == 6 else value for field, value in stray.items()}
    for i in range(11):
        row = rewritten(row_of(driver, "own-0"), **at_end)
        driver.broker.append(Role.CHANGELOG, 0, b"stray-%d" % i, row)
    driver.restart()
    assert driver.shard is not None and driver.shard.stats.unreadable_streams == 11


def test_rows_of_very_many_layouts_cost_no_look_each(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, decode, looks = served("own"), state_rows.decode, []
    for i in range(300):
        row = rewritten(row_of(driver, "own"), layout=i + 1)
        driver.broker.append(Role.CHANGELOG, 0, b"stray-%d" % i, row)
    monkeypatch.setattr(state_rows, "decode", lambda *given: looks.append(given) or decode(*given))
    with pytest.raises(Refused, match=r"holds a memory of .* in layout 0000000000000001"):
        driver.restart()
    assert len(looks) < 20


def test_an_older_row_does_not_stand_in_for_a_stray_one_and_a_newer_one_does() -> None:
    driver = served("a", "b", "c")
    row = row_of(driver, "b")
    driver.broker.append(Role.CHANGELOG, 0, b"a", rewritten(row_of(driver, "a"), partition=3))
    driver.broker.append(Role.CHANGELOG, 0, b"b", rewritten(row, partition=3))
    driver.broker.append(Role.CHANGELOG, 0, b"b", row)
    driver.restart()
    for name in "ab":
        driver.send(name, AT + 2000, [5.0, 1.0])
    driver.run()
    assert (len(driver.predictions("a")), len(driver.predictions("b"))) == (2, 3)


def test_rows_full_of_made_up_memories_are_read_and_only_a_few_names_are_kept() -> None:
    hurt, well = served("a", "b"), served("a", "b")
    size = state_rows.HEADER.itemsize
    row = row_of(hurt, "b")
    entry, memory = row[size : size + state_rows.ENTRY.itemsize], row[size + state_rows.ENTRY.itemsize :]
    for i in range(2 * NAMES):
        names = [b"made-up-%d-%d" % (i, n) for n in range(9)]
        directory = np.array([(name, 1, 0) for name in names], state_rows.ENTRY).tobytes()
        head = rewritten(row[: size + len(entry)], memories=10)[:size]
        hurt.broker.append(Role.CHANGELOG, 0, b"copy-%d" % i, head + entry + directory + memory)
    for driver in (hurt, well):
        driver.restart()
        driver.send("b", AT + 2000, [5.0, 1.0])
        driver.run()
    assert bits(hurt.predictions("b")) == bits(well.predictions("b"))
    assert hurt.shard is not None
    assert len(hurt.shard.store.named()) <= NAMES and hurt.shard.stats.unreadable_streams == 0


def test_a_row_whose_waiting_readings_never_were_is_the_trouble_of_its_stream() -> None:
    driver = StreamDriver(Network(ModelConfig(("flow",), predicts="now", targets=("true",), direction="sum", lag=1)))
    for step in range(2):
        for name in "ab":
            driver.send(name, AT + 1000 * step, [float(step)])
    driver.run()
    driver.crash()
    row, waiting = row_of(driver, "b"), np.array([3 << ROW_BITS]).tobytes()
    assert row.count(waiting) == 1, "b's second reading waits for the one after it"
    driver.broker.append(Role.CHANGELOG, 0, b"b", row.replace(waiting, np.array([-1]).tobytes()))
    driver.restart()
    for name in "ab":
        driver.send(name, AT + 2000, [5.0])
    driver.run()
    assert [len(driver.predictions(name)) for name in "ab"] == [2, 1]
    (letter,) = driver.dead_letters()
    assert (letter.key, letter.reason) == (b"b", Reason.INTERNAL)


def test_a_row_of_before_all_readings_is_none() -> None:
    driver = served("a", "b", "c")
    driver.broker.append(Role.CHANGELOG, 0, b"b", rewritten(row_of(driver, "b"), offset=-1))
    assert driver.restart().stats.unreadable_streams == 1


def test_a_newer_row_makes_a_stream_readable_again() -> None:
    driver = served("a", "b")
    row = row_of(driver, "b")
    driver.broker.append(Role.CHANGELOG, 0, b"b", b"damaged")
    driver.broker.append(Role.CHANGELOG, 0, b"b", row)
    driver.restart()
    driver.send("b", AT + 2000, [5.0, 1.0])
    driver.run()
    assert len(driver.predictions("b")) == 3
    assert driver.dead_letters() == []


def test_a_changelog_of_something_else_is_refused_as_a_whole() -> None:
    driver = StreamDriver(FORWARD)
    for i in range(3):
        driver.broker.append(Role.CHANGELOG, 0, b"%d" % i, b"a document of somebody else's pipeline")
    with pytest.raises(Refused, match=r"none of the changelog's records .* offset 0 of the changelog"):
        driver.restart()
