"""The whole network: input features -> stacked cells -> head, with the global scaler. Imports torch only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rnn.cells import CELLS, Cell, State
from rnn.config import ModelConfig
from rnn.heads import HEADS, Point
from rnn.inputs import Inputs


class Network(nn.Module):
    """Weights of one model. Its buffers scaler_mean and scaler_std [features] hold the global scaler (0 and 1 until
    training sets them); its layers feed each other: layer 0 sees `Inputs.advance`'s features, layer l the h of l - 1.
    """

    scaler_mean: Tensor
    scaler_std: Tensor
    head: Point  # or Gaussian, which extends it

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        features = len(config.features)
        self.register_buffer("scaler_mean", torch.zeros(features))
        self.register_buffer("scaler_std", torch.ones(features))
        cell = CELLS[config.cell]
        widths = [2 * features + 1] + [config.hidden] * config.layers
        self.layers = nn.ModuleList(cell(width, config.hidden) for width in widths[:-1])
        self.head = HEADS[config.head](config.hidden, len(config.targets))

    @property
    def cells(self) -> list[Cell]:
        """The layers, bottom first."""
        return [layer for layer in self.layers if isinstance(layer, Cell)]

    @property
    def inputs(self) -> Inputs:
        """The input side as the scaler buffers stand now; take it anew after they change."""
        return Inputs(self.config, self.scaler_mean, self.scaler_std)

    def initial_state(self, n: int, device: torch.device | str | None = None) -> tuple[State, ...]:
        """Zero state of n streams, a cell's state for each layer."""
        return tuple(cell.initial_state(n, device) for cell in self.cells)

    def unroll(
        self,
        feats: Tensor,
        state: Sequence[State] | None = None,
        reset: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, tuple[State, ...]]:
        """Runs all layers over time, with gradients.

        feats [T, n, inputs.outputs]; `state` as returned (None: zeros); reset [T, n] bool and lengths [n] as in
        `Cell.unroll`. Returns (h_top [T, n, hidden], state of each layer after each lane's last reading). The head
        takes h_top as it is: `mean, scale = network.head(h_top)`, residual and in scaled units.
        """
        if state is None:
            state = self.initial_state(feats.shape[1], feats.device)
        after: list[State] = []
        ys = feats
        for cell, before in zip(self.cells, state, strict=True):
            ys, end = cell.unroll(ys, before, lengths, reset)
            after.append(end)
        return ys, tuple(after)
