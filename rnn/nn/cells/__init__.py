"""Recurrent cells as the lecture writes them, each a thing of its own: equations, state, initialisation, serving form,
kernel of torch's, ONNX nodes. A new one is a file here, a line in `CELLS`, and its name in `rnn.config`.
"""

from __future__ import annotations

from rnn.nn.cells.cell import Cell, Graph, State
from rnn.nn.cells.elman import Elman
from rnn.nn.cells.gru import GRU
from rnn.nn.cells.inference import InferenceCell, padded
from rnn.nn.cells.lstm import LSTM
from rnn.nn.cells.min_gru import MinGRU

__all__ = ["CELLS", "GRU", "LSTM", "Cell", "Elman", "Graph", "InferenceCell", "MinGRU", "State", "padded"]

CELLS: dict[str, type[Cell]] = {"elman": Elman, "lstm": LSTM, "gru": GRU, "mingru": MinGRU}
"""The cell of each name that `ModelConfig.cell` may have."""
