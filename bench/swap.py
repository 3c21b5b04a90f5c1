"""What it costs that models change under live traffic: LSTM(64), 7 features, up to 100,000 streams.

    python -m bench.swap

One process and the shard's own loop, over readings that lie ready in memory and a sink that keeps nothing: what is
measured is ours, and shares of a turn are greater than they are on Kafka. Shards that are compared take turns, turn by
turn, and their lower quartiles are compared, so that other work on the machine meets all and counts little. The last
line is one JSON object.
"""

from __future__ import annotations

import gc
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.loop import Sender, Served, models
from bench.stage import FEATURES
from services.predictor.deployed_models import DeployedModel

STREAMS = 100_000
LIVE, BACKLOG = 1_000, 10_000  # readings of a poll: one of each of so many streams, or ten
RECENT = 16
SHARE = 0.5  # rollout.shadow's default
SWAPS, CHALLENGERS = 200, 10
TURNS, WARM_TURNS = {LIVE: 100, BACKLOG: 25}, 5  # by readings of a turn; before them

Progress = Callable[[float, str], None]


def compared(folder: Path, n: int, progress: Progress) -> dict[str, float]:
    """Five shards, turn by turn, n readings of 1,000 streams each: one that remembers no readings and counts no
    outcomes, one that only remembers, the ordinary one, one with a challenger on trial that follows half of the
    streams, and one whose challenger follows all. us a reading, and ratios.
    """
    one, other = models(folder, 2)
    sides = {
        "bare": Served(one, LIVE, 0),
        "recent": Served(one, LIVE, RECENT),
        "alone": Served(one, LIVE, RECENT),
        "shadow": Served(one, LIVE, RECENT, other, share=SHARE),
        "joined": Served(one, LIVE, RECENT, other),
    }
    for name in ("bare", "recent"):
        sides[name].shard.outcomes.watches = False
    sender = Sender(LIVE)
    turn_s: dict[str, list[float]] = {name: [] for name in sides}
    step_s: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-WARM_TURNS, TURNS[n]):
        polled = sender.poll(n)
        for name, side in sides.items():
            before = side.phase_s("batch", "forward")
            taken = side.turn(polled)
            if turn >= 0:
                turn_s[name].append(taken)
                step_s[name].append(side.phase_s("batch", "forward") - before)
        progress(max(0, turn) / TURNS[n], f"five shards, {n:,} readings a turn")
    step, turns = ({name: float(np.quantile(each, 0.25)) for name, each in by.items()} for by in (step_s, turn_s))
    found = {f"step_us_{name}": round(s / n * 1e6, 2) for name, s in step.items()}
    found |= {f"turn_us_{name}": round(s / n * 1e6, 2) for name, s in turns.items()}
    found |= {f"row_bytes_{name}": side.world.row_bytes for name, side in sides.items() if name != "recent"}
    ratios = {
        "shadow_vs_step": step["shadow"] / step["alone"],
        "shadow_vs_turn": turns["shadow"] / turns["alone"],
        "joined_vs_step": step["joined"] / step["alone"],
        "joined_vs_turn": turns["joined"] / turns["alone"],
        "outcomes_vs_turn": turns["alone"] / turns["recent"],
        "recent_vs_turn": turns["recent"] / turns["bare"],
    }
    return found | {name: round(ratio, 3) for name, ratio in ratios.items()}


