"""Errors that nobody foresaw, and which of many things each of them is of. Imports numpy and `services.records`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.records import Fault

_FRAMES = 12
_MOST_CHARACTERS = 4000
_OF_THE_MACHINE = ("OutOfMemoryError", "AcceleratorError")  # torch's, which may not be imported here


def of_the_machine(error: BaseException) -> bool:
    """Whether the machine has failed, not what it worked on: memory, or a device. No record is to blame for that."""
    return isinstance(error, MemoryError) or type(error).__name__ in _OF_THE_MACHINE


def fault_of(error: BaseException) -> Fault:
    """The error as text: an exception would hold on to the frames of a whole poll."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    stack = "".join(traceback.format_exception(error, limit=-_FRAMES, chain=False))
    return Fault(f"{type(error).__name__}{place}", stack[-_MOST_CHARACTERS:])


def by_halves(
    n: int,
    attempt: Callable[[NDArray[np.int64]], object],
    error: Exception,
    *,
    groups: Sequence[NDArray[np.int64]] = (),
    through: Sequence[type[Exception]] = (),
) -> dict[int, Fault]:
    """Of n things with which `attempt` raised `error`, those with which it raises alone; in about 2 log2(n) attempts
    for each of them. Empty where it raises for none alone. `groups`: how to cut them first, instead of into halves.
    Errors of the machine and those of `through` are raised.
    """
    let_go(error, through)
    found: dict[int, Fault] = {}
    failing = [(np.arange(n), error)]
    cuts = list(groups)
    while failing:
        some, why = failing.pop()
        if len(some) == 1:
            found[int(some[0])] = fault_of(why)
            continue
        for part in cuts or np.array_split(some, 2):
            try:
                if len(part):
                    attempt(part)
            except Exception as its:
                let_go(its, through)
                failing.append((part, its))
        cuts = []
    return dict(sorted(found.items()))


def let_go(error: Exception, through: Sequence[type[Exception]] = ()) -> None:
    """Raises the error where no record can be to blame for it."""
    if of_the_machine(error) or isinstance(error, tuple(through)):
        raise error
