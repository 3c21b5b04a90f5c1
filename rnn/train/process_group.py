"""Processes that train one network together, each on its own share of the lanes, and stay of one mind.

Knows torch's process groups, and nobody who starts them. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class ProcessGroupLost(Exception):
    """Another process of the team is gone, or its group was taken apart. Remedy: all go on from the last checkpoint."""


def _nothing(flat: Tensor) -> None:
    """A sum over one process."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """One of `size` processes. Whatever `total` gives it gives to all of them, bit for bit."""

    rank: int = 0
    size: int = 1
    total: Callable[[Tensor], None] = _nothing  # sums a tensor over the processes, in place
    device: str = "cpu"  # of this process
    mixed: bool = False  # recurrent layers in bfloat16, the rest in float32; on a GPU only

    @property
    def first(self) -> bool:
        """Whether this process does what is done once: it writes checkpoints, and finishes the network."""
        return self.rank == 0

    def share(self, lanes: int) -> slice:
        """The lanes of `lanes` that are this process's."""
        return slice(self.rank, lanes, self.size)

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Sums each tensor over the processes, in place, in one exchange. They must be of one type and device."""
        if self.size == 1:
            return
        flat = torch.cat([one.reshape(-1) for one in tensors])
        self.total(flat)
        at = 0
        for one in tensors:
            one.copy_(flat[at : at + one.numel()].view_as(one))
            at += one.numel()

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Gives every process what the first one has, in place."""
        if not self.first:
            for one in tensors:
                one.zero_()
        self.all_reduce(tensors)

    def broadcast_scalar(self, number: float) -> float:
        """The first process's number, for decisions that all must take alike."""
        if self.size == 1:
            return number
        told = torch.tensor([number], dtype=torch.float64, device=self.device)
        self.broadcast([told])
        return float(told)


SINGLE_PROCESS = ProcessGroup()


def joined(device: str = "cpu", mixed: bool = False) -> ProcessGroup:
    """The process group that this process belongs to, as a team. Raises ValueError where it belongs to none. When a
    sum fails, because another process died, what is under way raises ProcessGroupLost.
    """
    from torch import distributed

    if not distributed.is_initialized():
        raise ValueError("this process belongs to no group of torch.distributed: initialise one, or train alone")
    rank, size = distributed.get_rank(), distributed.get_world_size()
    return ProcessGroup(rank, size, _nothing if size == 1 else _total, device, mixed)


def _total(flat: Tensor) -> None:
    from torch import distributed

    try:
        distributed.all_reduce(flat)
    except (RuntimeError, ValueError) as error:  # the latter where the group is gone altogether
        raise ProcessGroupLost(str(error)) from error
