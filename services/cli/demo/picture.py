"""The demo's picture: actual, prediction and band of one stream, and the latency of every prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.cli.demo.replay import Replay
from services.cli.demo.tally import Tally

WINDOW = 180  # steps shown on each side of the kill


def draw(path: Path, replay: Replay, tally: Tally, stream: int, killed_ms: int | None, feature: str, unit: str) -> None:
    """Writes a PNG. `stream` should be one of the killed actor's; `killed_ms` is the wall clock of the SIGKILL."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = np.arange(stream * replay.steps, (stream + 1) * replay.steps)
    middle = len(rows) // 2
    if killed_ms is not None:
        middle = int(np.searchsorted(replay.sent_ms[rows], killed_ms))
    shown = rows[max(1, middle - WINDOW) : middle + WINDOW]
    step = shown - rows[0]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 7), height_ratios=(2, 1), layout="constrained")

    before = shown - 1  # the prediction of a reading is made one reading earlier
    top.fill_between(step, tally.lo[before, 0], tally.hi[before, 0], color="#9ecae1", alpha=0.6, label="80 % band")
    top.plot(step, tally.y[before, 0], color="#2171b5", lw=1.4, label="prediction, one reading ahead")
    top.plot(step, replay.x[shown, 0], color="#222222", lw=1.0, label="actual")
    top.set(xlabel="reading of the stream", ylabel=f"{feature} [{unit}]")
    top.set_title(f"Stream {replay.names[stream].decode()}: its actor was killed, its memory was not")

    seconds = (replay.sent_ms - replay.sent_ms[replay.sent_ms > 0].min()) / 1000
    seen = tally.times > 0
    bottom.plot(seconds[seen], tally.latency_ms[seen], ".", ms=2, color="#6a51a3", rasterized=True)
    bottom.set(xlabel="time of the reading [s]", ylabel="Kafka to Kafka [ms]", yscale="log")
    bottom.set_title("Latency of every prediction")

    if killed_ms is not None:
        first_ms = replay.sent_ms[replay.sent_ms > 0].min()
        top.axvline(middle, color="#cb181d", ls="--", lw=1.2, label="kill -9")
        bottom.axvline((killed_ms - first_ms) / 1000, color="#cb181d", ls="--", lw=1.2)
    top.legend(loc="upper right", framealpha=0.9)
    for axis in (top, bottom):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
