"""Examples of every JSON message. Those that streamrnn writes are written here by the codecs that write them when it
serves, so that none can be out of date. Imports codecs and numpy.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from services.codecs import dead_letters, predictions
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.records import AnswerFormat, Flag, Predictions, Records

MODEL, BEFORE = "5f0c1d2e3a4b", "3f9a0c12be77"
AT_MS = 1_794_698_000_500
FEATURES = ("flow", "level")
VOCABULARY = ("Kelly", "worked")


class Example(NamedTuple):
    """A message: its payload as JSON has it, and headers as text."""

    name: str
    summary: str
    payload: Any
    headers: dict[str, str] | None = None


READINGS = (
    Example("array", "Values in the model's order; null is a missing one.", {"at": AT_MS, "x": [21.5, None]}),
    Example("object", "Values by feature, the time as text, a counter.",
            {"at": "2026-11-14T22:13:20.500Z", "x": {"flow": 21.5, "level": 3.2}, "seq": 18, "v": 1}),
    Example("end", "The sequence has ended with the reading before.", {"at": AT_MS, "end": True}),
)  # fmt: skip
SYMBOLS = (
    Example("symbol", "A symbol.", {"at": AT_MS, "x": "Kelly"}),
    Example("last", "The last symbol of a sequence.", {"at": AT_MS, "x": "worked", "seq": 7, "end": True}),
)
EVENTS: dict[str, dict[str, Any]] = {
    "champion": {"model": MODEL, "before": BEFORE},
    "challenger": {"model": MODEL},
    "joining": {"model": MODEL, "hours": 0.25, "reason": "it saves 4.1 % of the champion's loss"},
    "verdict": {"outcome": "promoted", "model": MODEL, "reason": "it saves 4.1 % of the champion's loss",
                "gain": 0.041, "gain_low": 0.022, "gain_high": 0.06, "better": 21.5, "not_better": 0.9,
                "readings": 20_000, "rounds": 100, "champion_loss": 0.061, "challenger_loss": 0.0585},
    "model_refused": {"model": MODEL, "reason": "it reads other features than the champion"},
    "drift": {"name": "flow", "measure": "psi", "value": 0.31, "threshold": 0.2},
    "retraining": {"reason": "drift of flow", "workers": 2, "last": "7d"},
    "retrained": {"end": "trained", "message": "trained on 100,000 readings", "seconds": 41.5, "model": MODEL,
                  "run": "runs/pumps", "readings": 100_000, "scores": {"mse": 0.057}},
    "quality": {"model": MODEL, "steps": {"1": {"n": 9000.0, "unsaid": 0.0, "mse": 0.057, "mae": 0.12,
                                                "persistence_mse": 0.074, "coverage": 0.79, "pinball": 0.05}}},
}  # fmt: skip
"""Fields of each event beside `event` and `at`."""


def predicted() -> list[Example]:
    """A prediction of each kind, encoded."""
    values = _prediction(y=[[21.6, 3.2]], lo=[[20.9, 3.0]], hi=[[22.3, 3.4]], score=[0.731], flags=[Flag.MISSING])
    chance = _prediction(
        y=[[21.6, 3.2]], lo=[[20.9, 3.0]], hi=[[22.3, 3.4]], score=[6.5], p=_row([0.0001]), lasting=_row([0.02])
    )
    steps = _prediction(y=[[21.5, 3.25, 21.75, 3.0]], score=[0.5], spelling=AnswerFormat(2))
    labels = _prediction(
        y=[[0]], flags=[Flag.UNKNOWN], top=np.array([[0, 1]], np.int32), prob=_row([[0.97, 0.02]]),
        spelling=AnswerFormat(1, ("PERSON", "O")),
    )  # fmt: skip
    texts = _prediction(
        y=[[0, 1, 2, 3]], flags=[Flag.ENDED], prob=_row([[0.83]]), spelling=AnswerFormat(4, ("s", "i", "x", "<end>"))
    )
    named = {
        "values": (values, "What is expected next, with its band."),
        "surprise": (chance, "The same, with the chance that a normal reading is as surprising."),
        "steps": (steps, "Several steps ahead, from a model without a band."),
        "label": (labels, "The most probable labels."),
        "text": (texts, "A text, at the end of a sequence."),
    }
    return [
        Example(name, summary, json.loads(predictions.encode(made)[1][0] or b"null"))
        for name, (made, summary) in named.items()
    ]


def refused(topic: str, group: str) -> Example:
    """A dead letter: a record of that topic that is no reading, as it is sent on."""
    value = b'{"at": %d, "x": [21.5, "3.2"]}' % AT_MS
    records = Records(3, np.array([17]), np.array([AT_MS]), [b"pump-1"], [value])
    rejected = ReadingDecoder(Schema(FEATURES)).decode(records)[1]
    letter = dead_letters.encode(rejected, topic, group, AT_MS)
    headers = {name: (content or b"").decode() for name, content in (letter.headers or [[]])[0]}
    return Example("wrong_schema", "A value that is text.", json.loads(letter.values[0] or b"null"), headers)


def event(name: str) -> Example:
    """An event."""
    return Example(name, "", {"event": name, "at": AT_MS, **EVENTS[name]})


def _row(values: Any) -> Any:
    return np.array(values, np.float32)


def _prediction(y: Any, score: Any = (np.nan,), flags: Any = (0,), **more: Any) -> Predictions:
    edges = {name: None if (edge := more.pop(name, None)) is None else _row(edge) for name in ("lo", "hi")}
    return Predictions(
        MODEL, 3, np.array([17]), np.array([-1], np.int32), [b"pump-1"], np.array([AT_MS]), _row(y), edges["lo"],
        edges["hi"], _row(score), np.array(flags, np.uint16), **more,
    )  # fmt: skip
