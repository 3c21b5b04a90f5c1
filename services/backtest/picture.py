"""What was said and what came: one panel a target, the last readings of a run. Imports matplotlib when it draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.backtest.scores import StreamForecasts

SHOWN = 300  # readings, the last ones
PANELS = 6  # targets, the first ones


def draw(run: StreamForecasts, targets: Sequence[str], path: Path) -> None:
    """Writes a PNG; the values are z-scores."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(targets)[:PANELS]
    figure, axes = plt.subplots(
        len(names), 1, figsize=(11, 2 + 1.8 * len(names)), sharex=True, squeeze=False, layout="constrained"
    )
    step = np.arange(max(0, len(run.truth) - SHOWN), len(run.truth))
    for k, (name, axis) in enumerate(zip(names, axes[:, 0], strict=True)):
        if run.lo is not None and run.hi is not None:
            axis.fill_between(step, run.lo[step, k], run.hi[step, k], alpha=0.25, label="80 % band", linewidth=0)
        axis.plot(step, run.truth[step, k], color="black", linewidth=0.9, label="reading")
        axis.plot(step, run.y[step, k], linewidth=0.9, label="prediction, one reading earlier")
        axis.set_ylabel(f"{name}\n(z-score)")
    axes[0, 0].legend(loc="upper left", ncols=3, frameon=False)
    axes[-1, 0].set_xlabel("reading of the held-back part")
    figure.savefig(path, dpi=110)
    plt.close(figure)
