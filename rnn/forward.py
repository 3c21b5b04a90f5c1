"""One step of the serving network for many readings: gather the states, sum, scatter them.

States are gathered once, stepped wave by wave (`rnn.waves`) and scattered once; what needs no state is done for all
waves together. The input side works feature-major ([features, rows]), so that an operation is one run over memory; the
cells and the head work row-major ([rows, units]), as `rnn.steps` explains. Logarithms and exponentials are only taken
of whole scratch buffers, never of slices of rows, for the same reason. Imports torch and numpy.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rnn import clock as clocks
from rnn.heads import HALF_LOG_TWO_PI, SCALE_FLOOR, band_width
from rnn.inputs import CLIP, Inputs
from rnn.network import Network
from rnn.result import Result
from rnn.scratch import BULK_ROWS, Scratch, ScratchPool
from rnn.state import StateTable
from rnn.steps import padded, step_of
from rnn.waves import Waves, bucket

WORST_Z = 1e6
"""A surprise is reckoned with at most this many standard deviations, so that it stays finite."""


class Forward:
    """Weights in serving form, over one state table. Copies them: a later change of the network does not show."""

    def __init__(self, network: Network, table: StateTable) -> None:
        config, device = network.config, table.device
        self.table = table
        self.banded = config.head == "gaussian"
        self._inputs = Inputs(config, network.scaler_mean.to(device), network.scaler_std.to(device))
        self._steps = [step_of(cell, device) for cell in network.cells]
        self.sums_width = self._steps[0].gates * self._steps[0].units
        linear = network.head.linear
        outputs = linear.out_features
        self._head_weight = torch.zeros(self._steps[0].units, padded(outputs), device=device)
        self._head_weight[: config.hidden, :outputs] = linear.weight.detach().t()
        self._head_bias = torch.zeros(padded(outputs), device=device)
        self._head_bias[:outputs] = linear.bias.detach()
        self._all_targets = config.targets == config.features
        # Tensors, for an operation with a Python number takes twice as long to begin.
        self._band_width = torch.tensor(band_width(config.band), device=device)
        self._scale_floor = torch.tensor(SCALE_FLOOR, device=device)
        self._half_log_two_pi = torch.tensor(HALF_LOG_TWO_PI, device=device)
        self._target_count = torch.tensor(float(len(config.targets)), device=device)
        self._lo = slice(self._inputs.width, self._inputs.width + self._inputs.targets)  # rows of Scratch.after
        self._hi = slice(self._lo.stop, self._lo.stop + self._inputs.targets)
        # What must be finite, summed with weights so small that only what is not finite can make the sum so.
        self._checked = slice(0, self._hi.stop if self.banded else self._lo.start)
        self._tiny = torch.full((1, self._checked.stop), 1e-20, device=device)
        self._pool = ScratchPool(self._inputs, self._steps, outputs, table.parts["x"].shape[1], device)

    def step(
        self,
        waves: Waves,
        x: NDArray[np.float32],
        at_ms: NDArray[np.int64],
        last_ms: NDArray[np.int64],
        flags: NDArray[np.uint8],
    ) -> Result:
        """Folds n readings in and returns their predictions; adds MISSING and RESET to `flags`.

        x [n, features], at_ms [n] and, of the stream before each reading, last_ms [n]. A RESET reading's values mean
        nothing, nor does what follows it in its stream; the caller clears the slot, whose row may hold anything.
        """
        streams = len(waves.slots)
        scratch = self._pool.of(bucket(streams, BULK_ROWS), bucket(waves.rows, BULK_ROWS))
        index = self._stage(scratch, waves, x, at_ms, last_ms)
        unknown = np.isnan(x)
        missing = scratch.x[:-1].isnan() if unknown.any() else None  # [features, rows]
        if missing is not None:
            flags[unknown.any(axis=1)] |= clocks.MISSING
        self._take_in(scratch, waves, index, missing)
        h = self._recur(scratch, waves, index)
        self._predict(scratch, h)
        self._judge(scratch, waves, missing)
        self._scatter(scratch, waves, index[:streams])
        return self._result(scratch, waves.row, flags)

    def last_predictions(self, slots: NDArray[np.int64], flags: NDArray[np.uint8]) -> Result:
        """What the table holds as the latest prediction of each slot [n]; without a score."""
        held = self.table.parts["x"].index_select(0, torch.from_numpy(np.array(slots)).to(self.table.device))
        y, half = held[:, self._inputs.predicted_mean], held[:, self._inputs.predicted_scale] * self._band_width
        lo, hi = ((y - half).cpu().numpy(), (y + half).cpu().numpy()) if self.banded else (None, None)
        return Result(y.cpu().numpy(), lo, hi, np.full(len(slots), np.nan, dtype=np.float32), flags)

    def _stage(
        self,
        scratch: Scratch,
        waves: Waves,
        x: NDArray[np.float32],
        at_ms: NDArray[np.int64],
        last_ms: NDArray[np.int64],
    ) -> Tensor:
        """Lays the readings out in rows. Returns the slots by rank, then padding, [rows of the first wave]. Rows
        without a reading hold zeros, and the first wave's belong to the table's padding row.
        """
        row = waves.row
        scratch.slots[: len(waves.slots)] = waves.slots
        scratch.slots[len(waves.slots) : waves.sizes[0]] = self.table.slots
        scratch.x_host[:, slice(len(x), None) if isinstance(row, slice) else slice(None)] = 0
        scratch.x_host[:-1, row] = x.T
        dt_ms = np.maximum(at_ms - last_ms, 0)
        scratch.x_host[-1, row] = np.where(last_ms == clocks.NEVER_MS, self._inputs.interval_ms, dt_ms)
        if scratch.x.device.type != "cpu":
            scratch.x.copy_(torch.from_numpy(scratch.x_host))
        return torch.from_numpy(scratch.slots[: waves.sizes[0]]).to(self.table.device)

    def _take_in(self, scratch: Scratch, waves: Waves, index: Tensor, missing: Tensor | None) -> None:
        """Input state after each reading, and the features."""
        inputs, gathered, x = self._inputs, scratch.gathered[: len(index)], scratch.x[:-1]
        self.table.gather("x", index, gathered)
        scratch.before[:, : len(index)] = gathered.t()[: inputs.width]
        folded = scratch.states[: inputs.predicted_scale.start]
        for reading, old, new in _spans(scratch, waves):
            state = folded[:, new]
            state.copy_(folded[:, old])
            inputs.fold(state, x[:, reading], None if missing is None else missing[:, reading])
        after, features = scratch.after, inputs.features
        torch.maximum(after[inputs.var], inputs.var_floor, out=scratch.std).sqrt_()
        scaled, marks = scratch.features[:features], scratch.features[features : 2 * features]
        torch.sub(after[inputs.last], after[inputs.mean], out=scaled).div_(scratch.std).clamp_(-CLIP, CLIP)
        scratch.features[features:].zero_()
        if missing is not None:
            marks.copy_(missing)
        inputs.elapsed(scratch.x[-1], out=scratch.features[2 * features])

    def _recur(self, scratch: Scratch, waves: Waves, index: Tensor) -> Tensor:
        """Steps the layers, bottom first; returns the top one's h after each reading, [rows of all waves, units]."""
        below = scratch.features[:, : waves.rows].t()
        for layer, (step, parts) in enumerate(zip(self._steps, scratch.parts, strict=True)):
            for name, part in zip("hc", parts, strict=False):
                self.table.gather(f"{name}{layer}", index, part[: len(index)])
            sums = step.project(below, out=scratch.sums[: waves.rows])
            for reading, old, new in _spans(scratch, waves):
                step.run(sums[reading], tuple(p[old] for p in parts), tuple(p[new] for p in parts), scratch.spare)
            below = parts[0][scratch.lead : scratch.lead + waves.rows]
        return below

    def _predict(self, scratch: Scratch, h: Tensor) -> None:
        """The head's residual brought to raw units: next = last + mean * std."""
        inputs, targets, after = self._inputs, self._inputs.targets, scratch.after
        torch.addmm(self._head_bias, h, self._head_weight, out=scratch.head[: len(h)])
        scratch.heads.copy_(scratch.head.t()[: len(scratch.heads)])
        std = self._of_targets(scratch.std)
        y = torch.mul(scratch.heads[:targets], std, out=after[inputs.predicted_mean])
        y += self._of_targets(after[inputs.last])
        if self.banded:
            scale = functional.softplus(scratch.heads[targets:]).add_(self._scale_floor)
            scale = torch.mul(scale, std, out=after[inputs.predicted_scale])
            half = torch.mul(scale, self._band_width, out=scratch.heads[targets:])
            torch.sub(y, half, out=after[self._lo])
            torch.add(y, half, out=after[self._hi])
        else:
            after[inputs.predicted_scale] = 0

    def _judge(self, scratch: Scratch, waves: Waves, missing: Tensor | None) -> None:
        """Score of each reading under the prediction before it, in units of the standard deviation of that time, and
        whether all that the reading left behind is finite.
        """
        inputs, after, score = self._inputs, scratch.after, scratch.after[-2]
        torch.mm(self._tiny, after[self._checked], out=after[-1:])
        if not self.banded:
            score.fill_(float("nan"))
            return
        before = scratch.before
        if len(waves.sizes) > 1:
            before = scratch.states.index_select(1, _row_before(scratch, waves))
        mean, scale = before[inputs.predicted_mean], before[inputs.predicted_scale]
        std = self._of_targets(inputs.std(before[inputs.var]))
        z = self._of_targets(after[inputs.last]).sub(mean).div_(scale).clamp_(-WORST_Z, WORST_Z)
        nats = torch.div(scale, std, out=std).log_().addcmul_(z, z, value=0.5).add_(self._half_log_two_pi)
        if missing is None:
            torch.sum(nats, 0, out=score).div_(self._target_count)
        else:
            unknown = self._of_targets(missing)
            torch.sum(nats.masked_fill_(unknown, 0), 0, out=score).div_((~unknown).sum(0))

    def _scatter(self, scratch: Scratch, waves: Waves, index: Tensor) -> None:
        """Writes each stream's state after its last reading back to its slot; index [streams]."""
        n, rows = len(index), scratch.gathered[: len(index)]
        last: slice | Tensor
        if isinstance(waves.last_row, slice):
            last = slice(scratch.lead, scratch.lead + n)
        else:
            last = torch.from_numpy(waves.last_row + scratch.lead).to(index.device)
        rows[:, : self._inputs.width] = scratch.states[:, last].t()
        self.table.scatter("x", index, rows)
        for layer, parts in enumerate(scratch.parts):
            for name, part in zip("hc", parts, strict=False):
                self.table.scatter(f"{name}{layer}", index, part[last])

    def _result(self, scratch: Scratch, row: NDArray[np.int64] | slice, flags: NDArray[np.uint8]) -> Result:
        inputs = self._inputs
        out = scratch.after[inputs.predicted_mean.start :].cpu().numpy()
        said = out[:-2].reshape(3, inputs.targets, -1).transpose(0, 2, 1)  # [3, rows, targets]: mean, lo, hi
        y, lo, hi = (*np.array(said[: 3 if self.banded else 1, row], order="C"), None, None)[:3]
        flags[~np.isfinite(out[-1, row])] |= clocks.RESET
        return Result(y, lo, hi, out[-2, row].copy(), flags)

    def _of_targets(self, values: Tensor) -> Tensor:
        """[features, rows] -> [targets, rows]; the same tensor where all features are targets in order."""
        return values if self._all_targets else values.index_select(0, self._inputs.target_index)


def _spans(scratch: Scratch, waves: Waves) -> Iterator[tuple[slice, slice, slice]]:
    """For each wave its rows among the readings and, among lead + readings, the states before it and after it."""
    old = 0
    for start, size in zip(waves.starts, waves.sizes, strict=True):
        new = scratch.lead + start
        yield slice(start, start + size), slice(old, old + size), slice(new, new + size)
        old = new


def _row_before(scratch: Scratch, waves: Waves) -> Tensor:
    """Where, among lead + readings, the state before each reading is; 0 for rows without one. [rows]"""
    rows = np.zeros(scratch.rows, dtype=np.int64)
    for reading, old, _ in _spans(scratch, waves):
        rows[reading] = np.arange(old.start, old.stop)
    return torch.from_numpy(rows).to(scratch.after.device)
