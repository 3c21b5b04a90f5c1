"""docs/wire.md says what the code does: its examples are decoded, its tables compared with the enums."""

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from services.codecs import dead_letters, predictions, state_rows
from services.codecs.contract import PredictionV1, ReadingV1, SymbolReadingV1, json_schema
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.records import AnswerFormat, Flag, Predictions, Reason, Records

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(\w+)[ ]?([^\n]*)\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
FEATURES = (
    "global_active_power",
    "global_reactive_power",
    "voltage",
    "global_intensity",
    "sub_metering_1",
    "sub_metering_2",
    "sub_metering_3",
)


def examples(kind):
    marked = [(info.split(), text.encode()) for language, info, text in EXAMPLES if language == "json"]
    found = [(words[1:], text) for words, text in marked if words[0] == kind]
    assert found
    return found


def table(first_column):
    """Rows of the table whose head starts with `first_column`, cells stripped of backquotes."""
    lines = PAGE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_every_json_example_has_a_kind():
    assert {info.split()[0] for language, info, _ in EXAMPLES if language == "json"} == {
        "reading",
        "refused",
        "prediction",
    }


def decoder_of(kind):
    """`symbol` in the kind of an example: the model has a vocabulary."""
    return ReadingDecoder(Schema(("symbol",), ("Kelly", "worked")) if "symbol" in kind else Schema(FEATURES))


def test_examples_of_readings(polled):
    for kind, value in examples("reading"):
        readings, rejected = decoder_of(kind).decode(polled([value]))
        assert rejected.details == []
        assert len(readings) == 1
        (SymbolReadingV1 if "symbol" in kind else ReadingV1).model_validate_json(value)


def test_examples_of_what_is_refused(polled):
    for (reason, *kind), value in examples("refused"):
        assert decoder_of(kind).decode(polled([value]))[1].reasons == [Reason(reason)]


def test_examples_of_predictions():
    for _, value in examples("prediction"):
        records = Records(3, np.zeros(1, np.int64), np.zeros(1, np.int64), [b"k"], [value])
        read = predictions.decode(records)
        PredictionV1.model_validate_json(value)
        columns = {field.name: getattr(read, field.name) for field in fields(Predictions) if hasattr(read, field.name)}
        made = Predictions(model=read.models[0], partition=int(read.partitions[0]), **{**columns, **answer_of(read)})
        assert predictions.encode(made)[1] == [value]


def answer_of(read):
    """The answer of the one prediction read, as an engine would have said it."""
    if read.label is not None:
        names = tuple(label for label, _ in read.top[0])
        y = np.array([[names.index(read.label[0])]], np.float32)
        top, prob = np.arange(len(names))[None], np.array([[prob for _, prob in read.top[0]]], np.float32)
        return {"y": y, "top": top, "prob": prob, "spelling": AnswerFormat(1, names)}
    if read.text is not None:
        y = np.arange(len(read.text[0]) + 1, dtype=np.float32)[None]
        return {
            "y": y,
            "top": None,
            "prob": read.prob[:, None],
            "spelling": AnswerFormat(y.size, (*read.text[0], "<end>")),
        }
    if read.y.ndim == 2:
        return {"top": None}
    edges = {name: getattr(read, name).reshape(1, -1) for name in ("y", "lo", "hi")}
    return {**edges, "top": None, "spelling": AnswerFormat(read.y.shape[1])}


def test_the_example_of_a_packed_record(polled):
    (code,) = [text for language, _, text in EXAMPLES if language == "python"]
    names = {"pa": pa}
    exec(code, names)
    readings, rejected = ReadingDecoder(Schema(("a", "b"))).decode(polled([names["value"]]))
    assert rejected.details == []
    assert readings.streams == [b"house-1", b"house-2"]
    assert np.isnan(readings.x[1, 1])


def test_the_table_of_reasons():
    assert [row[0] for row in table("reason")] == [reason.value for reason in Reason]


def test_the_table_of_flags():
    assert [(row[0], int(row[1])) for row in table("flag")] == [(flag.name.lower(), flag.value) for flag in Flag]


def test_the_table_of_headers(polled):
    rejected = ReadingDecoder(Schema(("a",))).decode(polled([b"x" * 5000], [b"k" * 5000], {0: [("h", b"v" * 5000)]}))[1]
    letters = dead_letters.encode(rejected, "t", "g", 0, max_bytes=3000)
    assert {row[0] for row in table("header")} == {name for name, _ in letters.headers[0]}


def test_the_table_of_a_state_row():
    rows = table("bytes")
    starts = [int(row[0].split()[0]) for row in rows]
    header = state_rows.HEADER
    assert starts == [*(header.fields[name][1] for name in header.names), header.itemsize]


def test_the_fields_of_the_tables():
    schema = json_schema()["$defs"]
    assert [row[0] for row in table("field")] == list(schema["Reading"]["properties"])
    prediction = PAGE[PAGE.index("## Predictions as JSON") :]
    for name in schema["Prediction"]["properties"]:
        assert f"`{name}`" in prediction


@pytest.mark.parametrize("name", ["Reading", "Prediction"])
def test_the_schema_describes_every_field(name):
    for field, about in json_schema()["$defs"][name]["properties"].items():
        assert about.get("description"), field
    json.dumps(json_schema())
