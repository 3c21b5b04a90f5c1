"""A real one-node Kubernetes whose pods really run, in namespaces of its own: tests/cluster/kube, as a value.

Needs root, cgroup v1, and Debian's packages of tests/cluster/packages.sh. Nothing listens outside, no route leads out,
and all that was started ends with the process 1 of its namespaces, containers included.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import binaries

RECIPE = binaries.RECIPE


class OneNode:
    """Up from `start` to `stop`. `folder` gets all its state, and is thrown away by the next start."""

    def __init__(self, folder: Path, images: Sequence[Path] = (), crds: Path | None = None) -> None:
        self.folder, self._images, self._crds = folder, images, crds
        self._bin = binaries.kube()
        self._guard: subprocess.Popen[bytes] | None = None
        self.kubectl_program = self._bin / "kubectl"

    def start(self) -> OneNode:
        """Raises RuntimeError with the end of its log."""
        env = {**self._env(), "KUBE_IMAGES": " ".join(map(str, self._images))}
        if self._crds is not None:
            env["KUBE_CRDS"] = str(self._crds)
        # Takes the node down when its standard input ends: at `stop`, or with this process, however that ends.
        down = f"cat > /dev/null; exec bash '{RECIPE / 'down.sh'}'"
        self._guard = subprocess.Popen(
            ["bash", "-c", down], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self._env(), start_new_session=True,
        )  # fmt: skip
        done = subprocess.run(
            ["bash", str(RECIPE / "up.sh")], env=env, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            logs = sorted((self.folder / "log").glob("*.log"), key=lambda one: one.stat().st_mtime)[-2:]
            ends = "\n".join(f"{one.name}: {one.read_text(errors='replace')[-800:]}" for one in logs)
            raise RuntimeError(f"Kubernetes did not start: {done.stdout}{done.stderr}\n{ends}")
        return self

    def stop(self) -> None:
        """Ends everything; may be called again, or before `start`."""
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            guard.wait(120)

    def __enter__(self) -> OneNode:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self, *command: str | Path) -> list[str]:
        """The command that runs `command` on the node, where pods and services can be reached."""
        return ["bash", str(RECIPE / "in.sh"), *map(str, command)]

    def environment(self) -> dict[str, str]:
        """That such a command needs."""
        return self._env()

    def run(
        self, *command: str | Path, given: str | None = None, check: bool = True, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the node. With `check` raises RuntimeError with what it said."""
        stdin = subprocess.DEVNULL if given is None else None
        done = subprocess.run(
            self.command(*command), env=self._env(), input=given, stdin=stdin, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        if check and done.returncode:
            words = " ".join(map(str, command))
            raise RuntimeError(
                f"{words} ended with status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
            )
        return done

    def kubectl(self, *arguments: str | Path, **how: Any) -> str:
        """What kubectl says."""
        return self.run(self.kubectl_program, *arguments, **how).stdout

    def helm(self, *arguments: str | Path, helm: Path | None = None, **how: Any) -> str:
        """What helm says; version 4 unless told."""
        how.setdefault("timeout_s", 300.0)
        return self.run(helm or binaries.helm4(), *arguments, **how).stdout

    def get(self, what: str, namespace: str, *, label: str = "") -> list[dict[str, Any]]:
        """The objects of a kind, as the server has them."""
        chosen = ["-l", label] if label else []
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", what, "-n", namespace, *chosen, "-o", "json"))[
            "items"
        ]
        return found

    def apply(self, *objects: dict[str, Any]) -> None:
        """Makes or changes them."""
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def until(self, holds: Callable[[], Any], what: str, timeout_s: float = 120.0) -> Any:
        """What `holds` gives once that is true. Raises AssertionError naming `what`, with what the cluster says."""
        end_s = time.monotonic() + timeout_s
        while True:
            if found := holds():
                return found
            if time.monotonic() > end_s:
                raise AssertionError(f"not within {timeout_s:g} s: {what}\n{self.told()}")
            time.sleep(0.5)

    def told(self) -> str:
        """What the cluster says of itself: pods, events, and the last words of pods that are not ready."""
        parts = [self.kubectl("get", "pods", "-A", "-o", "wide", check=False)]
        parts.append(self.kubectl("get", "events", "-A", "--sort-by=.lastTimestamp", check=False)[-4000:])
        pods: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "-A", "-o", "json"))["items"]
        for pod in pods:
            about, states = pod["metadata"], pod["status"].get("containerStatuses", [])
            if pod["status"].get("phase") != "Succeeded" and not all(one["ready"] for one in states):
                words = ("logs", "-n", about["namespace"], about["name"], "--all-containers", "--prefix", "--tail=15")
                parts.append(self.kubectl(*words, check=False))
        return "\n".join(parts)

    def _env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        # Two nodes may be up at once, and each sweeps its own group.
        kept.setdefault("KUBE_CGROUP", f"node-{zlib.crc32(str(self.folder).encode()):08x}")
        return {**kept, "PYTHONPATH": str(RECIPE.parents[2]), "KUBE_BIN": str(self._bin), "KUBE_RUN": str(self.folder)}


def missing() -> str:
    """What this machine lacks for it; empty: nothing."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "a cluster needs Linux and root"
    if not Path("/sys/fs/cgroup/memory").is_dir():
        return "the node is written for cgroup v1, and this machine has cgroup v2 alone"
    gone = [one for one in ("containerd", "ctr", "runc", "nft", "openssl", "nsenter") if shutil.which(one) is None]
    return f"there is no {', '.join(gone)}: run tests/cluster/packages.sh" if gone else ""
