"""A serving network over its state table: how rows come from it and go back. Imports torch and numpy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.nn import clock as clocks
from rnn.nn.network import Network, States
from rnn.serve.outputs import OutputDecoder
from rnn.serve.state_table import StateTable
from rnn.serve.wave_batch import WaveBatch
from rnn.serve.waves import BULK_ROWS, bucket

COUNT = len(clocks.INITIAL)
BEGAN, PENDING, HELD = COUNT + 1, COUNT + 2, COUNT + 3
"""Columns behind the clock: readings of the stream ever; before its present sequence; not answered yet; from HELD on
tag, time and flags of each of those, the oldest first."""


class NetworkRunner:
    """A copy of the network, and the states of up to `slots` streams in a table on `device`."""

    def __init__(self, network: Network, slots: int, device: torch.device) -> None:
        self.device = device
        self.config = network.config
        self.network = copy.deepcopy(network).to(device).eval().requires_grad_(False)
        self.answerer = OutputDecoder(self.network)
        self.lagging = self.config.direction != "forward"
        extra = HELD - COUNT + 3 * (self.config.lag + 1) * self.lagging
        self.table = StateTable(self.network, slots, device, extra)
        self.inputs = self.network.inputs if "x" in self.table.parts else None

    def gathered(self, slots: NDArray[np.int64]) -> dict[str, Tensor]:
        """Every part of the slots [n], then of the padding row: [rows, width], rows a multiple of BULK_ROWS."""
        index = np.full(bucket(len(slots), BULK_ROWS), self.table.slots)
        index[: len(slots)] = slots
        at = torch.from_numpy(index).to(self.device)
        widths = self.table.widths
        return {n: part.index_select(0, at)[:, : widths[n]].contiguous() for n, part in self.table.parts.items()}

    def put(self, name: str, slots: NDArray[np.int64], rows: Tensor) -> None:
        """Writes the first rows [n or more, width] of one part back to the slots [n], which are distinct."""
        self.table.parts[name][torch.from_numpy(slots).to(self.device), : rows.shape[1]] = rows[: len(slots)]

    def state(self, parts: dict[str, Tensor]) -> States:
        """The layers' states among the parts."""
        return tuple(
            tuple(parts[f"{name}{layer}"] for name in cell.PARTS) for layer, cell in enumerate(self.network.cells)
        )

    def named(self, state: States) -> dict[str, Tensor]:
        """The inverse of `state`."""
        pairs = zip(self.network.cells, state, strict=True)
        return {
            f"{name}{layer}": part
            for layer, (cell, parts) in enumerate(pairs)
            for name, part in zip(cell.PARTS, parts, strict=True)
        }

    def taken_in(self, wave: WaveBatch, before: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What `Network.embed_inputs` takes of each reading, [rows, raw width], and the input side's parts after it."""
        n, rows = len(wave.slots), bucket(len(wave.slots), BULK_ROWS)
        x = torch.zeros(rows, len(self.config.features), device=self.device)
        x[:n] = torch.from_numpy(wave.x).to(self.device)
        if self.inputs is None:
            return x, {}
        clock = torch.full((rows, 1), clocks.NEVER_MS, dtype=torch.int64, device=self.device)
        clock[:n, 0] = torch.from_numpy(wave.before_ms).to(self.device)
        at_ms = torch.zeros(rows, dtype=torch.int64, device=self.device)
        at_ms[:n] = torch.from_numpy(wave.at_ms).to(self.device)
        after = {"x": before["x"].clone()}
        raw, *_ = self.inputs.advance(after["x"], clock, x, at_ms)
        if "past" in before:
            features = len(self.config.features)
            after["past"] = torch.cat((raw[:, :features], before["past"][:, :-features]), dim=1)
        return raw, after

    def finite(self, parts: dict[str, Tensor], n: int) -> NDArray[np.bool_]:
        """Which of the first n rows hold numbers in all parts; what only the fast engine keeps in x does not count."""
        kept = dict(parts)
        if self.inputs is not None and "x" in kept:
            kept["x"] = kept["x"][:, : self.inputs.lasting]
        return finite(kept.values(), n)


def finite(parts: Iterable[Tensor], n: int) -> NDArray[np.bool_]:
    """Which of the first n rows are numbers in all parts [rows, ..]."""
    good = np.ones(n, np.bool_)
    for part in parts:
        good &= torch.isfinite(part[:n]).all(dim=1).cpu().numpy()
    return good


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Torch splits large operations at places that depend on their size, and a part's rest goes another code path."""
    threads = torch.get_num_threads()
    if device.type == "cpu" and threads != 1:
        torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        if device.type == "cpu" and threads != 1:
            torch.set_num_threads(threads)
