"""What is written to standard error: lines for people or for machines, of us and of libraries, without secrets."""

from __future__ import annotations

import io
import json
import logging

import numpy as np
import pytest

from services import logs

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
