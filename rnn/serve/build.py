"""The engine that serves a network: the fast one where it can. Imports what the engines import."""

from __future__ import annotations

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.adapt import Adaptation
from rnn.serve.engine import Engine
from rnn.serve.sequence_engine import SequenceEngine

AnyEngine = Engine | SequenceEngine


def engine_of(network: Network, slots: int, device: str = "cpu", adapt: Adaptation | None = None) -> AnyEngine:
    """An engine for up to `slots` streams, which adapts to each where asked.

    Raises ValueError for a device that torch does not have, no slots, or a network that cannot be adapted.
    """
    if adapt is not None:
        check_adaptable(network.config)
    if Engine.serves(network.config):
        return Engine(network, slots, device, adapt)
    return SequenceEngine(network, slots, device)


def check_adaptable(config: ModelConfig) -> None:
    """Raises ValueError for a network that cannot be adapted."""
    if not Engine.serves(config):
        raise ValueError(
            "adaptation is for networks that say the next reading's values at each reading (task many-to-many, "
            "predicts next, direction forward, head point or gaussian, no layer_norm, no max_length); this one does "
            "something else: switch adaptation off"
        )
