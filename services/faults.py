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
    stack = "".join(traceback.format_exception(error, limit=-_FRAMES, chain=False))
    return Fault(_kind(error), stack[-_MOST_CHARACTERS:])


def _kind(error: BaseException) -> str:
    """The error's class and the line that raised it."""
    at = error.__traceback__
    if at is None:
        return type(error).__name__
    while at.tb_next is not None:
        at = at.tb_next
    return f"{type(error).__name__} at {Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"


def by_halves(
    n: int,
    attempt: Callable[[NDArray[np.int64]], object],
    error: Exception,
    *,
    groups: Sequence[NDArray[np.int64]] = (),
    progress: Callable[[], object] = lambda: None,
    through: Sequence[type[Exception]] = (),
) -> dict[int, Fault]:
    """Of n things with which `attempt` raised `error`, those with which it raises alone; in about 2 log2(n) attempts
    for each of them. Empty where it raises for none alone. `groups`: how to cut them first, instead of into halves.
    Errors of the machine and those of `through` are raised. `progress` is told after each attempt.
    """
    let_go(error, through)
    kinds: dict[str, Fault] = {}  # a stack costs more than an attempt, and is told once a kind
    found: dict[int, Fault] = {}
    failing = [(np.arange(n), error)]
    cuts = list(groups)
    while failing:
        some, why = failing.pop()
        if len(some) == 1:
            kind = _kind(why)
            kinds[kind] = found[int(some[0])] = kinds.get(kind) or fault_of(why)
            continue
        for part in cuts or np.array_split(some, 2):
            try:
                if len(part):
                    attempt(part)
            except Exception as its:
                let_go(its, through)
                failing.append((part, its))
            progress()
        cuts = []
    return dict(sorted(found.items()))


def let_go(error: Exception, through: Sequence[type[Exception]] = ()) -> None:
    """Raises the error where no record can be to blame for it."""
    if of_the_machine(error) or isinstance(error, tuple(through)):
        raise error
