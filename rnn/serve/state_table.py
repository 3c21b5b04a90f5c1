"""The state table: what every live stream carries between readings, a slot each; and rows of it as bytes.

One tensor for each part, [slots + 1, width]; the last row is the padding row, which always holds the initial state.
The float parts are on the device. The clock stays in host memory, for the host decides by it what a reading is.
Imports torch and numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.nn import clock as clocks
from rnn.nn.cells import padded
from rnn.nn.network import Network

LAYOUT_VERSION = 1
"""Raise it when the meaning of a column changes while its name and width stay."""


def room_of(name: str, width: int) -> int:
    """Floats that a part of so many takes in a slot."""
    multiple = 4 if name == "x" else padded(1)
    return -(-width // multiple) * multiple


class StateTable:
    """States of `slots` streams, all initial at first. Slots are numbered 0..slots-1; `slots` is the padding row.

    `layout` names the config and the parts: rows may be loaded into a table of equal layout and into no other.
    """

    def __init__(
        self,
        network: Network,
        slots: int,
        device: torch.device | str = "cpu",
        extra: int = 0,
        lasting: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`extra` int64 columns of zeros follow the clock's own, for what an engine counts; `lasting` parts, an initial
        row each, follow the network's own and outlive a sequence.
        """
        if slots < 1:
            raise ValueError(f"slots: wants at least 1, got {slots}")
        self.slots = slots
        self.device = torch.device(device)
        self._clock = (*clocks.INITIAL, *[0] * extra)
        self.clock: NDArray[np.int64] = np.empty((slots + 1, len(self._clock)), dtype=np.int64, order="F")
        self.clock[:] = self._clock
        self.parts: dict[str, Tensor] = {}
        self.widths: dict[str, int] = {}  # without padding
        self._initial: dict[str, Tensor] = {}  # [padded width]
        self._lasting_parts = frozenset(lasting or ())
        for name, initial in {**network.state_parts(), **(lasting or {})}.items():
            self._add_part(name, initial)
        self._lasting = network.inputs.lasting if "x" in self.parts else 0
        self.row_bytes = 8 * self.clock.shape[1] + 4 * sum(self.widths.values())
        widths = ",".join(f"{name}:{width}f4" for name, width in self.widths.items())
        layout = f"{LAYOUT_VERSION};{network.config.fingerprint()};clock:{self.clock.shape[1]}i8,{widths}"
        self.layout = hashlib.sha256(layout.encode()).hexdigest()

    def _add_part(self, name: str, initial: Tensor) -> None:
        room = room_of(name, len(initial))
        row = torch.zeros(room, device=self.device)
        row[: len(initial)] = initial
        self.widths[name] = len(initial)
        self._initial[name] = row
        self.parts[name] = torch.zeros(self.slots + 1, room, device=self.device)
        self.parts[name][:] = row

    def _index(self, slots: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.array(slots)).to(self.device)  # a copy: the caller's array may be read-only

    def gather(self, name: str, slots: Tensor, out: Tensor) -> None:
        """Rows of one part: slots [n] int64 on the device -> out [n, padded width]."""
        torch.index_select(self.parts[name], 0, slots, out=out)

    def scatter(self, name: str, slots: Tensor, rows: Tensor) -> None:
        """Overwrites rows of one part; no slot may be named twice, nor the padding row. rows [n, padded width].

        Sixteen bytes move at a time (widths are multiples of four floats): twice as fast as one float at a time.
        """
        if len(slots):
            self.parts[name].view(torch.complex128).index_copy_(0, slots, rows.view(torch.complex128))

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Gives the slots [n] the initial state."""
        self.clock[slots] = self._clock
        index = self._index(slots)
        for name, part in self.parts.items():
            part[index] = self._initial[name]

    def restart(self, slots: NDArray[np.int64]) -> None:
        """A new sequence of the same streams [n]: clock, running scaler and lasting parts stay, nothing counts as
        predicted any more, and all else becomes initial.
        """
        index = self._index(slots)
        for name, part in self.parts.items():
            if name == "x":
                part[index, self._lasting : self.widths[name]] = torch.nan
            elif name not in self._lasting_parts:
                part[index] = self._initial[name]

    def rows(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """State rows as bytes, [n, row_bytes]: the clock, then each part without padding, all little-endian."""
        out = np.empty((len(slots), self.row_bytes), dtype=np.uint8)
        index = self._index(slots)
        end = 8 * self.clock.shape[1]
        out[:, :end] = self.clock[slots].astype("<i8", copy=False).view(np.uint8)
        for name, part in self.parts.items():
            width = self.widths[name]
            values = np.ascontiguousarray(part.index_select(0, index).cpu().numpy()[:, :width])
            begin, end = end, end + 4 * width
            out[:, begin:end] = values.astype("<f4", copy=False).view(np.uint8)
        return out

    def load(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """The inverse of `rows`: bit for bit the same states come back. Raises ValueError for rows of a wrong size."""
        if rows.dtype != np.uint8 or rows.shape != (len(slots), self.row_bytes):
            raise ValueError(
                f"state rows: want uint8 [{len(slots)}, {self.row_bytes}], got {rows.dtype} {list(rows.shape)}; "
                "they were written by a model of another layout"
            )
        index = self._index(slots)
        end = 8 * self.clock.shape[1]
        self.clock[slots] = np.ascontiguousarray(rows[:, :end]).view("<i8")
        for name, part in self.parts.items():
            width = self.widths[name]
            begin, end = end, end + 4 * width
            values = np.zeros((len(slots), part.shape[1]), dtype=np.float32)
            values[:, :width] = np.ascontiguousarray(rows[:, begin:end]).view("<f4")
            self.scatter(name, index, torch.from_numpy(values).to(self.device))
