"""Ray as the supervisor uses it: joining or starting it, its signals, what became of an actor. Imports ray."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from services.fleet.status import ExitReason, ShardExit


def outcome_of(run: Any) -> ShardExit:
    """What a finished `ShardActor.run` said, or that its process died before it could."""
    import ray

    try:
        outcome: ShardExit = ray.get(run)
        return outcome
    except ray.exceptions.RayError as error:  # the process is gone: SIGKILL, out of memory, the watchdog
        return ShardExit(ExitReason.CRASHED, " ".join(str(error).split())[:300])


def kill(actor: Any) -> None:
    """Ends an actor's process, if there is one."""
    import ray

    if actor is not None:
        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(actor, no_restart=True)


@contextmanager
def own_signals() -> Iterator[None]:
    """`ray.init` puts a handler of its own on SIGTERM, which would end the server in the middle of an epoch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, how in before.items():
            signal.signal(number, how)


def prepare() -> None:
    """Settings that Ray reads when it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` copies itself into every worker
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 is for batch work; predictions are waited for
    # Ray prints a paragraph on standard output for each dead actor; our own event says it in a line.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")


def yielding(niceness: int) -> dict[str, Any]:
    """Runtime environment of work that may wait: its processes step back from their first instruction on."""
    return {"py_executable": f"nice -n {niceness} {shlex.quote(sys.executable)}"}


def _lock() -> None:
    """Whoever reaches a Ray may run programs as its user, and on a machine of many users a port of 127.0.0.1 is for all
    of them: so it wants a token, which this user alone can read.
    """
    from ray import _raylet
    from ray._private import ray_constants

    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # a Ray of one machine: all of its processes listen there
    private: Any = _raylet
    private.Config.initialize("")  # they were read when ray was imported
    ray_constants.ENABLE_RAY_CLUSTER = False
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    token = Path.home() / ".ray" / "auth_token"
    try:
        token.parent.mkdir(parents=True, exist_ok=True)
        with (
            suppress(FileExistsError),
            os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new,
        ):
            new.write(secrets.token_hex(32))
        if token.stat().st_mode & 0o077:  # of a Ray that was here before; others may have read it
            token.chmod(0o600)
    except OSError:  # a home that cannot be written: the token lives in our processes' environment alone
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


STARTS = 3
"""Times that a Ray of our own is started: its raylet ends when its agent takes over 15 s, as on a busy machine."""


def join_or_start(
    address: str | None, cpus: float, gpus: float, notify: Callable[..., None] = lambda event, **fields: None
) -> None:
    """Joins the Ray at `address`, or starts one on this machine with room for that many CPUs and GPUs. `notify` hears
    when one was too slow and is started again.
    """
    import logging

    import ray

    if address is not None:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        return
    _lock()
    for left in reversed(range(STARTS)):
        try:
            _start(cpus, gpus)
            return
        except Exception as error:
            if not left or "timed out during startup" not in str(error):
                raise
            notify("ray_slow", error=str(error), retry_s=0.0)
            _clear()


def _clear() -> None:
    """Ends what a start that failed has left: Ray does so only when this process ends."""
    import ray

    ray.shutdown()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"/ray/" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def _start(cpus: float, gpus: float) -> None:
    import logging

    import ray

    ray.init(
        num_cpus=3 * max(1, round(cpus + 0.499)),  # logical: replacements and the spare find room beside what runs
        num_gpus=round(gpus + 0.499) or None,
        object_store_memory=100 << 20,  # control messages only: readings never pass through the object store
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
