"""The head of a Ray on other machines: becoming a node beside it, noticing when it is gone. Imports ray when called.

When a head dies all that Ray knows dies with it, and the node it leaves behind ends itself a minute later without a
word. Nothing of ours is lost, for all truth is in Kafka; but this process can start no actor any more and must leave.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from services.redaction import is_secret, scrubbed

LOOK_S = 1.0
AGAIN_S = 10.0
"""How often a head that answers is asked whether it is still the same one."""
AWAY_S = 40.0
"""How long a head may be away. Shards go on meanwhile; after 60 s Ray would end this process."""
LEAVE_S = 12.0
"""So much later than the sentence this process is gone, whatever of Ray still waits for its head."""
LEFT = 5
"""Exit code: the head is lost. Started again, the server joins the new one."""
START_S = 120.0

Notify = Callable[..., None]


_TOLD = """
import json, sys
sys.argv = json.load(sys.stdin)
from ray.scripts.scripts import main
sys.exit(main())
"""


class HeadLost(Exception):
    """Remedy: start again. The message is a sentence."""


class NotJoined(Exception):
    """Remedy: look at the sentence. This machine could not become a node of the Ray that was named."""


def answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2.0):
            return True
    except (OSError, ValueError):
        return False


def become_node(address: str, flags: str) -> None:
    """Makes this machine a node of the Ray at HOST:PORT, one without CPUs and GPUs, so that actors live elsewhere.

    flags: further ones of `ray start`, as in a shell, $VARIABLES too. The node's processes outlive this one unless it
    is a container's first. Raises NotJoined.

    Hazard: a process's arguments are for every user of a machine to read. So `ray start` is told its flags on standard
    input; and a flag that Ray would hand on to its own processes' arguments is refused.
    """
    given = shlex.split(os.path.expandvars(flags))
    if shown := [
        flag.partition("=")[0] for flag in given if flag.startswith("--") and is_secret(flag.partition("=")[0])
    ]:
        raise NotJoined(
            f"fleet.ray_node: Ray would show what {shown[0]} is given to every user of this machine, in the arguments "
            "of its processes. Leave it out; a Ray that wants a token takes it from RAY_AUTH_TOKEN."
        )
    words = ["ray", "start", f"--address={address}", "--num-cpus=0", "--num-gpus=0", "--disable-usage-stats",
             "--object-store-memory=80000000", *given]  # fmt: skip
    try:
        done = subprocess.run([sys.executable, "-c", _TOLD], input=json.dumps(words), capture_output=True, text=True,
                              timeout=START_S, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotJoined(f"fleet.ray_address: `ray start --address={address}` did not end: {error}") from error
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = scrubbed(" / ".join(said[-3:]))[:600]
        raise NotJoined(
            f"fleet.ray_address: no node of the Ray at {address}. `ray start` said: {last}. "
            "Both sides need the same version of Ray, of Python, and the same RAY_AUTH_TOKEN."
        )


class HeadWatch:
    """Watches a head from a thread, once `begin` has named one on another machine. `check` raises HeadLost when it is
    gone for good.
    """

    def __init__(self, leave: Callable[[int], None] = os._exit) -> None:
        self._leave = leave
        self._address = self._cluster = self._lost = ""
        self._stop = threading.Event()

    def begin(self, address: str | None, notify: Notify) -> None:
        """Watches the head at `address` if that is HOST:PORT; of any other there is nothing to see."""
        if address is None or "://" in address or ":" not in address:
            return
        self._address, self._notify, self._cluster = address, notify, _cluster(address)
        threading.Thread(target=self._run, name="streamrnn-ray-head", daemon=True).start()

    def check(self) -> None:
        """Raises HeadLost."""
        if self._lost:
            raise HeadLost(self._lost)

    def patience_s(self, usual_s: float) -> float:
        """How long to wait for actors: without a head few of them, or none, can answer."""
        return usual_s / 4 if self._lost else usual_s

    def stop(self) -> None:
        """Ends the watch, unless the head is lost: then it still sees to it that this process leaves."""
        self._stop.set()

    def _run(self) -> None:
        seen_s = asked_s = time.monotonic()
        away = False
        while not self._lost and not self._stop.wait(LOOK_S):
            if not answers(self._address):
                if not away:
                    away = True
                    self._notify("ray_head_away", address=self._address, patience_s=AWAY_S)
                if time.monotonic() - seen_s > AWAY_S:
                    self._lost = f"the Ray head at {self._address} has been away for {AWAY_S:.0f} s. {_REMEDY}"
                continue
            seen_s = time.monotonic()
            if away or seen_s > asked_s + AGAIN_S:
                away, asked_s = False, seen_s
                cluster = _cluster(self._address)
                if cluster and self._cluster and cluster != self._cluster:
                    self._lost = f"the Ray head at {self._address} was started anew and knows nothing of us. {_REMEDY}"
                self._cluster = self._cluster or cluster
        if self._lost:
            time.sleep(LEAVE_S)
            self._leave(LEFT)


_REMEDY = "This server leaves; started again, it joins the new head and goes on from Kafka: nothing is lost or doubled."


def _cluster(address: str) -> str:
    """The identity that a head has for its life; empty where it cannot be had."""
    with suppress(Exception):  # private to Ray: without it, only a head that stays away is noticed
        from ray import _raylet

        gcs: Any = _raylet
        return str(gcs.GcsClient(address=address).cluster_id.hex())
    return ""
