"""The headers that a dead letter gets, in words. Imports the codec's names of them, and records."""

from __future__ import annotations

from typing import Any

from services.codecs.dead_letters import DROPPED_HEADERS, ERRORS, REASON, TRUNCATED, TRUNCATED_KEY
from services.records import Reason

ALWAYS = {
    ERRORS + "topic": "Topic of the record.",
    ERRORS + "partition": "Its partition, in decimal.",
    ERRORS + "offset": "Its offset, in decimal.",
    ERRORS + "connector.name": "The consumer group.",
    ERRORS + "task.id": "The partition, in decimal.",
    ERRORS + "stage": "KEY_CONVERTER or VALUE_CONVERTER: what could not be read.",
    ERRORS + "class.name": "What refused it.",
    ERRORS + "exception.class.name": "With what.",
    ERRORS + "exception.message": "The sentence for a person.",
    REASON: "The reason, in a word.",
}
CUT = {
    TRUNCATED: "Only where the value was cut to fit the topic: its original length in bytes.",
    DROPPED_HEADERS: "Only where that was not enough: how many of the record's own headers were left out.",
    TRUNCATED_KEY: "Only where the key was cut, too: its original length in bytes.",
}


def schema() -> dict[str, Any]:
    """JSON schema of a dead letter's headers; the refused record's own come before them."""
    properties: dict[str, Any] = {
        name: {"type": "string", "description": text} for name, text in {**ALWAYS, **CUT}.items()
    }
    properties[ERRORS + "stage"]["enum"] = ["KEY_CONVERTER", "VALUE_CONVERTER"]
    properties[REASON]["enum"] = [reason.value for reason in Reason]
    return {"type": "object", "properties": properties, "required": list(ALWAYS)}
