"""The engine: readings in, predictions out, the states of all streams kept in a table on the device.

Here is what a host decides: which readings are stepped together, which are duplicates, which streams start anew. The
sums are in `rnn.serve.step_runner`. Imports torch and numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.nn import clock as clocks
from rnn.nn.cells import CELLS, padded
from rnn.nn.network import Network
from rnn.serve import ordering
from rnn.serve.adapt import Adaptation, Correction
from rnn.serve.result import Result
from rnn.serve.state_table import StateTable
from rnn.serve.step_runner import StepRunner
from rnn.serve.waves import MIN_ROWS, bucket, in_waves, latest_before, one_wave, place_in_stream

__all__ = ["Engine", "Result"]


def chunk_rows(sums_width: int, correction_width: int, device: str) -> int:
    """Readings stepped at a time: bounds the scratch, also where each has a wave of its own."""
    floats = (1 << 20) * (16 if device == "cuda" else 1)
    return max(256, floats // max(sums_width, correction_width))


class Engine:
    """A network's weights in serving form, and the states of up to `slots` streams. Not safe for use by two threads.

    On CPU a result is bit for bit the same however the readings are grouped into runs and whatever neighbours they
    have, given that `check` finds nothing; it works on one thread, for splitting an operation would break that.
    The weights are copied: a later change of `network` does not show.
    """

    def __init__(self, network: Network, slots: int, device: str = "cpu", adapt: Adaptation | None = None) -> None:
        """With `adapt` each stream's forecasts are corrected by what its own errors teach, which is part of its state.
        Raises ValueError for a device that torch does not have, or no slots.
        """
        if not self.serves(network.config):
            raise ValueError(
                "this network does more than forecast one step of real values: use rnn.serve.build.engine_of"
            )
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device: {device!r} asked for, but torch sees no GPU; use 'cpu' or install its driver")
        self.network, self.config, self.adapt = network, network.config, adapt
        correction, lasting = None, {}
        if adapt is not None:
            hidden, targets = self.config.hidden, len(self.config.targets)
            correction = Correction(adapt, hidden, padded(hidden), targets, self.device)
            lasting = {correction.PART: correction.initial}
        self.table = StateTable(network, slots, self.device, lasting=lasting)
        self._forward = StepRunner(network, self.table, correction)
        self._seen = np.zeros(slots + 1, dtype=np.int32)
        self._chunk_rows = chunk_rows(self._forward.sums_width, correction.width if correction else 0, self.device.type)
        self._places = np.arange(self._chunk_rows, dtype=np.int32)

    def tell(self, alive: Callable[[], None]) -> None:
        """From now on `alive` is called between any two waves: of many waves, a run takes long."""
        self._forward.alive = alive

    @staticmethod
    def serves(config: ModelConfig) -> bool:
        """Whether this engine can; `rnn.serve.sequence_engine` has the one that always can."""
        plain = config.direction == "forward" and not config.layer_norm and config.horizon == 1
        cell = CELLS[config.cell].inference_of(config) is not None
        head = config.head in ("point", "gaussian")
        return plain and cell and head and config.task == "many-to-many" and config.residual and not config.max_length

    def run(
        self,
        slots: NDArray[np.int64],
        x: NDArray[np.float32],
        at_ms: NDArray[np.int64],
        seq: NDArray[np.int64],
        *,
        end: NDArray[np.uint8] | None = None,
        tag: NDArray[np.int64] | None = None,
        salt: NDArray[np.int64] | None = None,
    ) -> Result:
        """Folds n readings into their streams' states and predicts each stream's next one.

        slots [n] in 0..slots-1, any number of times each (readings of one slot are taken in the order given); x [n,
        features] in raw units, NaN = missing; at_ms [n]; seq [n], negative = none; end [n] as `SequenceEngine.run`.
        Every reading is answered at once and nothing is drawn, so tag and salt say nothing here.
        Raises ValueError for arrays of other shapes or types, and for slots outside the table.
        """
        if end is not None and end.any():
            return self._run_with_ends(slots, x, at_ms, seq, end)
        self._refuse_misfits(slots, x, at_ms, seq)
        threads = torch.get_num_threads()
        # Torch splits large operations at places that depend on their size, and a part's rest goes another code path.
        if threads != 1 and self.device.type == "cpu":
            torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                return self._run(slots, x, at_ms, seq)
        finally:
            if threads != 1 and self.device.type == "cpu":
                torch.set_num_threads(threads)

    def _run_with_ends(
        self,
        slots: NDArray[np.int64],
        x: NDArray[np.float32],
        at_ms: NDArray[np.int64],
        seq: NDArray[np.int64],
        end: NDArray[np.uint8],
    ) -> Result:
        """Readings up to each stream's first end, then those up to its second one, and so on."""
        ended = end > 0
        by_slot = np.argsort(slots, kind="stable")
        ends_so_far: NDArray[np.int64] = np.cumsum(ended[by_slot]) - ended[by_slot]
        first = np.flatnonzero(np.diff(slots[by_slot], prepend=-1))
        sequence = np.empty(len(slots), np.int64)  # which of its stream's sequences a reading belongs to
        sequence[by_slot] = ends_so_far - np.repeat(ends_so_far[first], np.diff(first, append=len(slots)))
        whole = self._blank(len(slots))
        for number in range(int(sequence.max()) + 1):
            here = sequence == number
            some, bare = np.flatnonzero(here & (end < 2)), np.flatnonzero(here & (end == 2))
            whole.put(some, self.run(slots[some], x[some], at_ms[some], seq[some]))
            bare = bare[self.table.clock[slots[bare], 0] != clocks.NEVER_MS]  # before the first reading it says nothing
            if len(bare):  # it has a time and a number like any other
                whole.flags[bare] = ordering.check(self.table.clock, one_wave(slots[bare]), at_ms[bare], seq[bare])[0]
            closed = here & ended & (whole.flags & ordering.DUPLICATE == 0)
            whole.flags[closed] |= ordering.ENDED
            self.table.restart(slots[closed])
        said = np.flatnonzero(end < 2)
        if len(said) == len(slots):
            return whole
        part = self._blank(len(said))
        part.put(np.arange(len(said)), whole, said)
        return replace(part, of=said)

    def flush(self, slots: NDArray[np.int64]) -> Result:
        """Nothing: no reading waits for later ones here."""
        return replace(self._blank(0), of=np.zeros(0, np.int64))

    def waiting(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Zeros [k], see `flush`."""
        return np.zeros(len(slots), np.int64)

    def rows(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """As `StateTable.rows`."""
        return self.table.rows(slots)

    def load(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """As `StateTable.load`."""
        self.table.load(slots, rows)

    def clear(self, slots: NDArray[np.int64]) -> None:
        """As `StateTable.clear`."""
        self.table.clear(slots)

    def check(self, most: int = 256) -> list[int]:
        """Bucket sizes up to `most` rows with which this device breaks the promise that a stream's result does not
        depend on its batch; empty on a good CPU. Steps two random readings of each of made-up streams, in batches of
        every size, in a table of its own; about a tenth of a second for networks of ordinary size.
        """
        probe = Engine(self.network, most, str(self.device), self.adapt)
        random = np.random.default_rng(0)
        x = random.normal(size=(2, most, len(self.config.features))).astype(np.float32)
        at_ms, seq, slots = np.arange(most), np.full(most, -1), np.arange(most)

        def stepped(batch: int, n: int) -> NDArray[np.uint8]:
            probe.clear(slots[:n])
            for begin in range(0, n, batch):
                some = slice(begin, begin + batch)
                twice = [np.tile(array[some], 2) for array in (slots, at_ms, seq)]
                probe.run(twice[0], x[:, some].reshape(-1, x.shape[2]), twice[1], twice[2])
            return probe.rows(slots[:n])

        alone = stepped(MIN_ROWS, most)
        sizes = sorted({bucket(n) for n in range(1, most + 1)})
        return [size for size in sizes if size <= most and (stepped(size, size) != alone[:size]).any()]

    def _blank(self, n: int) -> Result:
        return Result.blank(n, len(self.config.targets), self._forward.banded)

    def _refuse_misfits(
        self, slots: NDArray[np.int64], x: NDArray[np.float32], at_ms: NDArray[np.int64], seq: NDArray[np.int64]
    ) -> None:
        n = len(slots)
        wanted = ((slots, "slots", np.int64, (n,)), (x, "x", np.float32, (n, len(self.config.features))))
        for array, name, dtype, shape in (*wanted, (at_ms, "at_ms", np.int64, (n,)), (seq, "seq", np.int64, (n,))):
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name}: want {np.dtype(dtype)} {list(shape)}, got {array.dtype} {list(array.shape)}")
        if n and slots.view(np.uint64).max() >= self.table.slots:  # negative ones are huge so
            raise ValueError(f"slots: want 0..{self.table.slots - 1}, got {slots.min()}..{slots.max()}")

    def _run(
        self, slots: NDArray[np.int64], x: NDArray[np.float32], at_ms: NDArray[np.int64], seq: NDArray[np.int64]
    ) -> Result:
        n, whole = len(slots), None
        todo, stride = np.arange(n), n  # readings still to be stepped, and how many waves at a time
        while len(todo):
            now, later = todo[: self._chunk_rows], todo[self._chunk_rows :]
            if stride < n:
                fits = place_in_stream(slots[now]) < stride
                now, later = now[fits], np.concatenate((now[~fits], later))
            if len(now) == n:
                result, again = self._chunk(slots, x, at_ms, seq)
                if again is None:
                    return result
            else:
                result, again = self._chunk(slots[now], x[now], at_ms[now], seq[now])
            whole = whole or self._blank(n)
            if again is None:
                whole.put(now, result)
                todo, stride = later, 2 * stride
            else:
                # What came after a reset was stepped in vain. From here on waves are taken one by one, then in doubling
                # strides: the vain steps stay in proportion, also where every reading resets its stream.
                whole.put(now[~again], result, np.flatnonzero(~again))
                todo, stride = np.sort(np.concatenate((now[again], later))), 1
        return whole or self._blank(n)

    def _distinct(self, slots: NDArray[np.int64]) -> bool:
        place = self._places[: len(slots)]
        self._seen[slots] = place
        return bool((self._seen[slots] == place).all())

    def _chunk(
        self, slots: NDArray[np.int64], x: NDArray[np.float32], at_ms: NDArray[np.int64], seq: NDArray[np.int64]
    ) -> tuple[Result, NDArray[np.bool_] | None]:
        """Result of at most `_chunk_rows` readings, and which of them must be run again because they came after a
        reset of their stream (their part of the result means nothing); None: nothing was reset.
        """
        waves = one_wave(slots) if self._distinct(slots) else in_waves(slots)
        flags, dt_ms = ordering.check(self.table.clock, waves, at_ms, seq)
        if flags.max() < ordering.DUPLICATE:
            result = self._forward.step(waves, x, dt_ms, flags)
        else:
            result = self._with_duplicates(slots, x, dt_ms, flags)
        if result.flags.max() < ordering.RESET:
            return result, None
        reset = (result.flags & ordering.RESET) != 0
        self.table.clear(np.unique(slots[reset]))
        for array in (result.y, result.lo, result.hi, result.score):
            if array is not None:
                array[reset] = np.nan
        return result, latest_before(slots, reset) >= 0

    def _with_duplicates(
        self,
        slots: NDArray[np.int64],
        x: NDArray[np.float32],
        dt_ms: NDArray[np.int64],
        flags: NDArray[np.uint16],
    ) -> Result:
        """Steps all but the duplicates, which then repeat what was last predicted for their stream."""
        result, twice = self._blank(len(slots)), flags == ordering.DUPLICATE
        doubles, kept = np.flatnonzero(twice), np.flatnonzero(~twice)
        result.put(doubles, self._forward.last_predictions(slots[doubles], flags[doubles]))
        if len(kept):
            part = self._forward.step(in_waves(slots[kept]), x[kept], dt_ms[kept], flags[kept])
            result.put(kept, part)
            source = latest_before(slots, ~twice)[doubles]  # the reading just before, where it is in this chunk
            inside = source >= 0
            for array in (result.y, result.lo, result.hi):
                if array is not None:
                    array[doubles[inside]] = array[source[inside]]
        return result
