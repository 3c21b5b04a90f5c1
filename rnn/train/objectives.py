"""What a batch of passages costs a network of its shape, and what decides between epochs. Imports torch.

Symbol decoders are told the true answer so far (teacher forcing, Williams and Zipser 1989); decoders of real values run
free, as they do online. Steps without a truth weigh nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rnn.nn.heads import Gaussian, Student, surprise, weighted
from rnn.nn.network import Network, States
from rnn.train import unroll
from rnn.train.segments import TrainingBatch


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What the head said beside what was true; only what may count. Leading axes are flat."""

    mean: Tensor  # [m, steps, targets] or logits [m, steps, classes]
    scale: Tensor | None
    h: Tensor | None  # [m, steps, hidden] behind them; None where the decoder ran free
    truth: Tensor  # [m, steps, targets] or class numbers [m, steps, 1]
    weight: Tensor  # as truth


def forward_batch(
    network: Network, batch: TrainingBatch, state: States | None, stride: int, shift: int = 0
) -> tuple[ModelOutput | None, States | None]:
    """(what is said of a batch, None where nothing in it counts; the state after its last step, without gradients).

    A decoder that answers each reading is asked after every `stride`-th one only, `shift` readings earlier.
    """
    config = network.config
    if not config.recurrent:
        return _static(network, batch), None
    feats = network.embed_inputs(batch.raw)
    if config.direction != "forward":
        return _pick(network, unroll.both_ways(network, feats, batch.lengths, shift), batch), None
    if config.decodes and config.labels and config.at_end:
        _, state = unroll.unroll(network, feats, None, batch.lengths)
        n = torch.arange(feats.shape[1])
        last = batch.lengths - 1
        return _decode_teacher_forced(network, state, batch.truth[last, n], batch.weight[last, n]), None
    if config.decodes:
        return _strided(network, batch, feats, state, stride, shift)
    h, state = unroll.unroll(network, feats, state)
    return _pick(network, h, batch), _detached(state)


def loss(network: Network, said: ModelOutput, class_weight: Tensor | None = None) -> Tensor:
    """What training lessens, a scalar. A Gaussian's mean and all below it learn from squared error alone, and its scale
    how wide the error is, without a say in what the mean becomes; see `rnn.train.fit`. class_weight [classes].
    """
    weight = said.weight
    if network.config.labels:
        truth = said.truth.squeeze(-1)
        weight = weight.squeeze(-1)
        if class_weight is not None:
            weight = weight * class_weight[truth.long()]
        return network.head.loss(said.mean, None, truth, weight)
    if isinstance(network.head, Gaussian) and not isinstance(network.head, Student) and said.h is not None:
        _, scale = network.head(said.h.detach())
        squares = weighted((said.mean - said.truth).square(), weight)
        return squares + weighted(surprise(said.mean.detach(), scale, said.truth), weight)
    return network.head.loss(said.mean, said.scale, said.truth, weight)


def evaluate_batch(network: Network, said: ModelOutput) -> tuple[float, float, float]:
    """(sum of what epochs are compared by, how many values it is of, how many of those classes were right): nats of
    classes, else squared error in scaled units. The third is 0 for real values.
    """
    count = float(said.weight.sum())
    if network.config.labels:
        truth, weight = said.truth.squeeze(-1), said.weight.squeeze(-1)
        nats = (network.head.surprise(said.mean, None, truth) * weight).sum()
        return float(nats), count, float(((said.mean.argmax(-1) == truth) * weight).sum())
    return float(((said.mean - said.truth).square() * said.weight).sum()), count, 0.0


def _pick(network: Network, h: Tensor, batch: TrainingBatch) -> ModelOutput | None:
    """The steps [T, n] that count; the head is asked of no other."""
    at = batch.weight.flatten(2).sum(dim=2).nonzero(as_tuple=True)
    if not len(at[0]):
        return None
    h = functional.dropout(h[at].unsqueeze(1), network.config.dropout, network.training)
    mean, scale = network.head(h)
    if network.linear_path is not None and batch.past is not None:
        mean = mean + network.linear_path(batch.past[at]).unsqueeze(1)
    return ModelOutput(mean, scale, h, batch.truth[at], batch.weight[at])


def _static(network: Network, batch: TrainingBatch) -> ModelOutput | None:
    feats, truth, weight = network.embed_inputs(batch.raw)[0], batch.truth[0], batch.weight[0]
    if not bool(weight.any()):
        return None
    if not network.config.decodes:
        h = network(feats).unsqueeze(1)
        mean, scale = network.head(h)
        return ModelOutput(mean, scale, h, truth, weight)
    state = network.init_decoder(feats)
    decode = _decode_teacher_forced if network.config.labels else _rollout
    return decode(network, state, truth, weight)


def _strided(
    network: Network, batch: TrainingBatch, feats: Tensor, state: States | None, stride: int, shift: int
) -> tuple[ModelOutput | None, States]:
    """The encoder goes on from stop to stop; at each one a decoder sets out from its state."""
    steps = len(feats)
    stops = list(range(stride - 1 - shift % stride, steps, stride))
    states, at = [], 0
    for stop in stops:
        _, state = unroll.unroll(network, feats[at : stop + 1], state)
        states.append(state)
        at = stop + 1
    if at < steps:
        _, state = unroll.unroll(network, feats[at:], state)
    assert state is not None
    if not stops:
        return None, _detached(state)
    lanes = batch.weight[stops].flatten(2).sum(dim=2).reshape(-1).nonzero().squeeze(1)  # [m], of stops x lanes
    if not len(lanes):
        return None, _detached(state)
    layers, parts = range(len(state)), range(len(state[0]))
    begun = tuple(tuple(torch.cat([s[layer][part] for s in states])[lanes] for part in parts) for layer in layers)
    truth, weight = (part[stops].flatten(0, 1)[lanes] for part in (batch.truth, batch.weight))
    if network.config.labels:
        return _decode_teacher_forced(network, begun, truth, weight), _detached(state)
    past = None if batch.past is None else batch.past[stops].flatten(0, 1)[lanes]
    return _rollout(network, begun, truth, weight, past), _detached(state)


def _decode_teacher_forced(network: Network, state: States, truth: Tensor, weight: Tensor) -> ModelOutput | None:
    """Symbols, each told the true one before it. truth [m, horizon, 1]"""
    longest = int(weight.sum(dim=(1, 2)).max())
    if not longest:
        return None
    classes = truth[:, :longest, 0].long()
    nothing = classes.new_full((len(classes), 1), -1)
    said = torch.cat((nothing, classes[:, :-1]), dim=1).t()
    h = unroll.decode(network, said, state).transpose(0, 1)
    h = functional.dropout(h, network.config.dropout, network.training)
    mean, scale = network.head(h)
    return ModelOutput(mean, scale, h, truth[:, :longest], weight[:, :longest])


def _rollout(network: Network, state: States, truth: Tensor, weight: Tensor, past: Tensor | None = None) -> ModelOutput:
    mean, scale = network.rollout(state)
    if network.linear_path is not None and past is not None:
        mean = torch.cat((mean[:, :1] + network.linear_path(past).unsqueeze(1), mean[:, 1:]), dim=1)
    return ModelOutput(mean, scale, None, truth, weight)


def _detached(state: States) -> States:
    return tuple(tuple(part.detach() for part in layer) for layer in state)
