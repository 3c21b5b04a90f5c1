"""`streamrnn demo-retrain`: on real data, Kafka and Ray Train a changed sensor is noticed, learned and answered for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

PROMISED = ["drift_detected", "retrained", "promoted", "mse_before", "mse_drifted", "mse_after", "lost", "doubled",
            "replay_identical"]  # fmt: skip


def demo(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "services.cli.main", "demo-retrain", "--quick", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_changed_sensor_is_noticed_and_a_retrained_model_takes_over(tmp_path: Path) -> None:
    with demo(tmp_path / "out") as run:
        try:
            said = run.communicate()[0]
        finally:
            run.send_signal(signal.SIGINT)
    told = json.loads(said.splitlines()[-1])
    assert run.returncode == 0, said
    assert list(told)[: len(PROMISED)] == PROMISED
    assert told["drift_detected"] and told["retrained"] and told["promoted"]
    assert told["mse_drifted"] > 2 * told["mse_before"] and told["mse_after"] < told["mse_drifted"] / 2
    assert told["mse_after"] < told["mse_after_of_the_old_model"]
    assert told["lost"] == told["doubled"] == told["out_of_order"] == 0
    assert told["replay_identical"] and told["replayed"] == told["predictions"] == told["readings"] > 30_000
    assert said.count("Ray Train's worker") == 2
    assert (tmp_path / "out" / "demo-retrain.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_ends_everything_that_it_started(tmp_path: Path) -> None:
    with demo(tmp_path / "out") as run:
        assert run.stdout is not None
        said = next(line for line in run.stdout if "readings of" in line)
        family = psutil.Process(run.pid).children(recursive=True)
        assert len(family) > 5, said
        os.kill(run.pid, signal.SIGINT)
        run.stdout.read()
        assert run.wait() == 130
    left = psutil.wait_procs(family, timeout=300)[1]
    assert not left, [one.cmdline() for one in left]
