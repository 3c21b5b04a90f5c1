"""From a CSV file to a model that can be served, and what a person reads who named the wrong thing."""

import math
from pathlib import Path

import numpy as np
import pytest
from serving import streamrnn

from rnn.io import weights
from services.driver import StreamDriver
from services.tables.sets import series_in
from services.tables.table_reader import WrongTable


def table(path: Path, rows: list[str]) -> Path:
    path.write_text("when,pump,flow,level\n" + "\n".join(rows) + "\n")
    return path


def test_streams_are_kept_apart_and_put_in_time_order(tmp_path: Path) -> None:
    file = table(tmp_path / "h.csv", ["2000,a,1,2", "1000,a,3,", "3000,b,5,6"])
    a, b = series_in(file, "when", "pump")
    assert (a.name, b.name) == ("a", "b")
    assert a.features == ("flow", "level")
    assert a.at_ms.tolist() == [1000, 2000]
    assert a.x[0, 0] == 3 and np.isnan(a.x[0, 1])
    assert a.interval_s == 1.0


def test_the_usual_time_between_readings_is_that_of_a_stream_also_where_rows_alternate(tmp_path: Path) -> None:
    rows = [f"{60_000 * step + second},{pump},1,2" for step in range(5) for second, pump in enumerate("abc")]
    assert {one.interval_s for one in series_in(table(tmp_path / "h.csv", rows), "when", "pump")} == {60.0}


def test_iso_times_are_read_in_their_zone(tmp_path: Path) -> None:
    file = table(tmp_path / "h.csv", ["1970-01-01T00:00:01Z,a,1,2", "1970-01-01T02:00:02+02:00,a,1,2"])
    assert series_in(file, "when", "pump")[0].at_ms.tolist() == [1000, 2000]


@pytest.mark.parametrize(
    ("row", "time", "said"),
    [
        ("1000,a,1,2", "wen", "no column 'wen'; did you mean 'when'"),
        ("1000,a,1,2\n2000,a,one,2", "when", "line 3, column 'flow': 'one' is not a number"),
        ("yesterday,a,1,2", "when", "line 2, column 'when': 'yesterday' is neither"),
    ],
)
def test_a_wrong_table_is_refused_by_file_column_and_line(tmp_path: Path, row: str, time: str, said: str) -> None:
    file = table(tmp_path / "h.csv", [row])
    with pytest.raises(WrongTable, match=said) as refused:
        series_in(file, time, "pump")
    assert str(file) in str(refused.value)


def test_a_trained_folder_can_be_served(tmp_path: Path) -> None:
    rows = [f"{1000 * i},a,{math.sin(i / 9):.4f},{math.cos(i / 7):.4f}" for i in range(4000)]
    file = table(tmp_path / "h.csv", rows)
    run = streamrnn("train", str(file), "--time", "when", "--features", "flow,level", "-o", str(tmp_path / "model"))
    assert run.returncode == 0, run.stderr
    card = weights.load(tmp_path / "model")[1]
    assert card.model in run.stdout
    assert card.data is not None and card.data.rows == 4000
    driver = StreamDriver(tmp_path / "model")
    for i in range(200):
        driver.send("a", at=1000 * i, x=[math.sin(i / 9), math.cos(i / 7)])
    driver.run()
    y = np.array([prediction.y[0] for prediction in driver.predictions("a")])
    truth = np.sin(np.arange(201) / 9)
    assert np.square(y[50:] - truth[51:]).mean() < 0.5 * np.square(np.diff(truth)[50:]).mean()  # half of persistence's


def test_too_few_readings_are_said_to_be_too_few(tmp_path: Path) -> None:
    file = table(tmp_path / "h.csv", [f"{1000 * i},a,1,2" for i in range(50)])
    run = streamrnn("train", str(file), "--time", "when", "-o", str(tmp_path / "model"))
    assert run.returncode == 1
    assert "too few" in run.stderr and "Traceback" not in run.stderr
