"""Training by processes of a real Ray, one of which is killed for real."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from readings_topic import times, waves

from rnn.config import ModelConfig
from rnn.train.course import Pass
from rnn.train.dataset import LabeledSeries
from rnn.train.practice import Practice
from services.fleet import ray_runtime
from services.settings.model_lifecycle import NICENESS
from services.trainer import workers
from services.trainer.runs import Run, open_run
from services.trainer.training_task import NotTrained, OutOfTime, TrainingTask, train


def work(n: int = 6000, updates: int = 120, config: ModelConfig | None = None) -> TrainingTask:
    x = waves(n, 0)
    one = LabeledSeries(x, times(n), np.zeros(n, np.uint8), np.zeros((n, 0), np.float32))
    usual = ModelConfig(features=("a", "b"), interval_s=60.0, hidden=16, linear=2)
    return TrainingTask(
        config or usual, (one,), (n * 9 // 10,), Practice(updates=updates, lanes=16, lane_steps=256, burn_in=16)
    )


def workers_into(there: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Of all that is heard of a training, its workers."""
    return lambda event: there.append(event) if event["event"] == "worker" else None


def run_of(folder: Path, what: TrainingTask) -> Run:
    return open_run(folder, what.identity(), {})


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """One Ray for all of these."""
    import ray

    ray_runtime.prepare()
    with ray_runtime.own_signals():
        ray_runtime.join_or_start(None, 2.0, 0.0)
    yield
    ray.shutdown()


def test_a_killed_worker_costs_neither_the_training_nor_its_result(tmp_path: Path) -> None:
    what = work()
    alone = train(what, None, None)
    started: list[dict[str, Any]] = []
    told: list[int] = []

    def passed(one: Pass) -> None:
        told.append(one.number)
        if one.number == 6 and len(started) == 2:
            os.kill(next(event["pid"] for event in started if event["rank"] == 1), signal.SIGKILL)

    learned = workers.train(what, run_of(tmp_path, what), 2, passed, heard=workers_into(started), every_s=0.0)
    assert [event["resumed"] for event in started] == [False, False, True, True]
    assert len({event["pid"] for event in started}) == 4
    assert told[-1] == learned.epochs[-1].number == alone.epochs[-1].number
    assert told.count(1) == 1  # it went on, and did not begin anew
    assert learned.best.validation_loss == pytest.approx(alone.best.validation_loss, rel=1e-3)
    ours, theirs = learned.network.state_dict(), alone.network.state_dict()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0.02, atol=0.02, msg=name)


def test_one_worker_gives_the_weights_of_this_process_bit_for_bit_at_a_low_priority(tmp_path: Path) -> None:
    what, nice = work(3000, 20), set[int]()
    alone = train(what, None, None)

    def heard(event: dict[str, Any]) -> None:
        if event["event"] != "worker":
            return
        tasks = Path(f"/proc/{event['pid']}/task")
        nice.update(os.getpriority(os.PRIO_PROCESS, int(one.name)) for one in tasks.iterdir())

    learned = workers.train(what, run_of(tmp_path, what), 1, heard=heard)
    ours, theirs = learned.network.state_dict(), alone.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert nice == {NICENESS}
    assert not (tmp_path / os.listdir(tmp_path)[0] / "ray").exists()  # checkpoints go when they are not needed any more


OUT_OF_MEMORY = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {support!r}]
from test_workers import run_of, work
from services.trainer import workers
from services.trainer.training_task import NotTrained
if __name__ == "__main__":
    try:
        workers.train(work(3000, 100_000), run_of(Path({folder!r}), work(3000, 100_000)), 1)
    except NotTrained as error:
        print(error)
"""


def test_a_machine_without_memory_is_said(tmp_path: Path) -> None:
    here = Path(__file__).parent
    script = OUT_OF_MEMORY.format(tests=str(here), support=str(here.parent / "support"), folder=str(tmp_path / "runs"))
    (tmp_path / "train.py").write_text(script)
    little = {"RAY_memory_usage_threshold": "0.02", "RAY_memory_monitor_refresh_ms": "100"}  # Ray's own killer acts
    done = subprocess.run(
        [sys.executable, str(tmp_path / "train.py")], env={**os.environ, **little}, capture_output=True, text=True,
        check=False, cwd=here.parents[1],
    )  # fmt: skip
    assert "the machine ran out of memory, and its workers were killed: use fewer --workers" in done.stdout, done.stderr


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    what = work(3000, 20)
    with pytest.raises(NotTrained, match="3000 readings are too few to train on"):
        train(dataclasses.replace(what, learned=(2990,)), None, None)
    symbols = ModelConfig(vocabulary=("a", "b"), head="categorical")
    with pytest.raises(NotTrained, match="only forecasts of the next reading"):
        workers.train(work(config=symbols), run_of(tmp_path, what), 2)


def test_a_limit_stops_all_workers_after_the_pass_under_way_and_nobody_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "GRACE_S", 600.0)  # a slow machine's worker may take long to start
    what, started, told = work(3000, 100_000), list[dict[str, Any]](), list[Pass]()
    with pytest.raises(OutOfTime, match=r"stopped by the limit of 0.01\d* minutes after pass \d+ of"):
        workers.train(what, run_of(tmp_path, what), 1, told.append, limit_s=1.0, heard=workers_into(started))
    assert len(started) == 1 and told
