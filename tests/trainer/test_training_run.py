"""A range whose parts cannot teach or judge is refused before it is trained on; a run that cannot go on says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from readings_topic import START_MS, times, waves

from rnn.config import ModelConfig
from rnn.io.card import TrainingSource
from rnn.train.dataset import LabeledSeries
from services.tables.table_dataset import TableDataset
from services.trainer.ranges import WrongRange
from services.trainer.topic_dataset import TopicDataset
from services.trainer.training_run import Callbacks, TrainedModel, TrainOptions, make
from services.trainer.training_task import OutOfTime

QUICK = {"updates": 20, "lanes": 8, "lane_steps": 256, "burn_in": 16}
ENDLESS: dict[str, Any] = {**QUICK, "updates": 1_000_000, "patience": 1_000_000}


def taken(x: np.ndarray, targets: tuple[str, ...] = ("flow",), first: int = 0) -> TopicDataset:
    """One stream, its readings the offsets from `first` on."""
    n = len(x)
    one = LabeledSeries(x.astype(np.float32), times(n), np.zeros(n, np.uint8), np.zeros((n, 0), np.float32))
    config = ModelConfig(features=("flow", "level"), targets=targets, interval_s=60.0, hidden=4)
    source = TrainingSource("t", {0: (first, first + n)}, {0: n}, 1, 0, 0)
    return TopicDataset(TableDataset(config, (one,), ("a",), "digest"), source, START_MS, int(times(n)[-1]))


def made(
    one: TopicDataset, runs: Path, way: TrainOptions | None = None, ears: Callbacks | None = None, **recipe: object
) -> TrainedModel:
    return make(one, runs, way or TrainOptions(), recipe=recipe or QUICK, seed=1, ears=ears or Callbacks())


@pytest.mark.parametrize(
    ("gone", "value", "said"),
    [
        (
            slice(0, 900),
            7.0,
            "800 readings that are learned from, those before T1, flow never changes, 7: there is",
        ),
        (
            slice(0, 800),
            np.nan,
            "800 readings that are learned from, those before T1, flow is missing: there is nothing",
        ),
        (
            slice(800, 900),
            np.nan,
            "flow are missing in the 100 readings of the part that chooses among passes, T1 to T2",
        ),
        (
            slice(900, 1000),
            np.nan,
            "flow are missing in the 100 readings of the part that only tests, T2 and later: no",
        ),
    ],
)
def test_a_part_without_a_target_is_refused_with_its_times(
    gone: slice, value: float, said: str, tmp_path: Path
) -> None:
    x = waves(1000, 0)
    x[gone, 0] = value
    said = said.replace("T1", "2026-09-22T03:33:20Z").replace("T2", "2026-09-22T05:13:20Z")
    with pytest.raises(WrongRange, match=rf"t \[0: 0\.\.1000\]: .* {said}"):
        made(taken(x), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_target_that_stands_still_beside_others_is_noted(tmp_path: Path) -> None:
    x = waves(1000, 0)
    x[:850, 0] = 7.0
    told: list[str] = []
    report = made(taken(x, ("flow", "level")), tmp_path, ears=Callbacks(noted=told.append)).report
    (note,) = report["notes"]
    assert note.startswith("flow never changes in the 800 readings that are learned from, those before 2026-09-22T03")
    assert told == [note] and report["scores"]["mse"] is not None


def test_what_the_whole_range_says_is_not_said_of_a_part_once_more(tmp_path: Path) -> None:
    x = waves(1000, 0)
    x[:, 0] = 7.0
    assert made(taken(x, ("flow", "level")), tmp_path).report["notes"] == []


def test_a_range_that_has_moved_on_names_the_run_that_could_go_on(tmp_path: Path) -> None:
    x = waves(1100, 0)
    with pytest.raises(OutOfTime):
        made(taken(x[:1000]), tmp_path, TrainOptions(limit_s=0.001), **ENDLESS)
    (begun,) = tmp_path.iterdir()
    told: list[str] = []
    ears, short = Callbacks(noted=told.append), {**ENDLESS, "budget_s": 0.1}
    made(taken(x[100:], first=100), tmp_path, TrainOptions(resume=True), ears, **short)
    could = f"run {begun.name} came to no end, its range is --from 0:0 --to 0:1000"
    assert told == [f"nothing to resume in {tmp_path}: training from the beginning; {could}"]
    made(taken(x[:1000]), tmp_path, TrainOptions(resume=True), ears, **short)
    assert f"run {begun.name} of this range came to no end, but its model, recipe or readings were other" in told[1]
    with pytest.raises(OutOfTime):
        made(taken(x[:1000]), tmp_path, TrainOptions(resume=True, limit_s=0.001), ears, **ENDLESS)
    assert len(told) == 2
    events = [json.loads(line)["event"] for line in (begun / "events.jsonl").read_text().splitlines()]
    assert "resumed" in events
