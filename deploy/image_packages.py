"""Which entries of constraints.txt go into the image: prints them, with their hashes and markers.

    uv pip compile ... | python deploy/image_packages.py constraints.txt VARIANT LEFT_OUT > packages.txt

Standard input: the names that are needed, one `name==version` a line. The hashes come from constraints.txt, not from
whatever an index says on the day of the build. Imports the standard library only; runs inside the build.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator

# What torch's builds for NVIDIA need and no other does; the cpu variant's torch comes from another index.
_OF_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def entries(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Name and lines of each entry; one goes on where a line is indented."""
    name, entry = "", list[str]()
    for line in lines:
        if line[:1].isspace() and entry:
            entry.append(line)
        elif match := _NAME.match(line):
            if entry:
                yield name, entry
            name, entry = match[0].lower().replace("_", "-"), [line]
    if entry:
        yield name, entry


def chosen(constraints: Iterable[str], needed: Iterable[str], variant: str, left_out: str = "") -> list[str]:
    """The lines for the packages `needed`; all of torch only in the variant that takes it as it comes, `cuda`.

    left_out: names with commas that the variant `mounted` lacks as well.

    Raises SystemExit, naming them, when some are needed and not pinned.
    """
    pinned = list(entries(constraints))
    wanted = {name for name, _ in entries(needed)}
    if unknown := wanted - {name for name, _ in pinned}:
        raise SystemExit(f"constraints.txt does not name {', '.join(sorted(unknown))}: run `make constraints`")
    if variant != "cuda":
        wanted = {name for name in wanted if not _OF_TORCH.fullmatch(name)}
    if variant == "mounted":
        wanted -= set(left_out.split(","))
    return [line for name, entry in pinned if name in wanted for line in entry]


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        sys.stdout.writelines(chosen(file, sys.stdin, *sys.argv[2:]))
