"""Tables that people have by mistake: refused where nothing could be learned, else told, with file, line and remedy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import streamrnn

from services.cli.backtest import backtest
from services.settings.training import DataSection
from services.tables.table_dataset import TableDataset, material
from services.tables.table_reader import Oddity, WrongTable, frame


def read(folder: Path, content: str, **data: Any) -> TableDataset:
    path = folder / "t.csv"
    path.write_text(content)
    return material(DataSection(**data), {}, path)


NOON = "at,v\n2026-01-01T12:00:00"
REFUSED = {
    "a zone among none": (
        NOON + ",1\n2026-01-01T00:01:00+02:00,2\n",
        "line 3, column 'at': '2026-01-01T00:01:00+02:00' is of zone +02:00, the time in line 2 has no zone: write"),
    "none among zones": (
        NOON + "Z,1\n2026-01-01T13:01:00+01:00,2\n2026-01-01 12:02:00,2\n",
        "line 4, column 'at': '2026-01-01 12:02:00' has no zone, the time in line 2 is of zone Z: write all"),
    "a reading twice": (
        "at,w,v\n1000,a,1\n1000,b,1\n2000,a,\n2000,a,\n2000,b,4\n",
        "line 5, column 'at': stream 'a' has the reading of line 4 a second time: take one of them out"),
    "a feature of nothing": ("at,v,u\n1000,1,\n2000,2,\n", "column 'u' holds no number at all"),
    "a decimal comma": ("at;v\n1000;1,5\n2000;1\n3000;2\n", "line 2, column 'v': '1,5' is not a number; write"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_be_meant_is_refused(mistake: str, tmp_path: Path) -> None:
    text, told = REFUSED[mistake]
    data = {"time": "at"} | ({"stream": "w"} if ",w," in text else {})
    with pytest.raises(WrongTable) as refused:
        read(tmp_path, text, **data)
    assert told in str(refused.value) and "t.csv" in str(refused.value)


def test_rows_out_of_order_are_read_in_order_of_time_and_told(tmp_path: Path) -> None:
    with pytest.warns(Oddity, match="line 4, column 'at': earlier than a row before it of stream 'a'.* sort the file"):
        made = read(tmp_path, "at,w,v\n2000,a,2\n1000,b,1\n1000,a,1\n3000,a,5\n", time="at", stream="w")
    assert made.series[0].x[:, 0].tolist() == [1, 2, 5]


def test_readings_of_one_time_are_read_in_the_order_of_their_rows_and_told(tmp_path: Path) -> None:
    with pytest.warns(Oddity, match="line 3, column 'at': 1 readings of stream 't' are of a time that it has had"):
        made = read(tmp_path, "at,v\n1000,1\n1000,2\n2000,3\n", time="at")
    assert made.series[0].x[:, 0].tolist() == [1, 2, 3]


def test_many_odd_streams_are_told_of_in_a_few_sentences(tmp_path: Path) -> None:
    rows = "".join(f"2000,{name},1\n1000,{name},2\n" for name in "abcdef")
    with pytest.warns(Oddity) as told:
        read(tmp_path, "at,w,v\n" + rows, time="at", stream="w")
    assert len(told) == 4 and "and 3 more such sentences" in str(told[-1].message)


def test_times_of_several_zones_are_read_each_in_its_own_and_told(tmp_path: Path) -> None:
    with pytest.warns(
        Oddity, match=r"line 3, column 'at': .* is of zone \+01:00, the time in line 2 is of zone Z: each"
    ):
        made = read(tmp_path, NOON + "Z,1\n2026-01-01T13:01:00+01:00,2\n2026-01-01T12:02:00Z,3\n", time="at")
    assert np.diff(made.series[0].at_ms).tolist() == [60_000, 60_000]


def test_a_target_that_stands_still_is_told(tmp_path: Path) -> None:
    with pytest.warns(Oddity, match="'v' never changes"):
        made = read(tmp_path, "at,v,u\n1000,7,1\n2000,7,2\n", time="at")
    assert made.config.features == ("v", "u")


def test_summer_time_is_no_mixture(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    minutes = np.arange(1200)
    cells = [f"2026-03-29T01:{t % 60:02d}:{t // 60:02d}+01:00" for t in minutes] + ["2026-03-29T03:00:20+02:00"]
    path.write_text("at\n" + "\n".join(cells) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        times = frame(path).times("at")
    assert times[-1] - times[0] == 3_620_000


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_cells_are_parted_as_the_header_is(separator: str, tmp_path: Path) -> None:
    text = 'at,v,name\n1000,1,a\n2000,2,"b, c"\n2500,x,d\n3000,3,e\n'.replace(",", separator)
    path = tmp_path / "t.csv"
    path.write_text(text)
    table = frame(path, ("name",))
    assert table.times("at").tolist() == [1000, 2000, 2500, 3000]
    with pytest.raises(WrongTable, match="line 4, column 'v': 'x' is not a number"):
        table.numbers("v")


def test_the_command_says_a_line_and_goes_on_or_stops(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("at,v\n" + "".join(f"{1000 * t},{t % 5}\n" for t in (1, 0, *range(2, 30))))
    done = streamrnn("train", str(path), "--time", "at", "--out", str(tmp_path / "model"))
    assert f"streamrnn: {path}: line 3, column 'at': earlier than a row before it" in done.stderr.replace("\n", " ")
    assert done.returncode != 0 and "readings are too few to train on" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(("content", "told"), [("at,v\n1000,1\n", "cannot be split"), ("at,v\n", "holds no row")])
def test_one_reading_and_none_are_too_few(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(WrongTable, match=rf"t\.csv: .*{told}"):
        backtest(str(path), time_column="at")
