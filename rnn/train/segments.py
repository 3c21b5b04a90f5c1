"""Examples cut into passages: runs of readings that share a state, with what the network sees and should say of each.

Features come from `rnn.nn.inputs.Inputs.advance`, reading after reading: the very code that serves. Imports torch and
numpy; knows no optimiser and no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rnn.config import SPECIALS, ModelConfig
from rnn.nn.network import Network
from rnn.train.dataset import LabeledSeries, begins


@dataclass(frozen=True, slots=True)
class Passage:
    """One sequence, or a part of a long one; the state before it is the initial one."""

    raw: Tensor  # [T, raw_width], see `Network.embed_inputs`
    truth: Tensor  # [T, steps, targets] in the head's units; class numbers [T, steps, 1]
    weight: Tensor  # as truth: 1 = counts, 0 = unknown, or not to be known
    past: Tensor | None  # [T, linear * features], what the linear path sees
    held: bool  # only judges

    def __len__(self) -> int:
        return len(self.raw)


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Passages side by side, the shorter ones followed by steps that do not count."""

    raw: Tensor  # [T, n, raw_width]
    lengths: Tensor  # [n]
    truth: Tensor  # [T, n, steps, targets]
    weight: Tensor
    past: Tensor | None  # [T, n, linear * features]

    def window(self, span: slice) -> TrainingBatch:
        """Some of the steps."""
        past = None if self.past is None else self.past[span]
        lengths = (self.lengths - (span.start or 0)).clamp(min=0)
        return TrainingBatch(self.raw[span], lengths, self.truth[span], self.weight[span], past)


def batch(passages: Sequence[Passage]) -> TrainingBatch:
    """Pads to the longest one."""
    pasts = [one.past for one in passages if one.past is not None]
    return TrainingBatch(
        pad_sequence([one.raw for one in passages]),
        torch.tensor([len(one) for one in passages]),
        pad_sequence([one.truth for one in passages]),
        pad_sequence([one.weight for one in passages]),
        pad_sequence(pasts) if pasts else None,
    )


