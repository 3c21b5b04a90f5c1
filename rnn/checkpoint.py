"""Where training stands, in one file that appears whole: weights, the best ones so far, the optimiser's moments.

A tensors file; what is no tensor is JSON in its tensor "said". Nothing in it is ever executed. Imports torch.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnn.weights import read_tensors, write_tensors

ROOMS = ("weights", "average", "best", "moments")


class OtherTraining(ValueError):
    """The checkpoint belongs to another config, recipe or data. Remedy: train without it, or name another folder."""


@dataclass
class Standing:
    """All that an uninterrupted run would know at the end of an epoch."""

    identity: str  # digest of config, recipe and data
    said: dict[str, Any] = field(default_factory=dict)  # plain JSON: epochs so far, counters
    weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)  # of the latest weights
    best: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)  # of the optimiser, by parameter

    def write(self, path: Path) -> None:
        """Replaces `path` in one rename. Raises OSError."""
        tensors = {"said": _bytes({"identity": self.identity, **self.said})}
        for room in ROOMS:
            tensors |= {f"{room}/{name}": one for name, one in getattr(self, room).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            write_tensors(fresh, tensors)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def read(path: Path, identity: str) -> Standing | None:
    """What was written last, None where nothing was. Raises OtherTraining, or ModelRefused if it is damaged."""
    if not path.exists():
        return None
    tensors = read_tensors(path)
    try:
        said = json.loads(bytes(tensors.pop("said").tolist()))
        if said.pop("identity") != identity:
            raise OtherTraining(
                f"{path} is of a training with another config, recipe or data: go on with those, or delete it"
            )
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, OtherTraining):
            raise
        raise OtherTraining(f"{path} is not a checkpoint of ours ({error}): delete it") from error
    rooms: dict[str, dict[str, Tensor]] = {room: {} for room in ROOMS}
    for name, one in tensors.items():
        room, _, rest = name.partition("/")
        rooms[room][rest] = one
    return Standing(identity, said, **rooms)


def _bytes(tree: dict[str, Any]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(tree).encode()), dtype=torch.uint8)
