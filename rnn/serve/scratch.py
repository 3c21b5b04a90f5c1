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

from rnn.nn.cells import InferenceCell, padded
from rnn.nn.inputs import Columns, Inputs


@dataclass(frozen=True, slots=True)
class Scratch:
    """Buffers for `lead` streams and `rows` readings, both multiples of BULK_ROWS. Where there are lead + rows, the
    states before the run come first, then the states after each reading. Views of the same memory have names of their
    own, for slicing a tensor costs as much as an operation on it.
    """

    lead: int
    rows: int
    slots: NDArray[np.int64]  # [lead], host
    given: NDArray[np.float32]  # [features + 1, rows], host: the readings, and the time in ms since the ones before
    on_device: Tensor  # `given` on the device; the same memory on CPU
    x: Tensor  # [features, rows], of on_device
    dt_ms: Tensor  # [rows], of on_device
    gathered: Tensor  # [lead, padded width], rows of the state table's part x
    gathered_t: Tensor  # [width, lead], of gathered
    states: Tensor  # [width, lead + rows]
    states_before: Tensor  # [width, lead], of states
    var: Tensor  # [features, lead + rows], of states
    before: Columns  # of states_before
    after: Columns  # [.., rows], of states
    score: Tensor  # [rows]
    finite: Tensor  # [1, rows], a number that is finite where the states after are
    said: Tensor  # [2 targets + 2, rows]: what is predicted after each reading, score, finite
    std: Tensor  # [features, lead + rows]
    std_before: Tensor  # [features, lead]
    std_after: Tensor  # [features, rows]
    features: Tensor  # [rows, padded inputs], feature-major
    scaled: Tensor  # [features, rows], of features
    marks: Tensor  # [padded inputs - features, rows], of features: missing marks, elapsed time, padding
    sums: Tensor  # [rows, gates * units]
    spare: Tensor  # flat, lead * gates * units
    parts: list[tuple[Tensor, ...]]  # of each layer, [lead + rows, units]
    parts_before: list[tuple[Tensor, ...]]  # of each layer, [lead, units]
    parts_after: list[tuple[Tensor, ...]]  # of each layer, [rows, units]
    past: Tensor  # [lead + rows, padded linear * features], what the linear path sees
    head: Tensor  # [rows, padded outputs]
    head_t: Tensor  # [outputs, rows], of head
    mean: Tensor  # [targets, rows], what the head says
    scale: Tensor  # [outputs - targets, rows]


class ScratchPool:
    """Hands out `Scratch` for the size asked, always over the same memory: only the latest one may be in use."""

    def __init__(
        self, inputs: Inputs, steps: list[InferenceCell], outputs: int, width: int, past: int, device: torch.device
    ) -> None:
        self._inputs, self._steps, self._outputs, self._width, self._device = inputs, steps, outputs, width, device
        self._past = past
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
        features, targets, width = inputs.features, inputs.targets, inputs.width
        host = torch.device("cpu")
        given = self._take("given", (features + 1, rows), host)
        on_device = given if self._device.type == "cpu" else self._take("on_device", (features + 1, rows))
        gathered = self._take("gathered", (lead, self._width))
        # Columns a power of two apart would fall on the same cache lines: transposing took six times as long.
        states = self._take("states", (width + 2, lead + rows + 16))[:, : lead + rows]
        std = self._take("std", (features, lead + rows))
        seen = self._take("seen", (padded(inputs.outputs), rows))
        parts = [
            tuple(self._take(f"part{layer}.{part}", (lead + rows, units)) for part in range(step.parts))
            for layer, step in enumerate(self._steps)
        ]
        head = self._take("head", (rows, padded(self._outputs)))
        heads = self._take("heads", (self._outputs, rows))
        return Scratch(
            lead=lead,
            rows=rows,
            slots=self._take("slots", (lead,), host, torch.int64).numpy(),
            given=given.numpy(),
            on_device=on_device,
            x=on_device[:-1],
            dt_ms=on_device[-1],
            gathered=gathered,
            gathered_t=gathered.t()[:width],
            states=states[:width],
            states_before=states[:width, :lead],
            var=inputs.columns(states[:width]).var,
            before=inputs.columns(states[:width, :lead]),
            after=inputs.columns(states[:width, lead:]),
            score=states[-2, lead:],
            finite=states[-1:, lead:],
            said=states[width - 2 * targets :, lead:],
            std=std,
            std_before=std[:, :lead],
            std_after=std[:, lead:],
            features=seen.t(),
            scaled=seen[:features],
            marks=seen[features:],
            sums=self._take("sums", (rows, gates * units)),
            spare=self._take("spare", (lead * gates * units,)),
            parts=parts,
            parts_before=[tuple(part[:lead] for part in layer) for layer in parts],
            parts_after=[tuple(part[lead:] for part in layer) for layer in parts],
            past=self._take("past", (lead + rows, self._past)),
            head=head,
            head_t=head.t()[: self._outputs],
            mean=heads[:targets],
            scale=heads[targets:],
        )

    def _take(
        self, name: str, shape: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        size = int(np.prod(shape))
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = torch.zeros(size, dtype=dtype, device=device or self._device)
        return flat[:size].view(shape)
