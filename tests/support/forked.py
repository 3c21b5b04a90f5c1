"""`streamrnn` commands as processes of their own that need not import anything first.

They are forked off one that has imported torch, pandas and the like and done nothing else: a start of Python with torch
is four seconds of a processor, and tests give more than a hundred commands. All else is as a shell has it: arguments,
environment, folder, output, exit status. What a command imports by itself is seen in tests/services/test_cli.py.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORTED = [
    "torch", "pandas", "pyarrow.parquet", "matplotlib.pyplot", "kafka", "rich.console", "typer", "pytest",
    "rnn.train.fit", "rnn.train.learn", "rnn.serve.build", "rnn.io.card",
    "services.cli.main", "services.cli.train", "services.cli.backtest", "services.cli.predict", "services.settings",
    "services.settings.training", "services.backtest.forecast", "services.tables.table_dataset", "services.tables.sets",
    "services.brokers.kafka_client", "services.brokers.kafka_topics", "services.trainer.training_run",
    "services.driver",
]  # fmt: skip


def command(*args: str) -> subprocess.CompletedProcess[str]:
    """Runs `streamrnn` with these arguments to its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with tempfile.TemporaryDirectory(prefix="streamrnn-command-") as folder:
        said, wrong = Path(folder, "stdout"), Path(folder, "stderr")
        child = context.Process(target=_run, args=(args, dict(os.environ), os.getcwd(), said, wrong))
        child.start()
        try:
            child.join()
        finally:
            child.kill()
        assert child.exitcode is not None
        return subprocess.CompletedProcess(args, child.exitcode, said.read_text(), wrong.read_text())


def _run(args: tuple[str, ...], environment: dict[str, str], folder: str, said: Path, wrong: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, said), (2, wrong)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["streamrnn", *args]
    from services.cli.main import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()
