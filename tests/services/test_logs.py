"""What is written to standard error: lines for people or for machines, of us and of libraries, without secrets."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from services import logs
from services.sparing import Sparing

SENTINEL = "hunter2-sentinel"


@pytest.fixture(autouse=True)
def as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.bind(shard=None, epoch=None)
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_where_there_is_no_terminal_and_words_where_there_is() -> None:
    file, terminal = io.StringIO(), Terminal()
    logs.configure(stream=file).info("epoch kept", readings=3)
    logs.configure(stream=terminal).info("epoch kept", readings=3)
    (event,) = lines(file)
    assert event.items() >= {"level": "info", "event": "epoch kept", "readings": 3}.items()
    assert list(event)[:3] == ["at", "level", "event"]
    assert event["at"].endswith("Z")
    assert "epoch kept" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_only_events_of_the_level_and_above_are_written() -> None:
    stream = io.StringIO()
    log = logs.configure("warning", "json", stream)
    log.info("no")
    log.warning("yes")
    assert [event["event"] for event in lines(stream)] == ["yes"]


def test_bound_fields_stand_in_every_later_event() -> None:
    stream = io.StringIO()
    log = logs.configure("info", "json", stream)
    logs.bind(shard=1, epoch=7)
    log.info("a")
    logs.bind(epoch=None)
    log.info("b")
    assert [(event.get("shard"), event.get("epoch")) for event in lines(stream)] == [(1, 7), (1, None)]


def test_libraries_are_heard_from_warning_on_in_the_same_form() -> None:
    stream = io.StringIO()
    logs.configure("debug", "json", stream)
    logging.getLogger("library.conn").info("chatter")
    logging.getLogger("library.conn").warning("node %s is away", "a:1")
    (event,) = lines(stream)
    assert event.items() >= {"level": "warning", "event": "node a:1 is away", "logger": "library.conn"}.items()


def test_configuring_again_replaces_what_was() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "json", first)
    logs.configure("info", "json", second).info("here")
    logging.getLogger("library").error("here too")
    assert first.getvalue() == ""
    assert len(lines(second)) == 2


def test_values_of_our_own_kinds_can_be_written() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream).info("x", n=np.int64(4), key=b"pump-\xff", parts={2, 1}, y=np.float32(0.5))
    (event,) = lines(stream)
    assert (event["n"], event["key"], event["parts"], event["y"]) == (4, "pump-\\xff", [1, 2], 0.5)


@pytest.mark.parametrize("format_", ["pretty", "json"])
def test_no_secret_is_written(format_: logs.Format) -> None:
    stream = io.StringIO()
    log = logs.configure("info", format_, stream)
    password = SENTINEL
    log.info(
        "connecting", sasl_plain_password=SENTINEL, kafka={"ssl_password": SENTINEL, "nested": [{"token": SENTINEL}]}
    )
    log.info(f"connecting with sasl_plain_password={SENTINEL}, as told")
    logging.getLogger("library").warning("config {'sasl_plain_password': '%s'}", SENTINEL)
    try:
        raise ValueError(f"ssl_password: {password} is wrong")
    except ValueError:
        log.exception("broken")  # with the local variable `password` in reach
    assert stream.getvalue().count("***") >= 4
    assert SENTINEL not in stream.getvalue()
    assert "as told" in stream.getvalue()
    assert "ValueError" in stream.getvalue()


# ---- what repeats itself --------------------------------------------------------------------------------------------


class Minute:
    """A clock, and what is to happen at its end."""

    def __init__(self) -> None:
        self.now_s, self.due = 100.0, []

    def later(self, seconds, then) -> None:
        self.due.append((self.now_s + seconds, then))

    def go_on(self, seconds: float) -> None:
        self.now_s += seconds
        due, self.due = (
            [then for at_s, then in self.due if at_s <= self.now_s],
            [one for one in self.due if one[0] > self.now_s],
        )
        for then in due:
            then()


@pytest.fixture
def minute() -> Minute:
    return Minute()


def sparing_log(minute: Minute, most: int):
    stream = io.StringIO()
    sparing = Sparing(most, clock_s=lambda: minute.now_s, later=minute.later)
    log = logs.configure("info", "json", stream, sparing)
    sparing.say = log.info
    return stream, log, sparing


def test_an_event_that_repeats_is_written_a_few_times_and_then_counted(minute: Minute) -> None:
    stream, log, _ = sparing_log(minute, most=3)
    for _ in range(500):
        log.info("broker_away", shard=1)
    log.info("broker_away", shard=2)
    log.info("ready", shard=1)
    assert [(line["event"], line["shard"]) for line in lines(stream)] == [("broker_away", 1)] * 3 + [
        ("broker_away", 2), ("ready", 1)]  # fmt: skip
    minute.go_on(59)
    assert len(lines(stream)) == 5
    minute.go_on(1)
    (told,) = lines(stream)[5:]
    assert told.items() >= {"event": "repeated", "of": "broker_away", "shard": 1, "times": 497, "seconds": 60.0}.items()
    log.info("broker_away", shard=1)
    assert lines(stream)[-1]["event"] == "broker_away", "a new minute begins"


def test_errors_are_always_written(minute: Minute) -> None:
    stream, log, _ = sparing_log(minute, most=1)
    for _ in range(5):
        log.error("leaving")
        logging.getLogger("library").error("it broke")
    assert len(lines(stream)) == 10


def test_a_library_that_says_the_same_of_many_things_is_counted_too(minute: Minute) -> None:
    stream, _, sparing = sparing_log(minute, most=2)
    for port in range(100):
        logging.getLogger("somebody.else").warning("node %s is away", port)
    assert [line["event"] for line in lines(stream)] == ["node 0 is away", "node 1 is away"]
    sparing.close()
    assert lines(stream)[-1].items() >= {"of": "somebody.else: node %s is away", "times": 98}.items()
    sparing.close()
    assert len(lines(stream)) == 3, "nothing is counted twice"


def test_events_that_never_repeat_are_not_remembered_for_ever(minute: Minute) -> None:
    _, log, sparing = sparing_log(minute, most=2)
    for number in range(5000):
        log.info(f"event {number}")
        minute.go_on(1)
    assert len(sparing._windows) < 1100


def test_the_count_comes_by_itself_on_a_real_clock() -> None:
    stream = io.StringIO()
    sparing = Sparing(1, window_s=0.05)
    log = logs.configure("info", "json", stream, sparing)
    counted = threading.Event()
    sparing.say = lambda event, **fields: (log.info(event, **fields), counted.set())
    for _ in range(10):
        log.info("again")
    assert counted.wait(300)
    assert lines(stream)[-1]["event"] == "repeated"


def test_events_have_the_severity_that_they_deserve() -> None:
    stream = io.StringIO()
    notify = logs.teller(logs.configure("info", "json", stream))
    notify("shard_died", shard=0)
    notify("ready", shard=0)
    assert [line["level"] for line in lines(stream)] == ["warning", "info"]


def test_every_event_is_in_the_document_and_every_warning_is_an_event() -> None:
    root = Path(__file__).parents[2]
    said = set()
    rooms = ("fleet/*.py", "predictor/*.py", "cli/serve.py", "brokers/kafka_*.py")
    for path in (path for room in rooms for path in (root / "services").glob(room)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                logger = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "log"
                event = node.args[0].value
                if (name in ("_notify", "notify", "outlast") or logger) and " " not in str(event):
                    said.add(event)
    document = (root / "docs" / "logs.md").read_text().split("## Events")[1].split("## Traces")[0]
    table = re.findall(r"^\| `(\w+)` \|", document, re.MULTILINE)
    assert said == set(table) - {"repeated"}
    assert set(table) >= logs.WARNINGS
    assert table == sorted(table)
