"""`streamrnn train FILE` on columns that teach nothing, and on cells that are no numbers to a network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from serving import streamrnn

from services.tables.table_reader import Oddity, frame


def table(folder: Path, rows: list[str]) -> Path:
    path = folder / "t.csv"
    path.write_text("at,flow,level\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize(
    ("late", "features", "said"),
    [
        (
            False,
            "flow,level",
            "in the 2,700 readings that are learned from flow, level never changes: there is nothing",
        ),
        (False, "level", "in the 2,700 readings that are learned from level never changes, 7: there is nothing"),
        (True, "flow", "in the 2,700 readings that are learned from flow never changes, 3: there is nothing to learn"),
    ],
)
def test_targets_that_never_change_are_refused_with_file_and_column(
    late: bool, features: str, said: str, tmp_path: Path
) -> None:
    """`late`: they change in the part that chooses among passes only."""
    path = table(tmp_path, [f"{1000 * t},{t if late and t > 2800 else 3},7" for t in range(3000)])
    run = streamrnn("train", str(path), "--time", "at", "--features", features, "--out", str(tmp_path / "model"))
    assert run.returncode == 1 and not (tmp_path / "model").exists()
    assert run.stderr.strip().startswith(f"streamrnn: {path}: {said}") and len(run.stderr.split("streamrnn:")) == 2


def test_a_column_that_never_changes_beside_others_is_learned_with_a_line(tmp_path: Path) -> None:
    path = table(tmp_path, [f"{1000 * t},{math.sin(t / 9):.4f},7" for t in range(3000)])
    run = streamrnn("train", str(path), "--time", "at", "--out", str(tmp_path / "model"))
    assert run.returncode == 0, run.stderr
    assert "'level' never changes: there is nothing to learn of it" in run.stderr


def test_cells_beyond_all_numbers_are_missing_and_told_once(tmp_path: Path) -> None:
    odd = {3: "1e300", 7: "-inf"}
    path = table(tmp_path, [f"{1000 * t},{odd.get(t, math.sin(t / 9))},{t % 9}" for t in range(3000)])
    run = streamrnn("train", str(path), "--time", "at", "--out", str(tmp_path / "model"))
    assert run.returncode == 0 and "RuntimeWarning" not in run.stderr, run.stderr
    said = (
        f"{path}: line 5, column 'flow': '1e+300' is no number up to 3.4e38, and there are 1 more such: read as missing"
    )
    assert run.stderr.count(said) == 1
    with pytest.warns(Oddity, match="is no number up to"):
        numbers = frame(path).numbers("flow")
    assert np.flatnonzero(np.isnan(numbers)).tolist() == [3, 7]
