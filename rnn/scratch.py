"""The engine's working memory: views of buffers that are kept and grow, for allocation would cost more than the sums.

Hazard: what lies in a row beyond the ones a run fills is stale. It may be NaN; no row that counts ever reads it.
Imports torch and numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.inputs import Inputs
from rnn.steps import Step, padded

BULK_ROWS = 64
"""Feature-major buffers have a multiple of this many rows, so that each is whole vector registers (see `rnn.steps`)."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Buffers for `lead` streams and `rows` readings, both multiples of BULK_ROWS. Where there are lead + rows, the
    states before the run come first, then the states after each reading.
    """

    lead: int
    rows: int
    slots: NDArray[np.int64]  # [lead], host
    x_host: NDArray[np.float32]  # [features + 1, rows]: the readings, and the time in ms since the ones before
    x: Tensor  # [features + 1, rows]; x_host itself on CPU
    gathered: Tensor  # [lead, padded width], rows of the state table's part x
    before: Tensor  # [width, lead], input states
    states: Tensor  # [width, lead + rows]
    after: Tensor  # [width + 2, rows]; below the states the score, and a number that is finite where all of them are
    std: Tensor  # [features, lead + rows]
    features: Tensor  # [padded inputs, rows]
    sums: Tensor  # [rows, gates * units]
    spare: Tensor  # flat, lead * gates * units
    parts: list[tuple[Tensor, ...]]  # of each layer, [lead + rows, units]
    head: Tensor  # [rows, padded outputs]
    heads: Tensor  # [outputs, rows]


class ScratchPool:
    """Hands out `Scratch` for the size asked, always over the same memory: only the latest one may be in use."""

    def __init__(self, inputs: Inputs, steps: list[Step], outputs: int, width: int, device: torch.device) -> None:
        self._inputs, self._steps, self._outputs, self._width, self._device = inputs, steps, outputs, width, device
        self._flat: dict[str, Tensor] = {}
        self._known: dict[tuple[int, int], Scratch] = {}

    def of(self, lead: int, rows: int) -> Scratch:
        """The buffers for at least so many streams and readings, given as multiples of BULK_ROWS."""
        found = self._known.get((lead, rows))
        if found is None:
            grown = dict(self._flat)
            found = self._views(lead, rows)
            if len(self._known) >= 64 or any(self._flat[name] is not flat for name, flat in grown.items()):
                self._known.clear()  # else views of outgrown buffers would stay alive
            self._known[lead, rows] = found
        return found

    def _views(self, lead: int, rows: int) -> Scratch:
        inputs, units, gates = self._inputs, self._steps[0].units, self._steps[0].gates
        features = inputs.features
        host = torch.device("cpu")
        x_host = self._take("x_host", (features + 1, rows), host)
        # Columns a power of two apart would fall on the same cache lines: transposing took six times as long.
        states = self._take("states", (inputs.width + 2, lead + rows + 16))
        return Scratch(
            lead,
            rows,
            self._take("slots", (lead,), host, torch.int64).numpy(),
            x_host.numpy(),
            x_host if self._device.type == "cpu" else self._take("x", (features + 1, rows)),
            self._take("gathered", (lead, self._width)),
            states[: inputs.width, :lead],
            states[: inputs.width, : lead + rows],
            states[:, lead : lead + rows],
            self._take("std", (features, lead + rows)),
            self._take("features", (padded(inputs.outputs), rows)),
            self._take("sums", (rows, gates * units)),
            self._take("spare", (lead * gates * units,)),
            [
                tuple(self._take(f"part{layer}.{part}", (lead + rows, units)) for part in range(step.parts))
                for layer, step in enumerate(self._steps)
            ],
            self._take("head", (rows, padded(self._outputs))),
            self._take("heads", (self._outputs, rows)),
        )

    def _take(
        self, name: str, shape: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        size = int(np.prod(shape))
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = torch.zeros(size, dtype=dtype, device=device or self._device)
        return flat[:size].view(shape)
