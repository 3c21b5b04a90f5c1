"""Answers of several steps, labels and texts: on the wire and back, as JSON and packed."""

import json

import numpy as np
import pyarrow as pa
import pytest

from services.codecs import predictions
from services.codecs.contract import PredictionV1
from services.records import AnswerFormat, Flag, Predictions, Records

MODEL = "5f0c1d2e3a4b"
LABELS = AnswerFormat(1, ("O", "PERSON", 'q"uote', "é"))
TEXTS = AnswerFormat(4, ("s", "e", "v", "n\n", "<end>"))
STEPS = AnswerFormat(3)
NONE = float("nan")


def made(spelling, y, rows=None, banded=False, top=None, prob=None, streams=None, flags=None):
    y = np.asarray(y, np.float32)
    n = len(y)
    return Predictions(
        MODEL,
        3,
        np.full(n, 77) if rows is not None else 1000 + np.arange(n),
        np.full(n, -1, np.int32) if rows is None else np.asarray(rows, np.int32),
        [b"s%d" % (i % 3) for i in range(n)] if streams is None else streams,
        1_794_698_000_000 + np.arange(n),
        y,
        y - 1 if banded else None,
        y + 1 if banded else None,
        np.full(n, NONE, np.float32),
        np.zeros(n, np.uint16) if flags is None else np.asarray(flags, np.uint16),
        None if top is None else np.asarray(top, np.int32),
        None if prob is None else np.asarray(prob, np.float32),
        spelling,
    )


def read(want, max_bytes=900_000):
    keys, values = predictions.encode(want, max_bytes)
    for value in values:
        if value[:1] != b"\xff":
            PredictionV1.model_validate_json(value)
    return predictions.decode(Records(3, np.arange(len(keys)), np.arange(len(keys)), keys, values))


def both_ways(n):
    """Rows of JSON readings, and of one packed record."""
    return [None, range(n)]


@pytest.mark.parametrize("rows", both_ways(50))
@pytest.mark.parametrize("banded", [True, False])
def test_several_steps(rows, banded):
    y = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    y[3, 2] = y[7] = NONE
    want = made(STEPS, y, rows, banded)
    got = read(want)
    for name in ("y", "lo", "hi"):
        edge = getattr(want, name)
        if edge is None:
            assert getattr(got, name) is None
        else:
            np.testing.assert_array_equal(getattr(got, name), edge.reshape(50, 3, 2))
    assert got.label is got.text is got.top is got.prob is None


def test_steps_as_a_consumer_sees_them():
    (value,) = predictions.encode(made(STEPS, [[1, 2, 3, NONE, 0.1, 6]]))[1]
    assert json.loads(value)["y"] == [[1, 2], [3, None], [0.1, 6]]
    assert json.loads(value)["lo"] is None


def test_one_target_and_several_steps():
    assert json.loads(predictions.encode(made(STEPS, [[1, 2, 3]], banded=True))[1][0])["hi"] == [[2], [3], [4]]
    assert read(made(STEPS, [[1, 2, 3]])).y.tolist() == [[[1], [2], [3]]]


TOP = [[1, 0], [2, 3], [0, 1], [3, -1]]
PROB = [[0.97, 0.02], [0.5, 0.25], [NONE, NONE], [1.0, NONE]]


@pytest.mark.parametrize("rows", both_ways(4))
def test_labels(rows):
    want = made(
        LABELS, [[1], [2], [NONE], [3]], rows, top=TOP, prob=PROB, flags=[0, Flag.UNKNOWN, Flag.RESET, Flag.ENDED]
    )
    got = read(want)
    single = [[float(np.float32(prob)) for prob in row] for row in PROB]
    assert got.label == ["PERSON", 'q"uote', None, "é"]
    assert got.top == [
        (("PERSON", single[0][0]), ("O", single[0][1])),
        (('q"uote', 0.5), ("é", 0.25)),
        (),
        (("é", 1.0),),
    ]
    assert got.y.shape == (4, 0)
    assert got.text is got.prob is got.lo is None
    assert got.flags.tolist() == want.flags.tolist()


def test_a_label_as_a_consumer_sees_it():
    (value,) = predictions.encode(made(LABELS, [[1]], top=TOP[:1], prob=PROB[:1], flags=[Flag.UNKNOWN | Flag.ENDED]))[1]
    assert json.loads(value) == {
        "v": 1,
        "stream": "s0",
        "at": 1_794_698_000_000,
        "partition": 3,
        "offset": 1000,
        "model": MODEL,
        "label": "PERSON",
        "top": [["PERSON", 0.97], ["O", 0.02]],
        "score": None,
        "flags": ["unknown", "ended"],
    }


