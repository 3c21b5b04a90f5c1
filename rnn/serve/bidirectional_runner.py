"""Readings that wait for later ones: a network that reads both ways, online, with a fixed lag.

The prediction for a reading is made when `lag` later ones have come, or when its sequence ends: forward layers go on
from the state they carry, backward layers start behind the last reading known. So a prediction looks at all of the past
and at `lag` readings of the future (Graves and Schmidhuber 2005, made causal by waiting). Imports torch and numpy.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rnn.serve import ordering
from rnn.serve.network_runner import HELD, PENDING, NetworkRunner
from rnn.serve.wave_batch import PartialResult, WaveBatch


class BidirectionalRunner:
    """Readings gather in the window, a part of the stream's state; the oldest one is answered first."""

    def __init__(self, working: NetworkRunner) -> None:
        self._on = working
        self._room = working.config.lag + 1  # readings that fit into the window

    def step(self, wave: WaveBatch) -> list[PartialResult]:
        """Takes the wave in and gives the answers that became due."""
        on, n, slots, clock = self._on, len(wave.slots), wave.slots, self._on.table.clock
        before = on.gathered(slots)
        raw, after = on.taken_in(wave, before)
        good = wave.fold & on.finite(after | {"window": raw}, n)
        lost = wave.fold & ~good
        held = np.flatnonzero(good)
        for name, part in after.items():
            on.put(name, slots[held], part[torch.from_numpy(held).to(on.device)])
        self._hold(wave, held, before["window"], raw)
        pieces = []
        last = wave.ends | lost | (wave.flags & ordering.OVERLONG > 0)  # what waits will see no more of its sequence
        while len(due := np.flatnonzero(self._full(slots) | (last & (clock[slots, PENDING] > 0)))):
            pieces += self.oldest(wave.of[due], slots[due], wave.ends[due])
        wave.flags[lost] |= ordering.RESET
        on.table.clear(slots[lost])
        silent = np.flatnonzero(wave.mute | lost)
        if len(silent):
            nothing, score = on.answerer.nothing(n), np.full(n, np.nan, np.float32)
            pieces.append(PartialResult(wave.of, nothing, score, wave.flags, wave.tag, wave.at_ms).chosen(silent))
        return pieces

    def flush(self, slots: NDArray[np.int64]) -> list[PartialResult]:
        """Answers all that waits in the slots [k] with what is known so far."""
        pieces = []
        while len(of := np.flatnonzero(self._on.table.clock[slots, PENDING] > 0)):
            pieces += self.oldest(of, slots[of], np.zeros(len(of), np.bool_))
        return pieces

    def oldest(self, of: NDArray[np.int64], slots: NDArray[np.int64], ends: NDArray[np.bool_]) -> list[PartialResult]:
        """Answers the oldest waiting reading of each of the slots [n], which moves the forward state past it."""
        on, n, clock = self._on, len(slots), self._on.table.clock
        parts = on.gathered(slots)
        window = parts["window"].view(len(parts["window"]), self._room, -1)
        lengths = torch.ones(len(window), dtype=torch.int64, device=on.device)
        lengths[:n] = torch.from_numpy(clock[slots, PENDING]).to(on.device)
        embedded = on.network.embed_inputs(window.transpose(0, 1))
        h, state = on.network.bidirectional_window(embedded, lengths, on.state(parts))
        answers = on.answerer.of_h(h).chosen(np.arange(n))
        after = on.named(state)
        bad = ~(on.finite(after, n) & answers.all_finite())
        for name, part in after.items():
            part[:n][torch.from_numpy(bad).to(on.device)] = 0.0  # a memory that is no number starts anew
            on.put(name, slots, part)
        on.put("window", slots, torch.cat((window[:, 1:], window[:, :1]), dim=1).flatten(1))
        answers.mask_unavailable(bad)
        held = clock[slots, HELD:].reshape(n, self._room, 3)
        clock[slots, HELD:] = np.roll(held, -1, axis=1).reshape(n, -1)
        clock[slots, PENDING] -= 1
        tag, at_ms, flags = held[:, 0, 0].copy(), held[:, 0, 1].copy(), held[:, 0, 2].astype(np.uint16)
        flags[ends & (clock[slots, PENDING] == 0)] |= ordering.ENDED
        flags[bad] |= ordering.RESET
        return [PartialResult(of, answers, np.full(n, np.nan, np.float32), flags, tag, at_ms)]

    def _full(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(self._on.table.clock[slots, PENDING] == self._room)

    def _hold(self, wave: WaveBatch, held: NDArray[np.int64], window: torch.Tensor, raw: torch.Tensor) -> None:
        """Puts the readings `held` of the wave behind what waits in their slots' windows."""
        on, slots, clock = self._on, wave.slots[held], self._on.table.clock
        pending, rows = clock[slots, PENDING], torch.from_numpy(held).to(on.device)
        if not len(held):
            return
        opened = window[rows].view(len(held), self._room, -1)
        opened[torch.arange(len(held), device=on.device), torch.from_numpy(pending).to(on.device)] = raw[rows]
        on.put("window", slots, opened.flatten(1))
        column = HELD + 3 * pending
        flags = wave.flags[held] & ~np.uint16(ordering.ENDED)
        for place, values in enumerate((wave.tag[held], wave.at_ms[held], flags)):
            clock[slots, column + place] = values
        clock[slots, PENDING] += 1
