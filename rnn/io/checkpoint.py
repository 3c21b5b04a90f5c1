"""Where training stands, in one file that appears whole: weights, the best ones so far, the optimiser's moments.

A tensors file; what is no tensor is JSON in its tensor "said". Nothing in it is ever executed. Imports torch and numpy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnn.io.weights import ModelRefused, read_tensors, write_tensors

ROOMS = ("weights", "average", "best", "moments")


class CheckpointMismatch(ValueError):
    """The checkpoint belongs to another config, recipe or data, or is damaged. Remedy: train without it, or name
    another folder.
    """


@dataclass
class TrainerState:
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


def read(path: Path, identity: str) -> TrainerState | None:
    """What was written last, None where nothing was. Raises CheckpointMismatch, also where it is damaged."""
    if not path.exists():
        return None
    try:
        tensors = read_tensors(path)
    except ModelRefused as error:
        wrong = "cannot be read" if isinstance(error.__cause__, OSError) else "is damaged"
        raise CheckpointMismatch(f"{path} {wrong}: delete it, or train without --resume") from error
    try:
        said = json.loads(bytes(tensors.pop("said").tolist()))
        if said.pop("identity") != identity:
            raise CheckpointMismatch(
                f"{path} is of a training with another config, recipe or data: go on with those, or delete it"
            )
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointMismatch):
            raise
        raise CheckpointMismatch(f"{path} is not a checkpoint of ours ({error}): delete it") from error
    rooms: dict[str, dict[str, Tensor]] = {room: {} for room in ROOMS}
    for name, one in tensors.items():
        room, _, rest = name.partition("/")
        rooms[room][rest] = one
    return TrainerState(identity, said, **rooms)


def identity(said: str, data: Iterable[NDArray[Any]]) -> str:
    """Digest of a config and a recipe in words, and of the arrays that are learned from."""
    digest = hashlib.sha256(said.encode())
    for array in data:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def moments_of(optimiser: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimiser's moments, as "parameter/moment"; none of a parameter that never had a gradient."""
    return {f"{name}/{key}": value for name, one in parameters.items() for key, value in optimiser.state[one].items()}


def load_optimizer_state(
    optimiser: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter], moments: Mapping[str, Tensor]
) -> None:
    """Gives the optimiser what `moments_of` said."""
    for name, one in parameters.items():
        if f"{name}/step" in moments:
            kept = {key: moments[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            optimiser.state[one] = {
                key: value if key == "step" else value.to(one.device) for key, value in kept.items()
            }


def tensors_of(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Weights that travelled as arrays; the arrays are copied."""
    return {name: torch.from_numpy(np.array(one)) for name, one in arrays.items()}


def reseed(seed: int, number: int) -> None:
    """Seeds torch for pass `number`, so that it does not depend on those before it."""
    torch.manual_seed(((seed << 20) + number) % (1 << 64))


def _bytes(tree: dict[str, Any]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(tree).encode()), dtype=torch.uint8)
