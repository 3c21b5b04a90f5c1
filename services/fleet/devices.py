"""The devices that torch sees on this machine. Imports torch when called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU and its memory."""

    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Devices:
    """Of torch: its version, the version of CUDA that it was built for (empty: none), and the GPUs that it can use."""

    torch: str
    cuda: str
    gpus: Sequence[Gpu]


def devices_here() -> Devices:
    """Looks; takes a GPU's memory for the question where there is one, some hundred MB until this process ends."""
    import torch

    gpus = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            gpus.append(Gpu(torch.cuda.get_device_name(number), free, total))
    return Devices(torch.__version__, torch.version.cuda or "", tuple(gpus))
