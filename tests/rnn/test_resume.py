"""Training that is killed goes on where it stood, in another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("shape", ["classes", "forecast"])
def test_training_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path, shape: str):
    """kill -9 while it learns, wherever it stands; the next run ends where an undisturbed one does."""
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    folders = [tmp_path / "whole", tmp_path / "cut"]
    for folder in folders:
        folder.mkdir()
    run = [sys.executable, str(program), shape]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([*run, str(folders[0])], check=True, env=environment)
    started = subprocess.Popen([*run, str(folders[1])], env=environment, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    for line in started.stdout:
        if line.startswith("pass 4"):
            started.send_signal(signal.SIGKILL)
            break
    assert started.wait() == -signal.SIGKILL
    started.stdout.close()
    assert not (folders[1] / "weights").exists()
    again = subprocess.run([*run, str(folders[1])], check=True, env=environment, capture_output=True, text=True)
    assert "pass 1\n" not in again.stdout
    assert (folders[0] / "weights").read_bytes() == (folders[1] / "weights").read_bytes()


KILLED = """
import sys
from pathlib import Path
import numpy as np
from rnn.config import ModelConfig
from rnn.train.dataset import LabeledSeries
from rnn.train.learn import learn
from rnn.train.practice import Practice
from rnn.io.weights import write_tensors

shape, folder, random = sys.argv[1], Path(sys.argv[2]), np.random.default_rng(0)
if shape == "classes":
    x = random.integers(3, 7, (900, 1)).astype(np.float32)
    end = (np.arange(900) % 5 == 4).astype(np.uint8)
    config = ModelConfig(vocabulary=("a", "b", "c", "d"), labels=("n", "y"), head="categorical", predicts="now",
                         hidden=8, layers=2, dropout=0.3)
    examples = LabeledSeries(x, np.arange(900) * 1000, end, (x == 3).astype(np.float32))
    recipe = Practice(updates=60, sequences=16, least_passes=24)
else:
    x = np.cumsum(random.normal(size=(2400, 2)), axis=0).astype(np.float32)
    config = ModelConfig(features=("a", "b"), interval_s=1.0, hidden=8, layers=2, dropout=0.3, linear=2)
    examples = LabeledSeries(x, np.arange(2400) * 1000, np.zeros(2400, np.uint8), np.zeros((2400, 0), np.float32))
    recipe = Practice(updates=240, lanes=8, lane_steps=128, burn_in=16)
tell = lambda one: print("pass", one.number, flush=True)
learned = learn(config, [examples], recipe, tell, folder / "standing")
write_tensors(folder / "weights", learned.network.state_dict())
"""
