"""A container of our image by runc, as strict as a cluster's: its own user, no capability, a root that is read-only.

It shares this machine's network, so that it reaches a broker here and its ports can be asked. Needs root and runc.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import image

_WRITABLE = ("/tmp", "/var/home", "/dev/shm")


class Container:
    """Runs `arguments` after the image's entry point, or `instead` of it. `mounts`: path inside -> path here.

    What is mounted is read-only. A context manager: what was started is gone afterwards.
    """

    def __init__(
        self, folder: Path, *arguments: str, instead: Sequence[str] = (), mounts: Mapping[str, Path] | None = None
    ) -> None:
        self.name = f"streamrnn-{secrets.token_hex(4)}"
        self._folder = folder / self.name
        self._folder.mkdir(parents=True)
        self._log = self._folder / "said.log"
        self._command = (*instead,) or (*image.described()["Entrypoint"], *arguments)
        self._mounts = {image.MOUNTED: image.heavy(), **(mounts or {})}

    def __enter__(self) -> Container:
        self._image = image.buildah("from", "--pull-never", image.stored()).strip()
        try:
            root = Path(image.buildah("mount", self._image).strip())
            (self._folder / "config.json").write_text(json.dumps(self._config(root)))
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    ["runc", "run", "--bundle", self._folder, self.name],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
        except BaseException:
            image.buildah("rm", self._image)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["runc", "delete", "--force", self.name], capture_output=True, check=False)
        self._process.wait(30)
        image.buildah("rm", self._image)

    def said(self) -> str:
        """All that it wrote so far."""
        return self._log.read_text(errors="replace")

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs another command in it, as its user."""
        return subprocess.run(
            ["runc", "exec", self.name, *command], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def until(self, holds: Callable[[], Any], what: str, timeout_s: float = 120.0) -> Any:
        """What `holds` gives once that is true; fails with what the container said, at once if it ended."""
        end_s = time.monotonic() + timeout_s
        while not (found := holds()):
            ended = self._process.poll()
            assert ended is None, f"it ended with {ended} before {what}:\n{self.said()[-4000:]}"
            assert time.monotonic() < end_s, f"not within {timeout_s:g} s: {what}\n{self.said()[-4000:]}"
            time.sleep(0.1)
        return found

    def ended(self, timeout_s: float = 120.0) -> int:
        """Its exit code, once it has one."""
        return self._process.wait(timeout_s)

    def terminate(self) -> None:
        """SIGTERM to its first process, as Docker and kubelet send it."""
        subprocess.run(["runc", "kill", self.name, signal.SIGTERM.name], check=True, capture_output=True)

    def _config(self, root: Path) -> dict[str, Any]:
        """The bundle's configuration (OCI runtime specification 1.0)."""
        described = image.described()
        user, group = map(int, described["User"].split(":"))
        mode = ["nosuid", "nodev", f"uid={user}", f"gid={group}"]
        mounts: list[dict[str, Any]] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]},
            *({"destination": one, "type": "tmpfs", "source": "tmpfs", "options": mode} for one in _WRITABLE),
            *({"destination": at, "type": "none", "source": str(of), "options": ["rbind", "ro"]}
              for at, of in {"/etc/hosts": Path("/etc/hosts"), **self._mounts}.items()),
        ]  # fmt: skip
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": [*self._command],
                "env": described["Env"],
                "cwd": described["WorkingDir"],
                "noNewPrivileges": True,
            },
            "root": {"path": str(root), "readonly": True},
            "mounts": mounts,
            "linux": {"namespaces": [{"type": one} for one in ("pid", "ipc", "uts", "mount")]},
        }
