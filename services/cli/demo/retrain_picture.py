"""The picture of `streamrnn demo-retrain`: the error of what was served, second by second, and what happened when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Curves:
    """Mean squared errors, z-scored, of each second; NaN = none."""

    second: NDArray[np.float64]  # [bins]
    served: NDArray[np.float64]  # [bins]
    persistence: NDArray[np.float64]  # [bins]
    old: NDArray[np.float64] | None  # [bins], what the champion before would have had, offline
    shadow: NDArray[np.float64] | None  # [bins], what the challenger had in shadow, offline


@dataclass(frozen=True, slots=True)
class Marks:
    """Seconds since the first reading; None = it did not happen."""

    change_s: float | None
    drift_s: float | None
    retraining_s: float | None
    retrained_s: float | None
    promoted_s: float | None


def draw(path: Path, curves: Curves, marks: Marks) -> None:
    """Writes a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    figure, axis = plt.subplots(figsize=(11, 5.2), layout="constrained")
    axis.plot(curves.second, curves.persistence, color="#969696", lw=1.2, label="persistence")
    if curves.old is not None:
        axis.plot(curves.second, curves.old, color="#cb181d", lw=1.2, ls=":", label="the old model, had it stayed")
    if curves.shadow is not None:
        axis.plot(curves.second, curves.shadow, color="#238b45", lw=1.2, ls="--", label="the challenger, in shadow")
    axis.plot(curves.second, curves.served, color="#2171b5", lw=1.8, label="what was served")
    axis.set(yscale="log", xlabel="time since the first reading [s]", ylabel="mean squared error, z-scored")
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_title("A sensor's unit changes; the server retrains, tries the new model in shadow, and promotes it")
    axis.set_ylim(bottom=0.5 * float(np.nanmin([curves.served, curves.persistence])))  # room for words
    axis.set_xlim(0, float(curves.second[-1]) + 0.5)
    for begin_s, end_s, color, dark, text in (
        (marks.drift_s, marks.retraining_s, None, "#525252", "readings of the\nnew kind gather"),
        (marks.retraining_s, marks.retrained_s, "#fdae6b", "#a63603", "retraining,\n2 workers of Ray Train"),
        (marks.retrained_s, marks.promoted_s, "#74c476", "#006d2c", "in\nshadow"),
    ):
        if begin_s is None or end_s is None:
            continue
        if color is not None:
            axis.axvspan(begin_s, end_s, color=color, alpha=0.25, lw=0)
        axis.text((begin_s + end_s) / 2, 0.02, text, transform=axis.get_xaxis_transform(),
                  ha="center", va="bottom", fontsize=9, color=dark)  # fmt: skip
    labels = (
        (marks.change_s, "kW becomes W", "#cb181d", "right"),
        (marks.drift_s, "drift detected", "#e6550d", "left"),
        (marks.promoted_s, "promoted", "#238b45", "left"),
    )
    for at_s, text, color, side in labels:
        if at_s is not None:
            axis.axvline(at_s, color=color, ls="--", lw=1.2)
            axis.text(at_s, 0.97, f" {text} ", transform=axis.get_xaxis_transform(), color=color, va="top", ha=side)
    axis.legend(loc="center right", framealpha=0.9)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
