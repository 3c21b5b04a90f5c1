"""A learning curve as a picture. Imports matplotlib when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rnn.train.course import Pass


def draw_curve(passes: Sequence[Pass], nats: bool, path: Path) -> None:
    """Losses over the passes, as a PNG; `nats` says what they are."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    number = [one.number for one in passes]
    axis.plot(number, [one.train_loss for one in passes], label="learned from")
    axis.plot(number, [one.validation_loss for one in passes], label="held back")
    axis.axhline(passes[-1].baseline_loss, color="gray", linewidth=0.8, linestyle="--", label="knowing nothing")
    best = [one for one in passes if one.kept][-1]
    axis.plot([best.number], [best.validation_loss], "o", color="black", label="kept")
    axis.set_xlabel("pass over the table")
    axis.set_ylabel("cross-entropy, nats" if nats else "mean squared error, scaled")
    axis.set_yscale("log")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
