"""The engine that serves a network: the fast one where it can. Imports what the engines import."""

from __future__ import annotations

from rnn.engine import Engine
from rnn.network import Network
from rnn.sequences import SequenceEngine

AnyEngine = Engine | SequenceEngine


def engine_of(network: Network, slots: int, device: str = "cpu") -> AnyEngine:
    """An engine for up to `slots` streams. Raises ValueError for a device that torch does not have, or no slots."""
    return (Engine if Engine.serves(network.config) else SequenceEngine)(network, slots, device)