@pytest.mark.parametrize("rows", both_ways(5))
def test_texts(rows):
    y = [[0, 1, 2, 1], [0, 4, NONE, NONE], [3, NONE, NONE, NONE], [4, NONE, NONE, NONE], [NONE] * 4]
    got = read(made(TEXTS, y, rows, prob=[[0.5], [0.25], [1], [0.125], [NONE]], flags=[Flag.CUT, 0, 0, 0, Flag.RESET]))
    assert got.text == [("s", "e", "v", "e"), ("s",), ("n\n",), (), None]
    np.testing.assert_array_equal(got.prob, np.array([0.5, 0.25, 1, 0.125, NONE], np.float32))
    assert got.flags.tolist() == [Flag.CUT, 0, 0, 0, Flag.RESET]
    assert got.label is got.top is None


def test_a_text_as_a_consumer_sees_it():
    value, none = predictions.encode(made(TEXTS, [[0, 1, 2, 1], [NONE] * 4], prob=[[0.5], [NONE]]))[1]
    fields = json.loads(value)
    assert (fields["text"], fields["prob"]) == (["s", "e", "v", "e"], 0.5)
    assert not {"y", "lo", "hi", "label", "top"} & fields.keys()
    assert (json.loads(none)["text"], json.loads(none)["prob"]) == (None, None)


@pytest.mark.parametrize("max_bytes", [1, 3000, 10_000])
@pytest.mark.parametrize("kind", ["labels", "texts", "steps"])
def test_packed_answers_are_split(kind, max_bytes):
    n, random = 200, np.random.default_rng(1)
    streams = [b"k" * (1 + i % 256) for i in range(n)]
    if kind == "labels":
        top = np.argsort(random.random((n, 4)), axis=1)[:, :3]
        want = made(LABELS, top[:, :1], range(n), top=top, prob=random.random((n, 3)), streams=streams)
    elif kind == "texts":
        want = made(TEXTS, random.integers(0, 5, (n, 4)), range(n), prob=random.random((n, 1)), streams=streams)
    else:
        want = made(STEPS, random.random((n, 6)), range(n), banded=True, streams=streams)
    values = predictions.encode(want, max_bytes)[1]
    assert all(len(value) <= max_bytes for value in values) or len(values) == n
    split, whole = read(want, max_bytes), read(want)
    assert (split.label, split.top, split.text) == (whole.label, whole.top, whole.text)
    np.testing.assert_array_equal(split.y, whole.y)
    assert split.rows.tolist() == list(range(n))


def test_packed_columns_as_a_consumer_sees_them():
    (value,) = predictions.encode(made(LABELS, [[1]], [0], top=TOP[:1], prob=PROB[:1]))[1]
    table = pa.ipc.open_stream(value).read_all()
    assert table.column_names == ["stream", "at", "row", "label", "top", "prob", "score", "flags"]
    assert table.column("top").to_pylist() == [["PERSON", "O"]]
    (value,) = predictions.encode(made(TEXTS, [[0, 1, 4, NONE]], [0], prob=[[0.5]], flags=[Flag.CUT]))[1]
    table = pa.ipc.open_stream(value).read_all()
    assert table.column_names == ["stream", "at", "row", "text", "prob", "score", "flags"]
    assert table.column("text").to_pylist() == [["s", "e"]]
    assert table.column("flags").to_pylist() == [256]


def test_flags_stay_bytes_where_they_can():
    (value,) = predictions.encode(made(STEPS, [[1, 2, 3]], [0], flags=[Flag.OVERLONG]))[1]
    assert pa.ipc.open_stream(value).schema.field("flags").type == pa.uint8()


def test_many_rows_in_several_chunks():
    want = made(LABELS, np.arange(2500)[:, None] % 4, top=np.arange(2500)[:, None] % 4, prob=np.full((2500, 1), 0.5))
    assert read(want).label == [LABELS.classes[i % 4] for i in range(2500)]


def test_different_kinds_are_not_mixed():
    kinds = [
        made(AnswerFormat(), [[1, 2, 3]]),
        made(STEPS, [[1, 2, 3]]),
        made(LABELS, [[1]], top=[[1]], prob=[[1]]),
        made(TEXTS, [[1, 4, NONE, NONE]], prob=[[1]]),
    ]
    for one in kinds:
        for other in kinds:
            if one is other:
                continue
            values = [*predictions.encode(one)[1], *predictions.encode(other)[1]]
            with pytest.raises(ValueError, match="different shapes"):
                predictions.decode(Records(3, np.arange(2), np.arange(2), [b"k"] * 2, values))


def test_a_prediction_says_something():
    value = json.loads(predictions.encode(made(AnswerFormat(), [[1]]))[1][0])
    del value["y"]
    with pytest.raises(ValueError, match="neither y nor label nor text"):
        predictions.decode(Records(3, np.arange(1), np.arange(1), [b"k"], [json.dumps(value).encode()]))