def swapped(folder: Path, progress: Progress) -> dict[str, float]:
    """100,000 live streams. Pauses for a change of places; gaps between turns while challengers are built and deployed;
    streams brought over to a model that knows none of them.
    """
    one, other, third = models(folder, 3)
    served, sender = Served(one, STREAMS, RECENT, other), Sender(STREAMS)
    for turn in range(STREAMS // BACKLOG):
        served.turn(sender.poll(BACKLOG))
        progress(0.5 * turn / STREAMS * BACKLOG, f"{STREAMS:,} streams come")
    running = served.shard.models
    if running.challenger is None or not running.challenger.held.all() or running.recent is None:
        raise ValueError(f"the challenger does not know all of {STREAMS} streams")
    everyone, random = np.arange(STREAMS), np.random.default_rng(0)
    for _ in range(RECENT):  # only remembered, not stepped
        x = random.normal(size=(STREAMS, len(FEATURES))).astype(np.float32)
        running.recent.fold(everyone, everyone * 0, x, everyone, np.zeros(STREAMS, np.uint8))
    pause_s, usual_s, after_s = [], [], []
    for swap in range(SWAPS):
        usual_s.append(served.turn(sender.poll(LIVE)))
        began = time.perf_counter()
        served.shard.deploy(running.challenger, running.champion)
        pause_s.append(time.perf_counter() - began)
        after_s.append(served.turn(sender.poll(LIVE)))
        progress(0.5 + 0.2 * swap / SWAPS, "champion and challenger change places")
    gap_s, built_s = _built_beside(served, sender, third, progress)
    served.shard.deploy(served.deployed(third), None)
    before = running.warmed
    bring_s = []
    for turn in range(STREAMS // LIVE):
        bring_s.append(served.turn(sender.poll(LIVE)))
        progress(0.9 + 0.1 * turn / STREAMS * LIVE, "streams are brought over")
    if running.warmed - before != STREAMS:
        raise ValueError(f"{running.warmed - before} streams were brought over, not {STREAMS}")
    known_s = [served.turn(sender.poll(LIVE)) for _ in range(50)]
    bring, known = np.median(bring_s), np.median(known_s)
    found = {
        "swap_pause_ms_p50": np.quantile(pause_s, 0.5),
        "swap_pause_ms_p99": np.quantile(pause_s, 0.99),
        "swap_pause_ms_max": max(pause_s),
        "turn_ms": np.median(usual_s),
        "turn_ms_after_swap": np.median(after_s),
        "build_ms": np.median(built_s),
        "swap_gap_ms_p50": np.quantile(gap_s, 0.5),
        "swap_gap_ms_p99": np.quantile(gap_s, 0.99),
        "swap_gap_ms_max": max(gap_s),
        "bring_over_turn_ms": bring,
        "known_turn_ms": known,
    }
    in_ms = {name: round(float(seconds) * 1e3, 3) for name, seconds in found.items()}
    return in_ms | {"brought_over_per_s": round(LIVE / float(bring - known))}


def _built_beside(served: Served, sender: Sender, model: Path, progress: Progress) -> tuple[list[float], list[float]]:
    """Seconds from turn to turn while a challenger is loaded in another thread, deployed and steps its first batches;
    seconds that the loading took.
    """
    gaps_s: list[float] = []
    built_s: list[float] = []
    polls = [sender.poll(LIVE) for _ in range(32)]
    for challenger in range(CHALLENGERS):
        progress(0.7 + 0.2 * challenger / CHALLENGERS, "challengers are built beside the loop")
        made: list[DeployedModel] = []

        def build(made: list[DeployedModel] = made) -> None:
            began = time.perf_counter()
            made.append(served.deployed(model))
            built_s.append(time.perf_counter() - began)

        thread = threading.Thread(target=build)
        thread.start()
        begins, left = [time.perf_counter()], 10  # turns with the new challenger
        while left:
            if made and served.shard.models.challenger is not made[0]:
                served.shard.deploy(served.shard.models.champion, made[0])
            left -= bool(made)
            if not polls:
                polls = [sender.poll(LIVE) for _ in range(32)]
                begins.append(np.nan)
                begins.append(time.perf_counter())
            served.turn(polls.pop())
            begins.append(time.perf_counter())
        thread.join()
        between = np.diff(begins)
        gaps_s += between[np.isfinite(between)].tolist()
        served.shard.deploy(served.shard.models.champion, None)
    return gaps_s, built_s


def measure(progress: Progress) -> dict[str, Any]:
    """The numbers that are quoted, and all others by turn's shape."""
    import torch

    torch.set_num_threads(1)
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="streamrnn-bench-") as work:
        live, backlog = (compared(Path(work), n, progress) for n in (LIVE, BACKLOG))
        swap = swapped(Path(work), progress)
    quoted = {name: live[name] for name in ("shadow_vs_step", "outcomes_vs_turn")}
    quoted |= {name: swap[name] for name in ("swap_pause_ms_p99", "swap_gap_ms_max", "brought_over_per_s")}
    return {**quoted, "live": live, "backlog": backlog, "swap": swap}


if __name__ == "__main__":
    print(json.dumps(measure(lambda share, text: None)))
