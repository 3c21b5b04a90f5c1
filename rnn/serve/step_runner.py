"""One step of the serving network for many readings: gather the states, sum, scatter them.

States are gathered once, stepped wave by wave (`rnn.serve.waves`) and scattered once; what needs no state is done for
all waves together. The input side works feature-major ([features, rows]), so that an operation is one run over memory;
the cells and the head work row-major ([rows, units]), as `rnn.nn.cells.inference` explains. Logarithms and
exponentials are only taken of whole scratch buffers, never of slices of rows, for the same reason. Imports torch and
numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.nn.cells import CELLS, padded
from rnn.nn.heads import HALF_LOG_TWO_PI, SCALE_FLOOR, Gaussian
from rnn.nn.inputs import CLIP, Columns, Inputs
from rnn.nn.network import Network
from rnn.serve import ordering
from rnn.serve.adapt import Correction
from rnn.serve.result import Result
from rnn.serve.scratch import Scratch, ScratchPool
from rnn.serve.state_table import StateTable
from rnn.serve.waves import BULK_ROWS, Waves, bucket

WORST_SCORE = np.float32(1e12)
"""A surprise ends here, in nats: what lies further off would not be finite."""

WORST_LOGIT = -80.0
"""Scales end at 80 standard deviations: from there on sigmoid would leave the normal numbers, and its logarithm err."""


class StepRunner:
    """Weights in serving form, over one state table. Copies them: a later change of the network does not show."""

    def __init__(self, network: Network, table: StateTable, correction: Correction | None = None) -> None:
        config, device = network.config, table.device
        self.table, self._correction = table, correction
        self.alive: Callable[[], None] = lambda: None  # called between waves
        self.banded = config.head == "gaussian"
        self._inputs = Inputs(config, network.scaler_mean.to(device), network.scaler_std.to(device))
        inference = CELLS[config.cell].inference_of(config)
        if inference is None:
            raise ValueError(f"a {config.cell} cell with {config.activation} has no serving form")
        self._steps = [inference(cell, device) for cell in network.cells]
        self.sums_width = self._steps[0].gates * self._steps[0].units
        linear = network.head.linear
        outputs = linear.out_features
        self._head_weight = torch.zeros(self._steps[0].units, padded(outputs), device=device)
        self._head_weight[: config.hidden, :outputs] = linear.weight.detach().t()
        self._head_bias = torch.zeros(padded(outputs), device=device)
        self._head_bias[:outputs] = linear.bias.detach()
        self._head_weight[:, len(config.targets) :] *= -1  # see _predict
        self._head_bias[len(config.targets) :] *= -1
        self._path_weight: Tensor | None = None
        if network.linear_path is not None:
            width = network.linear_path.in_features
            self._path_weight = torch.zeros(padded(width), padded(outputs), device=device)
            self._path_weight[:width, : len(config.targets)] = network.linear_path.weight.detach().t()
        self._all_targets = config.targets == config.features
        self._band_width = np.zeros(len(config.targets), np.float32)  # half of it, in scales
        if isinstance(network.head, Gaussian):
            self._band_width = network.head.half_width().detach().cpu().numpy().astype(np.float32)
        # Tensors, for an operation with a Python number takes twice as long to begin.
        self._scale_floor = torch.tensor(SCALE_FLOOR, device=device)
        self._target_count = torch.tensor(float(len(config.targets)), device=device)
        # What must be finite is summed with weights so small that only what is not finite can make the sum so.
        self._checked = self._inputs.width - 2 * self._inputs.targets
        self._tiny = torch.full((1, self._checked), 1e-20, device=device)
        past = table.parts["past"].shape[1] if "past" in table.parts else 0
        self._pool = ScratchPool(self._inputs, self._steps, outputs, table.parts["x"].shape[1], past, device)

    def step(
        self,
        waves: Waves,
        x: NDArray[np.float32],
        dt_ms: NDArray[np.int64],
        flags: NDArray[np.uint16],
    ) -> Result:
        """Folds n readings in and returns their predictions; adds MISSING and RESET to `flags`.

        x [n, features]; dt_ms [n] since the stream's last reading, negative = there is none. A RESET reading's values
        mean nothing, nor does what follows it in its stream; the caller clears the slot, whose row may hold anything.
        """
        scratch = self._pool.of(bucket(len(waves.slots), BULK_ROWS), bucket(waves.rows, BULK_ROWS))
        index = self._stage(scratch, waves, x, dt_ms)
        unknown = np.isnan(x)
        missing = scratch.x.isnan() if unknown.any() else None  # [features, rows]
        if missing is not None:
            flags[unknown.any(axis=1)] |= ordering.MISSING
        self._take_in(scratch, waves, index, missing)
        if len(waves.sizes) == 1:  # all that was predicted before is in the table, and warm
            self._judge(scratch, scratch.before, scratch.std_before, missing)
        if self._path_weight is not None:
            self._remember(scratch, waves, index)
        self._predict(scratch, self._recur(scratch, waves, index))
        if self._correction is not None:
            self._correct(self._correction, scratch, waves, index, missing)
        if len(waves.sizes) > 1:
            rows = _row_before(scratch, waves)
            before = self._inputs.columns(scratch.states.index_select(1, rows))
            self._judge(scratch, before, scratch.std.index_select(1, rows), missing)
        self._scatter(scratch, waves, index)
        return self._result(scratch, waves.row, flags)

    def last_predictions(self, slots: NDArray[np.int64], flags: NDArray[np.uint16]) -> Result:
        """What the table holds as the latest prediction of each slot [n]; without a score."""
        inputs = self._inputs
        held = self.table.parts["x"].index_select(0, torch.from_numpy(np.array(slots)).to(self.table.device))
        columns = inputs.columns(held.t()[: inputs.width])
        y, scale = (part.t().contiguous().cpu().numpy() for part in (columns.predicted_mean, columns.predicted_scale))
        lo, hi = self._band(y, scale)
        return Result(y, lo, hi, np.full(len(slots), np.nan, dtype=np.float32), flags)

    def _stage(
        self,
        scratch: Scratch,
        waves: Waves,
        x: NDArray[np.float32],
        dt_ms: NDArray[np.int64],
    ) -> Tensor:
        """Lays the readings out in rows. Returns the slots by rank, then padding, [lead]. Rows without a reading hold
        zeros, and the first wave's belong to the table's padding row.
        """
        row, given = waves.row, scratch.given
        scratch.slots[: len(waves.slots)] = waves.slots
        scratch.slots[len(waves.slots) :] = self.table.slots
        given[:, slice(len(x), None) if isinstance(row, slice) else slice(None)] = 0
        given[:-1, row] = x.T
        given[-1, row] = np.where(dt_ms < 0, self._inputs.interval_ms, dt_ms)
        if scratch.on_device.device.type != "cpu":
            scratch.on_device.copy_(torch.from_numpy(given))
        return torch.from_numpy(scratch.slots).to(self.table.device)

    def _take_in(self, scratch: Scratch, waves: Waves, index: Tensor, missing: Tensor | None) -> None:
        """Input state after each reading, and the features."""
        inputs, before, after = self._inputs, scratch.before, scratch.after
        self.table.gather("x", index, scratch.gathered)
        scratch.states_before.copy_(scratch.gathered_t)
        if len(waves.sizes) == 1:
            inputs.fold(before, after, scratch.x, missing)
        else:
            columns = inputs.columns(scratch.states)
            for reading, old, new in self._spans(scratch, waves):
                unknown = None if missing is None else missing[:, reading]
                inputs.fold(columns.at(old), columns.at(new), scratch.x[:, reading], unknown)
        torch.maximum(scratch.var, inputs.var_floor, out=scratch.std).sqrt_()
        torch.sub(after.last, after.mean, out=scratch.scaled).div_(scratch.std_after).clamp_(-CLIP, CLIP)
        scratch.marks.zero_()
        if missing is not None:
            scratch.marks[: len(missing)] = missing
        inputs.elapsed(scratch.dt_ms, out=scratch.marks[inputs.features])

    def _remember(self, scratch: Scratch, waves: Waves, index: Tensor) -> None:
        """The linear path's latest readings after each reading: that one, then those before it but the oldest."""
        past, features = scratch.past, self._inputs.features
        kept = self.table.widths["past"] - features
        self.table.gather("past", index, past[: scratch.lead])
        seen = scratch.scaled.t()
        for reading, old, new in self._spans(scratch, waves):
            after = past[new]
            after[:, :features] = seen[reading]
            after[:, features : features + kept] = past[old, :kept]
            after[:, features + kept :] = 0

    def _recur(self, scratch: Scratch, waves: Waves, index: Tensor) -> Tensor:
        """Steps the layers, bottom first; returns the top one's h after each reading, [rows, units]."""
        below = scratch.features
        for layer, step in enumerate(self._steps):
            parts, before, after = scratch.parts[layer], scratch.parts_before[layer], scratch.parts_after[layer]
            for name, part in zip("hc", before, strict=False):
                self.table.gather(f"{name}{layer}", index, part)
            sums = step.project(below, out=scratch.sums)
            if len(waves.sizes) == 1:
                step.run(sums, before, after, scratch.spare)
            else:
                for reading, old, new in self._spans(scratch, waves):
                    step.run(sums[reading], tuple(p[old] for p in parts), tuple(p[new] for p in parts), scratch.spare)
            below = after[0]
        return below

    def _predict(self, scratch: Scratch, h: Tensor) -> None:
        """The head's residual brought to raw units: next = last + mean * std.

        softplus(a) is -log sigmoid(-a), with the minus of -a in the weights: half the time of torch's softplus on CPU.
        """
        after, mean, scale = scratch.after, scratch.mean, scratch.scale
        torch.addmm(self._head_bias, h, self._head_weight, out=scratch.head)
        if self._path_weight is not None:
            scratch.head.addmm_(scratch.past[scratch.lead :], self._path_weight)
        std = self._of_targets(scratch.std_after)
        mean.copy_(scratch.head_t[: len(mean)])
        torch.mul(mean, std, out=after.predicted_mean).add_(self._of_targets(after.last))
        if self.banded:
            log = scale.copy_(scratch.head_t[len(mean) :]).clamp_(min=WORST_LOGIT).sigmoid_().log_()
            torch.sub(self._scale_floor, log, out=log)
            torch.mul(log, std, out=after.predicted_scale)
        else:
            after.predicted_scale.zero_()
        if not self._all_targets:
            torch.mm(self._tiny, scratch.states[: self._checked, scratch.lead :], out=scratch.finite)

    def _correct(
        self, correction: Correction, scratch: Scratch, waves: Waves, index: Tensor, missing: Tensor | None
    ) -> None:
        """Moves what is predicted by what each stream's own errors have taught, and learns from the readings' ones."""
        held = scratch.gathered.new_empty(scratch.lead, self.table.parts[correction.PART].shape[1])
        self.table.gather(correction.PART, index, held)
        states = correction.before(held, scratch.rows)
        correction.run(
            self._spans(scratch, waves),
            states,
            scratch.parts[-1][0],
            self._of_targets(scratch.after.last),
            None if missing is None else ~self._of_targets(missing),
            self._of_targets(scratch.std),
            self._inputs.columns(scratch.states).predicted_mean,
        )
        n = len(waves.slots)
        last = waves.last_row + scratch.lead if not isinstance(waves.last_row, slice) else None
        columns = slice(scratch.lead, scratch.lead + n) if last is None else torch.from_numpy(last).to(index.device)
        correction.rows(states[:, columns], held[:n])
        self.table.scatter(correction.PART, index[:n], held[:n])

    def _judge(self, scratch: Scratch, before: Columns, std: Tensor, missing: Tensor | None) -> None:
        """Score of each reading under the prediction before it, but for a constant, in units of the standard deviation
        of that time, `std`.
        """
        score, scale = scratch.score, before.predicted_scale
        if not self.banded:
            score.fill_(float("nan"))
            return
        z = self._of_targets(scratch.after.last).sub(before.predicted_mean).div_(scale)
        nats = torch.div(scale, self._of_targets(std)).log_().addcmul_(z, z, value=0.5)
        if missing is None:
            torch.sum(nats, 0, out=score).div_(self._target_count)
        else:
            unknown = self._of_targets(missing)
            torch.sum(nats.masked_fill_(unknown, 0), 0, out=score).div_((~unknown).sum(0))

    def _scatter(self, scratch: Scratch, waves: Waves, index: Tensor) -> None:
        """Writes each stream's state after its last reading back to its slot; index [lead]."""
        n = len(waves.slots)
        last: slice | Tensor
        if isinstance(waves.last_row, slice):
            last = slice(scratch.lead, scratch.lead + n)
        else:
            last = torch.from_numpy(waves.last_row + scratch.lead).to(index.device)
        index, rows = index[:n], scratch.gathered[:n]
        rows[:, : self._inputs.width] = scratch.states[:, last].t()
        self.table.scatter("x", index, rows)
        for layer, parts in enumerate(scratch.parts):
            for name, part in zip("hc", parts, strict=False):
                self.table.scatter(f"{name}{layer}", index, part[last])
        if self._path_weight is not None:
            self.table.scatter("past", index, scratch.past[last])

    def _result(self, scratch: Scratch, row: NDArray[np.int64] | slice, flags: NDArray[np.uint16]) -> Result:
        targets = self._inputs.targets
        out = scratch.said.cpu().numpy()
        scale, y = np.array(out[:-2].reshape(2, targets, -1).transpose(0, 2, 1)[:, row], order="C")
        with np.errstate(over="ignore", invalid="ignore"):
            lo, hi = self._band(y, scale)
            # Finite edges prove the state of the targets finite, the number in the last row that of all features.
            sure = (y if lo is None or hi is None else lo + hi).sum() + (0 if self._all_targets else out[-1, row].sum())
            if not np.isfinite(sure):
                edges = y if lo is None or hi is None else np.concatenate((lo, hi), axis=1)
                good = np.isfinite(edges).all(axis=1)
                flags[~(good if self._all_targets else good & np.isfinite(out[-1, row]))] |= ordering.RESET
            score = np.minimum(out[-2, row] + np.float32(HALF_LOG_TWO_PI), WORST_SCORE)
        return Result(y, lo, hi, score, flags)

    def _band(
        self, y: NDArray[np.float32], scale: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | tuple[None, None]:
        """(lo, hi) around y, of a Gaussian of such a scale; each [n, targets]."""
        if not self.banded:
            return None, None
        half = scale * self._band_width
        return y - half, y + half

    def _spans(self, scratch: Scratch, waves: Waves) -> Iterator[tuple[slice, slice, slice]]:
        for span in _spans(scratch, waves):
            self.alive()
            yield span

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
    return torch.from_numpy(rows).to(scratch.states.device)
