"""Tables as people have them: what each cell means, and what is said of those that mean nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from services.settings.training import DataSection, training_file
from services.tables.table_dataset import TableDataset, material
from services.tables.table_reader import WrongTable, frame

NOW = {"task": "many-to-many", "predicts": "now"}


def read(folder: Path, content: str, model: dict[str, Any], **data: Any) -> TableDataset:
    path = folder / "t.csv"
    path.write_text(content)
    return material(DataSection(**data), model, path)


def test_streams_are_kept_apart_in_order_of_time_with_the_rows_they_stand_in(tmp_path: Path) -> None:
    text = "at,who,flow,last,true\n2000,b,1,0,5\n3000,a,2,1,6\n1000,b,3,,7\n1970-01-01T00:00:02Z,a,4,0,\n"
    with pytest.raises(WrongTable, match="line 5, column 'at'"):  # a mixture of two kinds of times is no time
        read(tmp_path, text.replace("T00", "X00"), NOW, time="at", stream="who", end="last", truth=("true",))
    text = text.replace("1970-01-01T00:00:02Z", "2000")
    made = read(tmp_path, text, NOW | {"head": "point"}, time="at", stream="who", end="last", truth=("true",))
    assert made.streams == ("b", "a") and made.config.features == ("flow",) and made.config.targets == ("true",)
    b, a = made.series
    assert [one.tolist() for one in made.rows] == [[2, 0], [3, 1]]
    assert b.at_ms.tolist() == [1000, 2000] and b.x[:, 0].tolist() == [3, 1] and b.truth[:, 0].tolist() == [7, 5]
    assert a.end.tolist() == [0, 1] and np.isnan(a.truth[0, 0])
    assert made.config.interval_s == 1.0


def test_missing_numbers_are_spelled_in_many_ways_but_words_are_words(tmp_path: Path) -> None:
    text = "v,k\n1.5,null\n,NA\nNA,None\nnan,1\n-inf,01\nnull,\n7,null\n"
    made = read(tmp_path, text, NOW, features=("v",), label="k")
    np.testing.assert_array_equal(made.series[0].x[:, 0], np.array([1.5] + 5 * [np.nan] + [7], np.float32))
    assert made.config.labels == ("01", "1", "NA", "None", "null")
    np.testing.assert_array_equal(made.series[0].truth[:, 0], [4, 2, 3, 1, 0, np.nan, 4])


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    times = pd.date_range("2026-01-01", periods=4, freq="min", tz="UTC")
    table = pd.DataFrame(
        {
            "at": times,
            "who": pd.Categorical(["a", "b", "a", "c"]),
            "flow": pd.array([1, None, 3, 4], dtype="Int64"),
            "last": [False, True, True, False],
            "kind": ["x", None, "y", "x"],
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    data = DataSection(time="at", stream="who", features=("flow",), end="last", label="kind")
    first, second = (material(data, NOW, tmp_path / name) for name in ("t.parquet", "t.csv"))
    assert first.streams == second.streams == ("a", "b", "c")
    assert first.config == second.config
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert first.series[0].at_ms.tolist() == [1000 * int(start.timestamp()) + 60_000 * step for step in (0, 2)]
    for one, other in zip(first.series, second.series, strict=True):
        for name in ("x", "at_ms", "end", "truth"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    with pytest.raises(WrongTable, match=r"t.parquet: row 1, column 'kind': 'x' is not a number"):
        material(DataSection(features=("kind",)), {}, tmp_path / "t.parquet")


def test_a_line_is_where_an_editor_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfname,v\r\n"two\nlines",1\r\n\r\n"b, too",2\r\nc,much\r\n')
    table = frame(path, ("name",))
    assert table.words("name") == ["two\nlines", "b, too", "c"]
    with pytest.raises(WrongTable, match="line 6, column 'v': 'much' is not a number"):
        table.numbers("v")


def test_columns_by_pattern_and_by_names_that_look_like_one(tmp_path: Path) -> None:
    text = "p1,p2,temp [C],q*\n1,2,3,4\n5,6,7,8\n"
    made = read(tmp_path, text, {}, features=("temp [C]", "q*", "p*"))
    assert made.config.features == ("temp [C]", "q*", "p1", "p2")
    assert made.series[0].x[1].tolist() == [7, 8, 5, 6]
    with pytest.raises(WrongTable, match="no column 'x\\*'"):
        read(tmp_path, text, {}, features=("x*",))


def test_a_vocabulary_is_what_is_seen_often_enough(tmp_path: Path) -> None:
    text = "s,n\nthe cat saw the dog,c a t\nthe dog,d o g\nthe cat,c a t\n"
    data = {"text": "s", "answer": "n"}
    model = {"task": "encoder-decoder", "predicts": "now"}
    made = read(tmp_path, text, model, **data, min_count=2)
    assert made.config.vocabulary == ("the", "cat", "dog")
    assert made.config.labels == ("a", "c", "t", "d", "g", "o")
    assert made.config.horizon == 4  # three letters and the end
    first = made.series[0]
    assert first.x[:, 0].tolist() == [3, 4, 0, 3, 5] and made.words[0] == ["the", "cat", "saw", "the", "dog"]
    assert first.end.tolist() == [0, 0, 0, 0, 1]
    np.testing.assert_array_equal(first.truth, np.vstack([np.full((4, 4), np.nan), [1, 0, 2, np.nan]]))


def test_steps_of_an_answer_are_columns(tmp_path: Path) -> None:
    text = "area,h_1,h_2,h_3\n1,2,3,4\n5,6,,8\n"
    model = {"task": "one-to-many", "predicts": "now", "head": "point", "horizon": 3}
    made = read(tmp_path, text, model, features=("area",), truth=("h_*",))
    assert made.config.targets == ("h",) and made.config.horizon == 3
    np.testing.assert_array_equal(made.series[0].truth, [[2, 3, 4], [6, np.nan, 8]])
    with pytest.raises(WrongTable, match="names 2 columns, but the model says 3 steps of 1 targets"):
        read(tmp_path, text, model | {"targets": ["h"]}, features=("area",), truth=("h_1", "h_2"))


WRONG = {
    "label of no class": (
        "v,k\n1,on\n2,off\n3,of\n",
        NOW | {"labels": ["on", "off"], "head": "categorical"},
        {"label": "k"},
        "line 4, column 'k': 'of' is none of the classes on, off",
    ),
    "no class at all": ("v,k\n1,\n2,\n", NOW, {"label": "k"}, "column 'k' names no class"),
    "too long an answer": (
        "v,k\n1,a b\n2,a b c\n",
        {"task": "one-to-many", "predicts": "now", "horizon": 2},
        {"answer": "k"},
        "line 3, column 'k': an answer of 3 symbols; model.horizon is 2",
    ),
    "an end that is none": ("v,e\n1,0\n2,maybe\n", {}, {"end": "e"}, "line 3, column 'e': 'maybe' is neither 1 nor 0"),
    "no time": ("at,v\n1,2\n,3\n", {}, {"time": "at"}, "line 3, column 'at': no time"),
    "two columns of one name": ("v,v\n1,2\n", {}, {}, "line 1: two columns are called 'v'"),
    "a stream without a name": ("w,v\na,1\n,2\n", {}, {"stream": "w"}, "line 3, column 'w': names no stream"),
    "a number among which is a word": (
        "a,v\n1,1\noops,2\n3,3\n", {}, {}, "line 3, column 'a': 'oops' is not a number"),
    "a time that is no whole number": (
        "at,v\n1000,1\n1500.5,2\n", {}, {"time": "at"}, "line 3, column 'at': '1500.5' is no whole number of milli"),
    "a time before 1970": ("at,v\n1000,1\n-5,2\n", {}, {"time": "at"}, "line 3, column 'at': '-5' is no whole number"),
    "one time among many": (
        "at,v\n1000,1\n2000,2\nyesterday,3\n", {}, {"time": "at"}, "line 4, column 'at': 'yesterday' is no whole"),
    "one class": ("v,k\n1,a\n2,a\n", NOW, {"label": "k"}, "column 'k' has one class only, 'a'"),
    "no symbol often enough": ("w\na\nb\n", NOW, {"symbol": "w", "min_count": 2}, "as data.min_count asks"),
    "no interval": ("v\n1\n", {"interval_s": "soon"}, {}, "model.interval_s: wants a number of seconds"),
    "no numbers": ("a,b\nx,y\n", {}, {}, "no column of numbers"),
    "only a header": ("a,b\n", {}, {}, "holds no row"),
    "nothing": ("", {}, {}, "not a table"),
    "a torn row": ("a,b\n1,2\n3,4,5\n", {}, {}, "not a table: "),
    "a feature that the table lacks": ("flow,level\n1,2\n", {}, {"features": ("flwo",)}, "did you mean 'flow'?"),
    "a symbol for a network of numbers": (
        "v,w\n1,a\n", {"features": ["v"], "vocabulary": []}, {"symbol": "w"}, "features: missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_named_with_file_line_and_column(mistake: str, tmp_path: Path) -> None:
    text, model, data, told = WRONG[mistake]
    with pytest.raises(WrongTable) as refused:
        read(tmp_path, text, model, **data)
    assert (told in str(refused.value) and "t.csv" in str(refused.value)) or str(refused.value).startswith("model")


def test_the_example_of_the_page_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "train.yaml").write_text(example)
    (tmp_path / "train.csv").write_text(
        "at,watch,acc_x,gyro_x,last,exercise\n0,a,1,2,0,\n40,a,1,2,1,run\n0,b,1,2,1,rest\n"
    )
    plan = training_file(tmp_path / "train.yaml")
    made = material(plan.data, plan.model, plan.data.file)
    assert made.config.features == ("acc_x", "gyro_x") and made.config.labels == ("rest", "run")
    assert made.config.interval_s == 0.04
