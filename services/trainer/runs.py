"""A run's folder: what was to be trained, what happened, and what came of it. Imports the standard library only.

runs/20261125-221530-3fa9c1/
    config.json         the model's config, the recipe, the range of readings, the split
    events.jsonl        one JSON object an event: that it begins, each pass, each worker that is there, the end
    learning-curve.png
    report.json         scores; see services.trainer.report
    model/              card, weights, and the two above again
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG, LOG, REPORT, CURVE, MODEL = "config.json", "events.jsonl", "report.json", "learning-curve.png", "model"


@dataclass(frozen=True, slots=True)
class Run:
    """One training's folder, which exists."""

    id: str
    folder: Path
    resumed: bool = False

    @property
    def model(self) -> Path:
        """Where its model is saved."""
        return self.folder / MODEL

    @property
    def checkpoint(self) -> Path:
        """Where a training in this process stands."""
        return self.folder / "standing"

    @property
    def storage(self) -> Path:
        """Where Ray Train keeps its checkpoints."""
        return self.folder / "ray"

    def tell(self, event: str, **fields: Any) -> None:
        """Adds a line to the log."""
        line = json.dumps({"at_ms": time.time_ns() // 1_000_000, "event": event, **fields})
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write(self, name: str, tree: Mapping[str, Any]) -> Path:
        """A JSON file in the folder, which appears whole."""
        return write_json(self.folder / name, tree)


def write_json(path: Path, tree: Mapping[str, Any]) -> Path:
    """Replaces `path` in one rename. Raises ValueError for numbers that are not finite."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(tree, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    fresh.replace(path)
    return path


def open_run(runs: Path, identity: str, config: Mapping[str, Any], resume: bool = False) -> Run:
    """A new folder in `runs`; or, to resume, the latest one of the same work that came to no end. Raises OSError."""
    if resume:
        for folder in sorted(runs.glob(f"*-{identity[:6]}*"), reverse=True):
            if not (folder / REPORT).exists() and _config(folder).get("identity") == identity:
                run = Run(folder.name, folder, resumed=True)
                run.tell("resumed")
                return run
    stem = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{identity[:6]}"
    for number in range(1, 1000):
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        run = Run(folder.name, folder)
        run.write(CONFIG, {"run": run.id, "identity": identity, **config})
        return run
    raise FileExistsError(f"{runs} has a thousand runs of this second")


def latest_pass(runs: Path, since_ms: int) -> dict[str, Any]:
    """The newest pass, a `Pass` as a tree, of the run in `runs` that began last; empty where none has begun since then,
    or its folder is another machine's.
    """
    for folder in sorted(runs.glob("*-*"), reverse=True)[:1]:
        try:
            told = [json.loads(line) for line in (folder / LOG).read_text("utf-8").splitlines()]
        except (OSError, ValueError):  # none yet, or a line that is only half there
            return {}
        passes = [one for one in told if one.get("event") == "pass" and one.get("at_ms", 0) >= since_ms]
        return passes[-1] if passes else {}
    return {}


def nothing_to_resume(runs: Path, run: Run, source: Mapping[str, Any] | None = None) -> str:
    """Why `run` begins anew, though one was to go on; of a topic's `source`, as a run's config has it, also which run
    could go on, and how to ask for its range.
    """
    said = f"nothing to resume in {runs}: training from the beginning"
    if source is None:
        return said
    mine = _spans(source)
    for folder in sorted(runs.glob("*"), reverse=True):
        other = _config(folder).get("source")
        if folder.name == run.id or (folder / REPORT).exists() or not isinstance(other, dict):
            continue
        if other.get("topic") != source["topic"] or not (spans := _spans(other)):
            continue
        if spans == mine:
            return (
                f"{said}; run {folder.name} of this range came to no end, but its model, recipe or readings were other"
            )
        begin, end = (",".join(f"{one}:{spans[one][edge]}" for one in sorted(spans, key=int)) for edge in (0, 1))
        return f"{said}; run {folder.name} came to no end, its range is --from {begin} --to {end}"
    return said


def _spans(source: Mapping[str, Any]) -> dict[str, list[int]]:
    """Partition -> [from, to]; JSON has made text of the one and a list of the other."""
    return {str(partition): list(span) for partition, span in source.get("partitions", {}).items()}


def _config(folder: Path) -> dict[str, Any]:
    """What was to be trained; empty where nobody can say."""
    try:
        found = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
