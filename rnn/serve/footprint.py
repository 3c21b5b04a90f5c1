"""What a model will take of memory, told by its card: before a byte of its weights is read. Imports torch.

An upper bound that is near: tests hold it against what engines really take. What grows with the streams that are known
(the state store) is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rnn.io.card import Card
from rnn.io.weights import skeleton
from rnn.nn import clock as clocks
from rnn.nn.cells import padded
from rnn.nn.network import Network
from rnn.serve.adapt import Adaptation, correction_width
from rnn.serve.engine import Engine, chunk_rows
from rnn.serve.network_runner import HELD
from rnn.serve.state_table import room_of
from rnn.serve.waves import BULK_ROWS, bucket

FLOAT, INT = 4, 8
COPIES = 4
"""Of the weights, at most: the network, its serving form, the one that checks it, and what is rearranged for that. On a
GPU the last three are there, and on the host the file's bytes and its tensors."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes at the moment when it is most, of one engine with its model."""

    weights: int  # of the model's file
    table: int  # of all slots
    scratch: int
    host: int
    gpu: int  # 0 where it is served on the CPU


def weights_bytes(card: Card) -> int:
    """Of the tensors that the card's config asks for. Raises ModelRefused as `weights.skeleton`."""
    count: int = sum(tensor.numel() for tensor in skeleton(card).state_dict().values())
    return FLOAT * count


def footprint(card: Card, slots: int, device: str, adapt: Adaptation | None = None, rows: int = 10_000) -> Footprint:
    """Of the card's model with `slots` streams on `device`, stepping up to `rows` readings at a time. Raises
    ModelRefused as `weights.skeleton`.
    """
    network, config, weights = skeleton(card), card.config, weights_bytes(card)
    if "scaler_mean" in dict(
        network.named_buffers()
    ):  # few; and sums of tensors without numbers import torch's compiler
        network.scaler_mean, network.scaler_std = (torch.ones(len(config.features)) for _ in range(2))
    with torch.device("meta"):
        parts = {name: len(row) for name, row in network.state_parts().items()}
    clock = len(clocks.INITIAL)
    if Engine.serves(config):
        if adapt is not None:
            parts["correction"] = correction_width(adapt, config.hidden, len(config.targets))
        sums = network.cells[0].GATES * padded(config.hidden)
        rows = min(rows, chunk_rows(sums, 2 * parts.get("correction", 0), device.partition(":")[0]))
    else:
        clock += HELD - len(clocks.INITIAL) + 3 * (config.lag + 1) * (config.direction != "forward")
    table = (slots + 1) * FLOAT * sum(room_of(name, width) for name, width in parts.items())
    clocks_bytes = (slots + 1) * INT * clock
    scratch = FLOAT * bucket(rows, BULK_ROWS) * _scratch_floats(network, parts)
    gpu = device.startswith("cuda")
    return Footprint(
        weights,
        table + clocks_bytes,
        scratch,
        clocks_bytes + 2 * weights if gpu else clocks_bytes + table + scratch + COPIES * weights,
        table + scratch + (COPIES - 1) * weights if gpu else 0,
    )


def _scratch_floats(network: Network, parts: dict[str, int]) -> int:
    """Of one reading: its states before and after, its sums, what is said of it."""
    config = network.config
    gates = max((cell.GATES for cell in network.cells), default=4)
    said = config.horizon * max(len(config.classes), 3 * len(config.targets))
    states, backward = sum(parts.values()), config.direction != "forward"
    decoded = config.horizon * 5 * config.hidden // 2 if config.decodes else 0
    return decoded + 3 * states + 2 * gates * padded(config.hidden) * (1 + backward) + 4 * said + 4 * network.raw_width
