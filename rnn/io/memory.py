"""Memory that is free for this process, and numbers of bytes for people. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def free_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that this process may still take, by the machine and by every control group that it is in (version 2 or
    1); what the kernel would give back by itself, such as cached files, is free. None where nothing says.
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (proc / "meminfo").read_text().splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    for folder in _groups(proc, cgroups):
        with suppress(OSError, ValueError, StopIteration):  # "max" where there is no limit
            two = (folder / "memory.max").exists()
            limit, used = (
                ("memory.max", "memory.current") if two else ("memory.limit_in_bytes", "memory.usage_in_bytes")
            )
            cached = "inactive_file " if two else "total_inactive_file "
            lines = (folder / "memory.stat").read_text().splitlines()
            back = next((int(line.split()[1]) for line in lines if line.startswith(cached)), 0)
            left = int((folder / limit).read_text()) - int((folder / used).read_text()) + back
            found.append(max(0, left))
    return min(found, default=None)


def _groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Folders of the groups that this process is in, and of those around them."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = cgroups / "memory" if kinds else cgroups
        inner = root / path.lstrip("/")  # in a container it may lie beyond what is seen of the tree
        yield from (one for one in (inner, *inner.parents) if one.is_relative_to(root))


def size(count: float) -> str:
    """Bytes for people."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count:.0f} bytes"
