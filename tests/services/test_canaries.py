"""Secrets are planted in every setting that can hold one, and looked for wherever a person, a log or a user looks."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError
from serving import streamrnn

from services import logs, redaction
from services.fleet.ray_head import NotJoined, become_node
from services.redaction import scrubbed
from services.settings import Settings, WrongSettings, listed, read
from services.settings.model_lifecycle import Section

CANARY = "canary7f3a"
URL = f"s3://{CANARY}user:{CANARY}pass@host/some/path?sig={CANARY}query&{CANARY}#{CANARY}fragment"
HTTP = URL.replace("s3", "http")
FLAGS = f"--min-worker-port=11000 --any-password={CANARY}flag --other {CANARY}word"
KAFKA = {
    "sasl_plain_password": f"{CANARY}sasl", "ssl_password": f"{CANARY}ssl", "proxy_url": HTTP, "client_id": "pumps",
    "sasl_plain_username": "pumps", "bootstrap_servers": "127.0.0.1:1",
}  # fmt: skip


def texts(section: type[Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every setting that takes a text, by its path: a new one is here by itself."""
    for name, field in section.model_fields.items():
        kinds = [field.annotation, *typing.get_args(field.annotation)]
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from texts(field.annotation, (*at, name))
        elif isinstance(field.annotation, (type, types.UnionType)) and str in kinds:
            yield (*at, name)


def planted() -> dict[str, Any]:
    """A tree with a canary in each setting that accepts one, in whichever form it accepts."""
    tree: dict[str, Any] = {"kafka": KAFKA, "retrain": {"recipe": {"api_key": f"{CANARY}recipe", "from": URL}}}
    for path in texts(Settings):
        for value in (FLAGS if path[-1] == "ray_node" else URL, HTTP):
            tried = {**tree, path[0]: {**tree.get(path[0], {}), path[1]: value} if len(path) == 2 else value}
            try:
                Settings(**tried)
            except ValidationError:
                continue
            tree = tried
            break
    return tree


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "streamrnn.yaml"
    path.write_text(json.dumps(planted()))
    return path


def test_canaries_are_where_credentials_are_known_to_be() -> None:
    tree = planted()
    assert CANARY in tree["registry"] and CANARY in tree["retrain"]["archive"] and CANARY in tree["fleet"]["ray_node"]
    assert CANARY in tree["telemetry"]["traces"] and CANARY in tree["fleet"]["ray_address"]


def test_settings_are_shown_without_a_secret(config: Path) -> None:
    loaded = read(config)
    shown = streamrnn("config", "show", "-c", str(config))
    assert shown.returncode == 0
    for text in (listed(loaded), shown.stdout + shown.stderr, repr(loaded.settings), str(loaded.settings),
                 repr(loaded), loaded.settings.model_dump_json(), repr(loaded.settings.fleet)):  # fmt: skip
        assert CANARY not in text, text
    assert (
        "s3://***@host/some/path?***" in shown.stdout and "--min-worker-port=11000 --any-password=***" in shown.stdout
    )


def test_no_log_shows_what_a_library_says_of_it(config: Path) -> None:
    settings, stream = read(config).settings, io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log = logs.configure("info", "json", stream)
        secrets = settings.secrets()
        assert sum(CANARY in one for one in secrets) >= 12
        for one in secrets:
            log.info("a library tells it", said=f"cannot use {one!r} here", deep=[{"x": one}], data=one.encode())
            logging.getLogger("library").warning("refused: %s", one)
            try:
                raise OSError(f"{one} is refused")
            except OSError:
                log.exception("broken")
    finally:
        root.handlers[:], root.level = handlers, level
        logging.captureWarnings(False)
    assert stream.getvalue().count("a library tells it") == len(secrets)
    assert CANARY not in stream.getvalue()


def test_no_command_shows_one_while_it_fails(config: Path) -> None:
    for command in (("topics", "check"), ("doctor", "--limit", "2"), ("models", "list")):
        done = streamrnn(*command, "-c", str(config))
        assert done.returncode and CANARY not in done.stdout + done.stderr, done.stdout + done.stderr


def test_no_error_in_settings_quotes_one(tmp_path: Path) -> None:
    for tree in ({"telemetry": {"traces": f"ftp://u:{CANARY}@host"}}, {"pipeline": URL}, {"device": URL}):
        path = tmp_path / "wrong.yaml"
        path.write_text(json.dumps(tree))
        with pytest.raises(WrongSettings) as raised:
            read(path)
        assert CANARY not in str(raised.value)


def test_no_process_is_given_one_as_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN", f"{CANARY}dir")
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for one in psutil.process_iter(["cmdline"]):
                seen.update(word for word in one.info["cmdline"] or () if CANARY in word)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(NotJoined, match=r"ray_address.*no-such-flag"):
            become_node("127.0.0.1:1", "--no-such-flag=$HIDDEN")
        with pytest.raises(NotJoined, match="--redis-password") as raised:
            become_node("127.0.0.1:1", f"--redis-password={CANARY}")
        assert CANARY not in str(raised.value)
    finally:
        over.set()
        watcher.join()
    assert not seen


@pytest.mark.parametrize("unit", ["a", "token", "token=", 'secret="', "://", "http://a:b", " ", "password  "])
def test_a_long_message_costs_no_time(unit: str) -> None:
    text, took = unit * ((1 << 20) // len(unit)), []
    for _ in range(5):
        began = time.process_time()
        shown = scrubbed(text)
        took.append(time.process_time() - began)
    assert min(took) < 0.05 and len(shown) < redaction.LONGEST + 100