def passages(
    network: Network, series: Sequence[LabeledSeries], held: Sequence[NDArray[np.bool_]], steps: int, burn_in: int
) -> list[Passage]:
    """All passages of the series, in their order; `held` [n] says of each reading whether it only judges.

    Streams are cut into lanes of about `steps` readings, where sequences begin if they do so in time; a sequence that
    is answered at its end stays whole. Of a passage that does not begin where its sequence does the first `burn_in`
    readings warm the state up and do not count.
    """
    config = network.config
    lanes = [lane for number, one in enumerate(series) for lane in _lanes(config, number, one, held[number], steps)]
    seen = _seen(network, series, lanes)
    made = []
    for (number, start, stop), raw in zip(lanes, seen, strict=True):
        one, fresh = series[number], set((begins(series[number].end[start:stop])[1:] + start).tolist())
        if start == 0 or one.end[start - 1]:
            fresh.add(start)
        cuts = sorted({start, *fresh})
        truths = _truths(network, one, start, stop, raw)
        for first, after in zip(cuts, [*cuts[1:], stop], strict=True):
            kept = after if not config.max_length else min(after, first + config.max_length)
            span = slice(first - start, kept - start)
            truth, weight = (part[span].clone() for part in truths)
            if kept < after:  # the sequence's own truth stands at its end
                truth[-1], weight[-1] = truths[0][after - start - 1], truths[1][after - start - 1]
            if first not in fresh:
                weight[: min(burn_in, len(weight) // 2)] = 0
            past = _past(config, raw[span]) if config.linear else None
            seen_here = raw[span, : network.raw_width]
            made.append(Passage(seen_here, truth, weight, past, bool(held[number][first])))
    return made


Lane = tuple[int, int, int]
"""Number of the series, first reading, the one after the last."""


def _lanes(config: ModelConfig, number: int, one: LabeledSeries, held: NDArray[np.bool_], steps: int) -> list[Lane]:
    starts = set(begins(one.end).tolist())
    forced = {*(np.flatnonzero(held[1:] != held[:-1]) + 1).tolist(), len(one)} - starts
    cuts, lane = [0], 0
    for at in sorted((starts | forced) - {0}):
        while not config.at_end and at - lane > 2 * steps:
            lane += steps
            cuts.append(lane)
        if at - lane >= steps or at in forced:
            cuts.append(at)
            lane = at
    return [(number, first, after) for first, after in pairwise(cuts)]


def _seen(network: Network, series: Sequence[LabeledSeries], lanes: Sequence[Lane]) -> list[Tensor]:
    """What `Network.embed_inputs` takes of every reading of each lane [T, raw_width]; lanes are read side by side."""
    xs = [torch.from_numpy(np.ascontiguousarray(series[number].x[start:stop])) for number, start, stop in lanes]
    if network.config.symbolic or not network.config.recurrent:
        return xs
    ats = [torch.from_numpy(np.ascontiguousarray(series[number].at_ms[start:stop])) for number, start, stop in lanes]
    inputs = network.inputs
    features = inputs.features
    order = sorted(range(len(lanes)), key=lambda k: -len(xs[k]))  # so that those still going on come first
    state, clock = inputs.initial(len(lanes))
    out = [torch.empty(len(x), inputs.outputs + 3 * features) for x in xs]
    x, at_ms = pad_sequence([xs[k] for k in order]), pad_sequence([ats[k] for k in order])
    lengths = np.array([len(xs[k]) for k in order])
    seen = torch.empty(len(x), len(lanes), inputs.outputs + 3 * features)
    for t in range(len(x)):
        live = int((lengths > t).sum())
        seen[t, :live] = torch.cat(inputs.advance(state[:live], clock[:live], x[t, :live], at_ms[t, :live]), dim=1)
    for place, k in enumerate(order):
        out[k] = seen[: len(xs[k]), place]
    return out


def _truths(network: Network, one: LabeledSeries, start: int, stop: int, raw: Tensor) -> tuple[Tensor, Tensor]:
    """(truth, weight) of each reading of a lane, [T, steps, targets] each."""
    config = network.config
    if config.residual:
        truth = _later(network, one, start, stop, raw)
    elif config.predicts == "next" and config.labels and not config.decodes:
        truth = _next_symbol(config, one, start, stop)
    elif config.labels and config.decodes:
        truth = _answers(config, torch.from_numpy(one.truth[start:stop]))
    else:
        truth = torch.from_numpy(_told(config, one)[start:stop])
        if config.targets:
            truth = truth.view(len(truth), config.horizon, -1)
            truth = (truth - network.target_mean) / network.target_std
        else:
            truth = truth.unsqueeze(2)
    known = ~truth.isnan()
    if config.at_end:
        known &= torch.from_numpy(one.end[start:stop] > 0).view(-1, 1, 1)
    return torch.where(known, truth, 0.0), known.to(torch.float32)


def _told(config: ModelConfig, one: LabeledSeries) -> NDArray[np.float32]:
    """Truth as it was given; where each reading is answered, but only a sequence's end is known, that of its end."""
    if config.task != "many-to-one" or config.at_end:
        return one.truth
    truth, starts = one.truth.copy(), begins(one.end)
    for first, after in zip(starts, [*starts[1:], len(one)], strict=True):
        if one.end[after - 1] and np.isnan(truth[first : after - 1]).all():
            truth[first : after - 1] = truth[after - 1]
    return truth


def _later(network: Network, one: LabeledSeries, start: int, stop: int, raw: Tensor) -> Tensor:
    """(x_{t+k} - mean_t) / std_t - scaled_last_t, k from 1 to the horizon; only within the lane and the sequence."""
    config, features = network.config, len(network.config.features)
    x = torch.from_numpy(one.x[start:stop])
    last, std, mean = raw[:, -3 * features :].chunk(3, dim=1)
    sequence = np.cumsum(np.concatenate(([0], one.end[start : stop - 1] > 0)))
    truth = torch.full((len(x), config.horizon, features), torch.nan)
    for k in range(1, min(config.horizon, len(x) - 1) + 1):
        same = torch.from_numpy(sequence[k:] == sequence[:-k]).unsqueeze(1)
        truth[:-k, k - 1] = torch.where(same, (x[k:] - mean[:-k]) / std[:-k] - last[:-k], torch.nan)
    truth[x.isnan().all(dim=1)] = torch.nan
    return truth[..., list(config.target_index)]


def _next_symbol(config: ModelConfig, one: LabeledSeries, start: int, stop: int) -> Tensor:
    """Class of the symbol after each reading, the last class where its sequence ends; NaN where it is none."""
    symbol = np.nan_to_num(one.x[start:stop, 0]) - len(SPECIALS)
    after = np.append(symbol[1:], -1.0)
    after[after < 0] = np.nan
    after[one.end[start:stop] > 0] = len(config.classes) - 1
    return torch.from_numpy(after.astype(np.float32)).view(-1, 1, 1)


def _answers(config: ModelConfig, given: Tensor) -> Tensor:
    """Class numbers [T, horizon] with the end behind them where there is room; all NaN where nothing was given."""
    length = (~given.isnan()).sum(dim=1)
    some = (length > 0) & (length < config.horizon)
    truth = given.clone()
    truth[some, length[some]] = len(config.classes) - 1
    return truth.unsqueeze(2)


def _past(config: ModelConfig, raw: Tensor) -> Tensor:
    """The latest `linear` scaled readings, the newest first; before a sequence begins there are zeros."""
    scaled = raw[:, : len(config.features)]
    before = torch.cat((scaled.new_zeros(config.linear - 1, scaled.shape[1]), scaled))
    return torch.cat([before[config.linear - 1 - k : len(before) - k] for k in range(config.linear)], dim=1)
