"""The engine for every task shape: wave by wave, with the very modules that were trained.

Here is what a host decides of a reading: is it folded in, does its sequence end with it, is it answered. What is
answered stands in `rnn.serve.outputs`. `rnn.serve.engine` forecasts one step several times as fast. Imports torch and
numpy.

Hazard: a row's result must not depend on its neighbours, bit for bit, on CPU. So every wave has a multiple of BULK_ROWS
rows, what is not folded in is stepped all the same and then put aside, and one thread works.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from rnn.nn import clock as clocks
from rnn.nn.network import Network
from rnn.serve import ordering
from rnn.serve.bidirectional_runner import BidirectionalRunner
from rnn.serve.causal_runner import CausalRunner
from rnn.serve.network_runner import BEGAN, COUNT, PENDING, NetworkRunner, one_thread
from rnn.serve.result import Result
from rnn.serve.wave_batch import CONTINUES, END_ONLY, ENDS, PartialResult, WaveBatch, joined
from rnn.serve.waves import BULK_ROWS, one_wave, place_in_stream

__all__ = ["CONTINUES", "ENDS", "END_ONLY", "SequenceEngine"]


class SequenceEngine:
    """A network, and the states of up to `slots` streams. As `rnn.serve.engine.Engine`; `run` says what is more."""

    def __init__(self, network: Network, slots: int, device: str = "cpu") -> None:
        """Raises ValueError for a device that torch does not have, or no slots."""
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device: {device!r} asked for, but torch sees no GPU; use 'cpu' or install its driver")
        self.network = network
        self.config = network.config
        self._working = NetworkRunner(network, slots, self.device)
        self.table = self._working.table
        self._alive: Callable[[], None] = lambda: None
        self._course: CausalRunner | BidirectionalRunner = (
            BidirectionalRunner(self._working) if self._working.lagging else CausalRunner(self._working)
        )

    def tell(self, alive: Callable[[], None]) -> None:
        """As `Engine.tell`."""
        self._alive = alive

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
        """Folds n readings into their streams' states and gives the predictions that become due.

        slots, x, at_ms and seq as `Engine.run`; a symbol is its number, NaN = missing. end [n]: CONTINUES, ENDS or
        END_ONLY; after an end the stream's memory is new. tag [n] comes back with the prediction about that reading.
        salt [n], a hash of the stream's name, and the reading's place in its stream decide what is drawn where the
        config samples.
        """
        n = len(slots)
        features = len(self.config.features)
        none = np.zeros(n, np.int64)
        end = none.astype(np.uint8) if end is None else end
        tag, salt = (none if given is None else given for given in (tag, salt))
        wanted = ((slots, "slots", np.int64, (n,)), (x, "x", np.float32, (n, features)),
                  (at_ms, "at_ms", np.int64, (n,)),
                  (seq, "seq", np.int64, (n,)), (end, "end", np.uint8, (n,)), (tag, "tag", np.int64, (n,)),
                  (salt, "salt", np.int64, (n,)))  # fmt: skip
        for array, name, dtype, shape in wanted:
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name}: want {np.dtype(dtype)} {list(shape)}, got {array.dtype} {list(array.shape)}")
        if n and slots.view(np.uint64).max() >= self.table.slots:  # negative ones are huge so
            raise ValueError(f"slots: want 0..{self.table.slots - 1}, got {slots.min()}..{slots.max()}")
        if self.config.symbolic and n:
            self._refuse_strange_symbols(x)
        place = place_in_stream(slots)
        by_wave = np.argsort(place, kind="stable")
        pieces: list[PartialResult] = []
        with one_thread(self.device):
            for of in np.split(by_wave, np.cumsum(np.bincount(place))[:-1]) if n else []:
                wave = self._judged(of, slots[of], x[of], at_ms[of], seq[of], end[of], tag[of], salt[of])
                pieces += self._course.step(wave)
                self._finish(wave.slots[wave.ends])
                self._alive()
        return self._joined(pieces, n)

    def flush(self, slots: NDArray[np.int64]) -> Result:
        """Answers what waits in the slots [k], distinct ones, with what is known so far; `of` says which slot."""
        with one_thread(self.device):
            pieces = self._course.flush(slots) if isinstance(self._course, BidirectionalRunner) else []
        return self._joined(pieces, -1)

    def waiting(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many readings of each slot [k] wait for later ones."""
        return np.array(self.table.clock[slots, PENDING])

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
        """Batch sizes up to `most` rows with which this device breaks the promise that a stream's result does not
        depend on its batch; empty on a good CPU. Steps one random reading of each of made-up streams in batches of
        some sizes.
        """
        probe, random = SequenceEngine(self.network, most, str(self.device)), np.random.default_rng(0)
        x = random.normal(size=(most, len(self.config.features))).astype(np.float32)
        if self.config.symbolic:
            x = random.integers(0, len(self.config.vocabulary) + 3, size=(most, 1)).astype(np.float32)
        slots, seq = np.arange(most), np.full(most, -1)

        def stepped(batch: int) -> NDArray[np.uint8]:
            probe.clear(slots)
            for begin in range(0, most, batch):
                some = slice(begin, begin + batch)
                probe.run(slots[some], x[some], slots[some], seq[some])
            return probe.rows(slots)

        alone = stepped(BULK_ROWS)
        return [size for size in (BULK_ROWS // 2, 2 * BULK_ROWS, most) if (stepped(size) != alone).any()]

    def _judged(
        self,
        of: NDArray[np.int64],
        slots: NDArray[np.int64],
        x: NDArray[np.float32],
        at_ms: NDArray[np.int64],
        seq: NDArray[np.int64],
        end: NDArray[np.uint8],
        tag: NDArray[np.int64],
        salt: NDArray[np.int64],
    ) -> WaveBatch:
        """What is to be done with each reading of a wave; moves the clocks on."""
        config, clock = self.config, self.table.clock
        before_ms = clock[slots, 0]
        flags, _ = ordering.check(clock, one_wave(slots), at_ms, seq)
        length = clock[slots, COUNT] - clock[slots, BEGAN]
        twice, bare = flags == ordering.DUPLICATE, end == END_ONLY
        early = bare & (before_ms == clocks.NEVER_MS)  # the stream's first reading is still to come
        clock[slots[early], :COUNT], flags[early] = clocks.INITIAL, 0
        over = ~twice & ~bare & (0 < config.max_length <= length)
        ends = ~twice & (end != CONTINUES)
        empty = bare & ~twice & (length == 0)
        clock[slots, COUNT] += ~twice & ~bare
        missing = np.isnan(x).any(axis=1) & ~bare
        flags[missing] |= ordering.MISSING
        if config.symbolic:
            flags[~bare & (x[:, 0] == 0)] |= ordering.UNKNOWN
        flags[over | (ends & (0 < config.max_length < length))] |= ordering.OVERLONG
        flags[empty] |= ordering.EMPTY
        flags[ends] |= ordering.ENDED
        if self._working.lagging:
            due = mute = (twice & ~bare) | over | empty
        elif config.at_end:
            due, mute = ends, empty
        else:
            forecasts = config.task == "many-to-many" and config.residual
            due = ~bare | (empty & (not forecasts)) | (~twice & (config.task == "many-to-one"))
            mute = empty | (over & ~((config.task == "many-to-one") & ends))
            mute |= twice & (length == 0)  # its sequence is over: there is nothing to repeat
        fold = ~(twice | bare | over)
        return WaveBatch(of, slots, x, at_ms, end, tag, salt, before_ms, length, flags, fold, ends, due, mute)

    def _finish(self, slots: NDArray[np.int64]) -> None:
        if len(slots):
            self.table.restart(slots)
            self.table.clock[slots, BEGAN] = self.table.clock[slots, COUNT]

    def _joined(self, pieces: list[PartialResult], n: int) -> Result:
        if not pieces:
            none = np.zeros(0, np.int64)
            score = none.astype(np.float32)
            pieces = [PartialResult(none, self._working.answerer.nothing(0), score, none.astype(np.uint16), none, none)]
        return joined(pieces, n, self._working.lagging)

    def _refuse_strange_symbols(self, x: NDArray[np.float32]) -> None:
        symbols, known = x[:, 0], len(self.config.vocabulary) + 3
        strange = ~np.isnan(symbols) & ~((symbols >= 0) & (symbols < known) & (symbols == np.floor(symbols)))
        if strange.any():
            raise ValueError(f"x: wants symbol numbers 0..{known - 1}, got {symbols[strange][0]}")
