"""docs/asyncapi.yaml: the topics as an AsyncAPI 3.0 document, made of the contract's models and the codecs.

    python -m services.wire > docs/asyncapi.yaml

https://www.asyncapi.com/docs/reference/specification/v3.0.0; schemas are JSON Schema of draft 7, as it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from services.codecs.contract import PredictionV1, ReadingV1, SymbolReadingV1
from services.codecs.readings_contract import VERSION
from services.fleet.events import TOLD
from services.wire import examples, headers
from services.wire.events import EVENTS
from services.wire.examples import Example

Tree = dict[str, Any]

JSON, ARROW, BYTES = "application/json", "application/vnd.apache.arrow.stream", "application/octet-stream"
STREAM: Tree = {"type": "string", "minLength": 1, "maxLength": 256, "description": "The stream: 1 to 256 bytes."}
ROLES = ("readings", "predictions", "changelog", "dead_letters", "events")
TITLES = {
    "readings": "What sensors write, one record a reading or many packed in one.",
    "predictions": "One prediction for each reading, with its key and in its partition. Read with "
    "isolation.level=read_committed.",
    "changelog": "States of streams, compacted. Internal to a pipeline: nobody else writes here.",
    "dead_letters": "Records that are no readings: bytes, key and headers as they came, and why.",
    "events": "What happens to the models, compacted: the newest of each kind stays. Only with a registry.",
}


def document(names: dict[str, str] | None = None, bootstrap: Sequence[str] = ()) -> Tree:
    """The document of every pipeline; of one, where `names` has its topics by role and its group under `group`."""
    named = names or {role: f"{{pipeline}}.{role.replace('_', '-')}" for role in ROLES}
    group = named.get("group", "streamrnn-sensors")
    messages = _messages(named["readings"] if names else "sensors.readings", group)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "streamrnn",
            "version": f"{VERSION}.0.0",
            "description": "Topics of a pipeline: readings in; predictions, states, dead letters and events out. The "
            "rules in words are in docs/wire.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "servers": _servers(bootstrap),
        "channels": {_camel(role): _channel(role, named[role], names is None) for role in ROLES},
        "operations": _operations(),
        "components": {"messages": messages, "schemas": _schemas()},
    }


def text(tree: Tree) -> str:
    """The document as YAML."""
    said: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110)
    return said


def _servers(bootstrap: Sequence[str]) -> Tree:
    if bootstrap:
        return {f"kafka{number}": {"host": one, "protocol": "kafka"} for number, one in enumerate(bootstrap, 1)}
    variable = {"default": "localhost:9092", "description": "Host and port of a broker."}
    return {"kafka": {"host": "{bootstrap}", "protocol": "kafka", "variables": {"bootstrap": variable}}}


CARRIED = {
    "readings": ("reading", "symbolReading", "packedReadings"),
    "predictions": ("prediction", "packedPredictions"),
    "changelog": ("stateRow", "endOfStream", "sentinel"),
    "dead_letters": ("deadLetter",),
}


def _carried(role: str) -> list[str]:
    return [_event(name) for name in TOLD] if role == "events" else list(CARRIED[role])


def _channel(role: str, address: str, general: bool) -> Tree:
    policy = "compact" if role in ("changelog", "events") else "delete"
    channel: Tree = {
        "address": address,
        "description": TITLES[role],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _carried(role)},
        "bindings": {"kafka": {"topicConfiguration": {"cleanup.policy": [policy]}, "bindingVersion": "0.5.0"}},
    }
    if general:
        channel["parameters"] = {"pipeline": {"default": "sensors", "description": "The setting `pipeline`."}}
    return channel


def _operations() -> Tree:
    """As seen from streamrnn: it receives readings, and sends the rest; its own states it reads again."""
    found: Tree = {}
    for action, role in [("receive", "readings"), *(("send", role) for role in ROLES[1:]), ("receive", "changelog")]:
        channel = _camel(role)
        found[f"{action}{channel[0].upper()}{channel[1:]}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": TITLES[role],
        }
    return found


def _messages(readings: str, group: str) -> Tree:
    letter = examples.refused(readings, group)
    found = {
        "reading": _message("Reading of numbers", "Reading", list(examples.READINGS)),
        "symbolReading": _message("Reading of a symbol", "SymbolReading", list(examples.SYMBOLS)),
        "packedReadings": _packed(
            "Many readings in one record",
            "An Arrow IPC stream with the columns at, stream, seq, end, and x or one for each feature.",
        ),
        "prediction": _message("Prediction", "Prediction", examples.predicted()),
        "packedPredictions": _packed(
            "Predictions for packed readings",
            "An Arrow IPC stream with the columns stream, at, row, the answer, score and flags.",
        ),
        "stateRow": {
            **_packed("State of a stream", "A state row: internal, and described in docs/wire.md."),
            "contentType": BYTES,
        },
        "endOfStream": {
            "title": "A stream that is forgotten",
            "summary": "A record without a value (tombstone).",
            "payload": {"type": "null"},
            "bindings": _key(STREAM),
        },
        "sentinel": {
            "title": "How far the states go",
            "summary": "Next offset and ids of the topics: the last record of an epoch. Internal.",
            "contentType": BYTES,
            "payload": {"type": "string", "format": "binary"},
            "bindings": _key({"type": "string", "const": "", "description": "Empty: no stream's name is."}),
        },
        "deadLetter": {
            "title": "Dead letter",
            "summary": "The refused record with its own headers, and behind them those that say why.",
            "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
            "payload": {"description": "The bytes that came, whatever they are."},
            "bindings": _key({"description": "The key that came, whatever it is."}),
            "examples": [_shown(letter)],
        },
    }
    for name, key in TOLD.items():
        about = EVENTS[name].__doc__ or ""
        words = "/".join([name, *(f"{{{field}}}" for field in key)])
        found[_event(name)] = {
            **_message(name, EVENTS[name].__name__, [examples.event(name)]),
            "title": name,
            "summary": about,
            "bindings": _key({"type": "string", "description": f"{words}: the newest record of each stays."}),
        }
    return found


def _message(title: str, schema: str, shown: list[Example]) -> Tree:
    return {
        "title": title,
        "contentType": JSON,
        "payload": {"$ref": f"#/components/schemas/{schema}"},
        "bindings": _key(STREAM),
        "examples": [_shown(one) for one in shown],
    }


def _packed(title: str, summary: str) -> Tree:
    key = {"type": "string", "description": "The stream; null where a packed record has several."}
    payload = {"type": "string", "format": "binary"}
    return {"title": title, "summary": summary, "contentType": ARROW, "payload": payload, "bindings": _key(key)}


def _shown(one: Example) -> Tree:
    told = {"name": one.name, "summary": one.summary, "headers": one.headers, "payload": one.payload}
    return {field: value for field, value in told.items() if value not in (None, "")}


def _key(schema: Tree) -> Tree:
    return {"kafka": {"key": dict(schema), "bindingVersion": "0.5.0"}}


def _schemas() -> Tree:
    models: dict[str, type[BaseModel]] = {
        "Reading": ReadingV1,
        "SymbolReading": SymbolReadingV1,
        "Prediction": PredictionV1,
        **{EVENTS[name].__name__: EVENTS[name] for name in TOLD},
    }
    found = {name: _draft7(model.model_json_schema()) for name, model in models.items()}
    return {**found, "DeadLetterHeaders": headers.schema()}


def _draft7(schema: Any) -> Any:
    """The same schema with tuples as draft 7 has them; pydantic writes those of 2020-12."""
    if isinstance(schema, list):
        return [_draft7(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _draft7(inner) for name, inner in schema.items()}
    if isinstance(found.get("prefixItems"), list):
        found["items"] = found.pop("prefixItems")
        found["additionalItems"] = False
    return found


def _camel(role: str) -> str:
    first, *rest = role.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _event(name: str) -> str:
    return _camel(name) + "Event"
