"""docs/asyncapi.yaml is a valid AsyncAPI document, and says what the codecs do: every example goes through them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import binaries
import jsonschema
import numpy as np
import pytest
import yaml
from serving import streamrnn

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_client import read_topic
from services.brokers.kafka_topics import create_events
from services.codecs import dead_letters, predictions
from services.codecs.contract import PredictionV1, ReadingV1, SymbolReadingV1
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.fleet.events import TOLD, Events
from services.records import Flag, Reason, Records
from services.telemetry.metric_catalog import RETRAININGS, VERDICTS
from services.wire import document, examples, headers
from services.wire.events import EVENTS

ROOT = Path(__file__).parents[2]
TREE = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
MESSAGES = TREE["components"]["messages"]
SHOWN = [
    pytest.param(name, shown, id=f"{name}: {shown['name']}")
    for name, message in MESSAGES.items()
    for shown in message.get("examples", [])
]


def record(value: bytes, key: bytes = b"pump-1", extra: Any = None) -> Records:
    return Records(3, np.array([17]), np.array([examples.AT_MS]), [key], [value], extra or {})


def test_it_is_valid_by_the_specifications_own_schema() -> None:
    schema = json.loads(binaries.asyncapi_schema().read_text())
    jsonschema.Draft7Validator(schema).validate(TREE)
    broken = json.loads(json.dumps(TREE))
    broken["channels"]["readings"]["adress"] = broken["channels"]["readings"].pop("address")
    assert not jsonschema.Draft7Validator(schema).is_valid(broken), "the schema is one that refuses"


def references(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield tree["$ref"]
        for inner in tree.values():
            yield from references(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from references(inner)


def test_every_reference_leads_to_something_and_every_part_is_used() -> None:
    for reference in references(TREE):
        found = TREE
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        assert found
    used = {reference.removeprefix("#/components/") for reference in references(TREE)}
    parts = {f"{kind}/{name}" for kind, named in TREE["components"].items() for name in named}
    assert parts <= used


def test_all_topics_are_there_and_who_reads_and_writes_them() -> None:
    assert {name: channel["address"] for name, channel in TREE["channels"].items()} == {
        "readings": "{pipeline}.readings", "predictions": "{pipeline}.predictions", "changelog": "{pipeline}.changelog",
        "deadLetters": "{pipeline}.dead-letters", "events": "{pipeline}.events",
    }  # fmt: skip
    done = {(one["action"], one["channel"]["$ref"].rpartition("/")[2]) for one in TREE["operations"].values()}
    assert done == {("receive", "readings"), ("receive", "changelog"), ("send", "predictions"), ("send", "changelog"),
                    ("send", "deadLetters"), ("send", "events")}  # fmt: skip


@pytest.mark.parametrize(("name", "shown"), SHOWN)
def test_every_example_is_what_its_schema_says(name: str, shown: dict[str, Any]) -> None:
    whole = {"components": TREE["components"]}
    for part, value in (("payload", shown["payload"]), ("headers", shown.get("headers"))):
        if value is not None and part in MESSAGES[name]:
            jsonschema.Draft7Validator({**whole, **MESSAGES[name][part]}).validate(value)


@pytest.mark.parametrize("name", ["reading", "symbolReading"])
def test_readings_are_accepted(name: str) -> None:
    schema = Schema(examples.FEATURES) if name == "reading" else Schema(("symbol",), examples.VOCABULARY)
    model = ReadingV1 if name == "reading" else SymbolReadingV1
    assert MESSAGES[name]["examples"]
    for shown in MESSAGES[name]["examples"]:
        value = json.dumps(shown["payload"]).encode()
        readings, rejected = ReadingDecoder(schema).decode(record(value))
        assert (len(readings), rejected.details) == (1, [])
        model.model_validate_json(value)


def test_predictions_of_every_kind_are_shown_and_read_back() -> None:
    kinds = set()
    for shown in MESSAGES["prediction"]["examples"]:
        value = json.dumps(shown["payload"], separators=(",", ":")).encode()
        PredictionV1.model_validate_json(value)
        read = predictions.decode(record(value))
        assert read.streams == [b"pump-1"] and read.models == [examples.MODEL]
        kinds.add(next(kind for kind in ("y", "label", "text") if kind in shown["payload"]))
    assert kinds == {"y", "label", "text"}


def test_the_dead_letter_is_one(polled_headers: list[tuple[str, bytes]]) -> None:
    (shown,) = MESSAGES["deadLetter"]["examples"]
    value = json.dumps(shown["payload"]).encode()
    rejected = ReadingDecoder(Schema(examples.FEATURES)).decode(record(value))[1]
    assert [reason.value for reason in rejected.reasons] == [shown["headers"][dead_letters.REASON]]
    assert set(shown["headers"]) == set(headers.ALWAYS)
    assert {name for name, _ in polled_headers} == {*headers.ALWAYS, *headers.CUT}
    reasons = TREE["components"]["schemas"]["DeadLetterHeaders"]["properties"][dead_letters.REASON]["enum"]
    assert reasons == [reason.value for reason in Reason]


@pytest.fixture
def polled_headers() -> list[tuple[str, bytes]]:
    """All headers that the codec can add: of a record with everything too large."""
    whole = record(b"x" * 5000, b"k" * 5000, {0: [("h", b"v" * 5000)]})
    letters = dead_letters.encode(ReadingDecoder(Schema(("a",))).decode(whole)[1], "t", "g", 0, max_bytes=3000)
    assert letters.headers is not None
    return list(letters.headers[0])


def test_flags_are_all_named() -> None:
    about = TREE["components"]["schemas"]["Prediction"]["properties"]["flags"]["description"]
    assert all(str(flag.name).lower() in about for flag in Flag)


def calls() -> Iterator[tuple[str, set[str], bool]]:
    """Events that the fleet tells, with the names of their fields, and whether further ones are unpacked."""
    for path in (ROOT / "services/fleet").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name) and node.args:
                called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                first = node.args[0]
                if called in ("_notify", "notify", "told") and isinstance(first, ast.Constant) and first.value in TOLD:
                    fields = {one.arg for one in node.keywords if one.arg}
                    yield str(first.value), fields, any(one.arg is None for one in node.keywords)


def test_events_have_the_fields_that_are_told() -> None:
    seen = set()
    for name, fields, more in calls():
        seen.add(name)
        model = EVENTS[name]
        known = set(model.model_fields) - {"event", "at"}
        required = {field for field, about in model.model_fields.items() if about.is_required()} - {"event", "at"}
        assert fields <= known, f"{name}: {fields - known}"
        assert required <= fields or more, f"{name}: {required - fields}"
    assert seen == set(TOLD) == set(EVENTS)
    assert set(EVENTS["verdict"].model_json_schema()["properties"]["outcome"]["enum"]) == set(VERDICTS)
    assert set(EVENTS["retrained"].model_json_schema()["properties"]["end"]["enum"]) == {
        *RETRAININGS,
        "cancelled",  # with the fleet that began it, and with its counters
    }


def test_events_on_a_real_topic_are_as_shown(broker: DevBroker, topic_names: Callable[[], str]) -> None:
    options, topic = {"bootstrap_servers": broker.bootstrap}, f"{topic_names()}.events"
    create_events(options, topic, 1)
    events = Events(options, topic, lambda *_, **__: None)
    for name, fields in examples.EVENTS.items():
        events.told(name, **fields)
    events.flush()
    events.close()
    (records,) = read_topic(options, topic).values()
    assert len(records) == len(TOLD)
    for key, value in zip(records.keys, records.values, strict=True):
        event = json.loads(value or b"")
        name = event["event"]
        EVENTS[name].model_validate(event)
        assert event.keys() <= EVENTS[name].model_fields.keys(), "shown and not declared"
        (shown,) = MESSAGES[re.sub(r"_(\w)", lambda found: found[1].upper(), name) + "Event"]["examples"]
        assert {**event, "at": 0} == {**shown["payload"], "at": 0}
        assert (key or b"").decode() == "/".join([name, *(str(event[field]) for field in TOLD[name])])


def test_one_pipelines_own_document(tmp_path: Path) -> None:
    config = tmp_path / "pumps.yaml"
    config.write_text(
        "pipeline: pumps\ntopics: {readings: plant.raw}\n"
        "kafka: {bootstrap_servers: 'k1:9092,k2:9092', security_protocol: SASL_SSL, sasl_mechanism: PLAIN, "
        "sasl_plain_username: me, sasl_plain_password: s3cr3t-x}\n"
    )
    done = streamrnn("asyncapi", "-c", str(config))
    assert done.returncode == 0, done.stderr
    assert "s3cr3t-x" not in done.stdout
    tree = yaml.safe_load(done.stdout)
    assert [server["host"] for server in tree["servers"].values()] == ["k1:9092", "k2:9092"]
    assert tree["channels"]["readings"]["address"] == "plant.raw"
    assert tree["channels"]["deadLetters"]["address"] == "pumps.dead-letters"
    assert "parameters" not in tree["channels"]["readings"]
    (letter,) = tree["components"]["messages"]["deadLetter"]["examples"]
    assert letter["headers"]["__connect.errors.topic"] == "plant.raw"
    assert tree["components"]["schemas"] == document()["components"]["schemas"]
