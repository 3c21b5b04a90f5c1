"""A wave through a network that looks back only: step, judge, answer. Imports torch and numpy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnn.config import SPECIALS
from rnn.serve import ordering
from rnn.serve.network_runner import COUNT, NetworkRunner
from rnn.serve.outputs import Answers, Scale
from rnn.serve.wave_batch import PartialResult, WaveBatch

WORST_SCORE = np.float32(1e12)
"""A surprise ends here, in nats: what lies further off would not be finite."""


class CausalRunner:
    """Every shape but the both-ways one: a reading is answered, if it is due, from the state after it."""

    def __init__(self, working: NetworkRunner) -> None:
        self._on = working
        config = working.config
        self._scored = working.network.head.LIKELY and config.recurrent and config.predicts == "next"

    def step(self, wave: WaveBatch) -> list[PartialResult]:
        """Folds the wave in and gives the answers that are due."""
        on, n = self._on, len(wave.slots)
        before = on.gathered(wave.slots)
        raw, after = on.taken_in(wave, before)
        seen = on.network.embed_inputs(raw)
        if on.config.recurrent:
            after |= on.named(on.network.step(seen, on.state(before)))
        fold = torch.zeros(len(raw), 1, dtype=torch.bool, device=on.device)
        fold[:n, 0] = torch.from_numpy(wave.fold).to(on.device)
        after = {name: torch.where(fold, after[name], before[name]) for name in before}
        for name, part in after.items():
            on.put(name, wave.slots, part)
        answers = self._answers(wave, seen, after).chosen(np.arange(n))
        score = self._surprise(wave, before)
        bad = ~on.finite(after, n) | (wave.due & ~wave.mute & ~answers.all_finite())
        wave.flags[bad] |= ordering.RESET
        on.table.clear(wave.slots[bad])
        score[bad] = np.nan
        answers.mask_unavailable(wave.mute | bad)
        if answers.cut is not None:
            wave.flags[answers.cut & ~wave.mute & ~bad] |= ordering.CUT
        due = np.flatnonzero(wave.due | bad)
        return (
            [PartialResult(wave.of, answers, score, wave.flags, wave.tag, wave.at_ms).chosen(due)] if len(due) else []
        )

    def _answers(self, wave: WaveBatch, seen: Tensor, after: dict[str, Tensor]) -> Answers:
        on, config = self._on, self._on.config
        if not wave.due.any():
            return on.answerer.nothing(len(wave.slots))
        keys = self._keys(wave, len(seen)) if config.temperature else None
        if config.recurrent:
            scale = Scale.of(on.inputs, after["x"]) if config.residual and on.inputs is not None else None
            return on.answerer.of_state(on.state(after), (scale, after.get("past")), keys)
        if config.decodes:
            return on.answerer.of_state(on.network.init_decoder(seen), (None, None), keys)
        return on.answerer.of_h(on.network(seen), (None, None), keys)

    def _keys(self, wave: WaveBatch, rows: int) -> NDArray[np.uint64]:
        """Seeds of what is drawn for each row: the stream's salt and how many readings it has had."""
        keys = np.zeros(rows, np.uint64)
        count = self._on.table.clock[wave.slots, COUNT].astype(np.uint64)
        with np.errstate(over="ignore"):
            keys[: len(count)] = wave.salt.astype(np.uint64) ^ (count * np.uint64(0xD1342543DE82EF95))
        return keys

    def _surprise(self, wave: WaveBatch, before: dict[str, Tensor]) -> NDArray[np.float32]:
        """Surprise of each reading under what was predicted before it, [n]; NaN where nothing was."""
        on, config, n = self._on, self._on.config, len(wave.slots)
        score, known = np.full(n, np.nan, np.float32), wave.fold & (wave.length > 0)
        if not self._scored or not known.any():
            return score
        head = on.network.head
        mean, scale = on.answerer.predict_next(on.state(before), before.get("past"))
        if config.labels:
            symbol = torch.zeros(len(mean), device=on.device)
            symbol[:n] = torch.from_numpy(np.nan_to_num(wave.x[:, 0]) - len(SPECIALS)).to(on.device)
            known = known & (wave.x[:, 0] >= len(SPECIALS))
            nats = head.surprise(mean, scale, symbol)
        else:
            assert on.inputs is not None
            was, now = Scale.of(on.inputs, before["x"]), wave.x[:, on.inputs.target_index.cpu().numpy()]
            truth = torch.zeros_like(mean)
            truth[:n] = torch.from_numpy(now).to(on.device)
            nats = head.surprise(mean, scale, (truth - was.mean) / was.std - was.scaled_last).nanmean(dim=1)
        return np.where(known, np.minimum(nats[:n].cpu().numpy(), WORST_SCORE), score)
