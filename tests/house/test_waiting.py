"""Tests wait for events, bounded by progress: the wait that they share, and that none has a clock of its own."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from waiting import wait_for

OWN_CLOCK = re.compile(
    r"(?:monotonic|perf_counter)\(\) *\+|"  # a deadline
    r"\btimeout=(?:[1-9]\d|[12]\d\d)\b|"  # of a process, or of an answer
    r"mark\.timeout\((?:\d|\d\d|[1-8]\d\d)\)|"  # tighter than everybody's
    r"\.wait\((?:timeout=)?[1-5]\d\)"
)
"""What is too short on somebody's machine."""
CLUSTERS = {"containers.py", "image.py", "installed.py", "one_node.py", "pod_monitors.py"}
"""Of `make test-cluster` alone: they bound what a node's own programs do."""


def test_what_moves_is_waited_for() -> None:
    looks = itertools.count()
    assert wait_for(lambda: next(looks) > 30 and "done", "30 looks", progress=lambda: str(looks), still_s=0.1) == "done"


def test_what_stands_still_is_told_with_what_was_seen_last() -> None:
    with pytest.raises(AssertionError, match=r"nothing has moved for 0\.1 s: the moon; last seen: 7\nits log"):
        wait_for(lambda: False, "the moon", progress=lambda: 7, still_s=0.1, said=lambda: "its log")


def test_no_test_has_a_clock_of_its_own(root: Path) -> None:
    files = [file for file in (root / "tests").rglob("*.py") if "cluster" not in file.parts]
    files = [file for file in files if file.name not in CLUSTERS and file != Path(__file__)]
    found = [
        f"{file.relative_to(root)}:{number}: {line.strip()}"
        for file in sorted(files)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if OWN_CLOCK.search(line)
    ]
    assert not found, "wait with tests/support/waiting.py, and leave a process's end to the test's own:\n" + "\n".join(
        found
    )
