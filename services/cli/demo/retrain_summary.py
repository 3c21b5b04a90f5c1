"""What came of it: errors before the change, after it and after the promotion, and whether all can be said again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.cli.demo.bit_check import ChallengerStart, again
from services.cli.demo.errors import Errors
from services.cli.demo.replay import Replay
from services.cli.demo.retrain_picture import Curves, Marks, draw
from services.cli.demo.story import Story
from services.cli.demo.tally import Tally

RISEN = 1.2
"""Error over what it was, from which on it has risen."""
OLD, NEW = 0, 1
"""Places in `Tally.models`: the champion, and the one that takes over."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Of one run."""

    summary: dict[str, Any]
    curves: Curves
    marks: Marks

    @property
    def good(self) -> bool:
        """Whether it went as it should."""
        told = self.summary
        happened = told["drift_detected"] and told["retrained"] and told["promoted"] and told["replay_identical"]
        complete = not told["lost"] and not told["doubled"] and not told["out_of_order"]
        before, drifted, after = (told[f"mse_{part}"] for part in ("before", "drifted", "after"))
        return bool(happened and complete and drifted > RISEN * before and after < drifted / RISEN)

    def draw(self, path: Path) -> None:
        """Writes the picture."""
        draw(path, self.curves, self.marks)


def judged(
    console: Any,
    settings: Any,
    replay: Replay,
    tally: Tally,
    story: Story,
    challenger_start: ChallengerStart,
    scale: NDArray[np.float32],
    changed: NDArray[np.bool_],
) -> DemoResult:
    """Reads what the topics hold, and unrolls both models offline. `scale` [rows, features] is what errors are measured
    in, `changed` [rows] says which readings have the new unit.
    """
    marks = _marks(replay, story, changed)
    served = Errors(replay, scale, tally.y)
    naive = Errors(replay, scale, replay.x)
    console.print("unrolling both models offline over the same readings ...", highlight=False)
    said_by = np.roll(tally.model, 1)  # [rows], of the forecast about that reading
    rows = {
        "before": (said_by == OLD) & ~changed,
        "drifted": (said_by == OLD) & changed,
        "after": said_by == NEW,
    }
    models = _folders(settings, tally)
    first = np.zeros(replay.streams, np.int64)
    old = again(models[OLD], replay, first) if models else None
    new = again(models[NEW], replay, challenger_start.first(replay, tally)) if models[1:] else None
    by = [np.flatnonzero(tally.model == place) for place in (OLD, NEW)]
    same = [0 if one is None else one.same(tally, mine) for one, mine in zip((old, new), by, strict=True)]
    beside = None if old is None else Errors(replay, scale, old.y)
    shadow = None if new is None else Errors(replay, scale, new.y)
    summary: dict[str, Any] = {
        "drift_detected": marks.drift_s is not None,
        "retrained": marks.retrained_s is not None,
        "promoted": marks.promoted_s is not None and bool(len(by[NEW])),
        **{f"mse_{part}": _rounded(served.mse(rows[part])) for part in rows},
        "lost": tally.lost,
        "doubled": tally.doubled,
        "replay_identical": bool(same[OLD] == len(by[OLD]) > 0 and same[NEW] == len(by[NEW]) > 0),
        "out_of_order": tally.disorder,
        "readings": int((replay.sent_ms > 0).sum()),
        "predictions": tally.predictions,
        "replayed": sum(same),
        **{f"persistence_{part}": _rounded(naive.mse(rows[part])) for part in rows},
        "mse_after_of_the_old_model": None if beside is None else _rounded(beside.mse(rows["after"])),
        "retrained_s": None if marks.retraining_s is None or marks.retrained_s is None
        else round(marks.retrained_s - marks.retraining_s, 1),
    }  # fmt: skip
    return DemoResult(summary, _curves(replay, served, naive, beside, shadow, rows), marks)


def _folders(settings: Any, tally: Tally) -> list[Path]:
    from services.registry import Registry

    registry = Registry(settings.registry)
    return [registry.folder(model) for model in tally.models[: NEW + 1]]


def _marks(replay: Replay, story: Story, changed: NDArray[np.bool_]) -> Marks:
    sent = replay.sent_ms > 0
    begun_ms = int(replay.sent_ms[sent].min())
    some = sent & changed
    change_ms = int(replay.sent_ms[some].min()) if some.any() else None

    def since_s(event: str, after_ms: int | None, **fields: Any) -> float | None:
        moment = None if after_ms is None else story.first(event, after_ms, **fields)
        return None if moment is None else (moment.at_ms - begun_ms) / 1000

    return Marks(
        change_s=None if change_ms is None else (change_ms - begun_ms) / 1000,
        drift_s=since_s("drift", change_ms),
        retraining_s=since_s("retraining", change_ms),
        retrained_s=since_s("retrained", change_ms, end="trained"),
        promoted_s=since_s("verdict", change_ms, outcome="promoted"),
    )


def _curves(
    replay: Replay, served: Errors, naive: Errors, beside: Errors | None, shadow: Errors | None, rows: Any
) -> Curves:
    sent = replay.sent_ms > 0
    second = np.full(len(replay.sent_ms), -1, np.int64)
    second[sent] = (replay.sent_ms[sent] - replay.sent_ms[sent].min()) // 1000
    bins = int(second.max()) + 1
    by_new = rows["after"]
    return Curves(
        second=np.arange(bins, dtype=np.float64) + 0.5,
        served=served.curve(second, bins),
        persistence=naive.curve(second, bins),
        old=None if beside is None else beside.curve(np.where(by_new, second, -1), bins),
        shadow=None if shadow is None else shadow.curve(np.where(by_new, -1, second), bins),
    )


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


def print_summary(console: Any, result: DemoResult, picture: Path) -> None:
    """A small table."""
    told = result.summary
    complete = not told["lost"] and not told["doubled"] and not told["out_of_order"]
    table = (
        (
            "error before",
            told["mse_before"],
            f"persistence {told['persistence_before']} (mean squared, z-scored)",
            True,
        ),
        ("after the change", told["mse_drifted"], f"persistence {told['persistence_drifted']}", True),
        (
            "promoted",
            told["mse_after"],
            f"persistence {told['persistence_after']}; that of the old model {told['mse_after_of_the_old_model']}",
            told["promoted"],
        ),
        (
            "predictions",
            f"{told['predictions']:,}",
            f"lost {told['lost']}, doubled {told['doubled']}, out of order {told['out_of_order']}",
            complete,
        ),
        (
            "made again",
            f"{told['replayed']:,}",
            "predictions, offline, bit for bit" if told["replay_identical"] else "only, with the same bits",
            told["replay_identical"],
        ),
    )
    console.rule("what happened")
    for name, number, comment, fine in table:
        console.print(f"{name:<17} {number!s:>10}   {comment}", style=None if fine else "bold red", highlight=False,
                      soft_wrap=True)  # fmt: skip
    console.print(f"{'picture':<17} {picture}", highlight=False)
