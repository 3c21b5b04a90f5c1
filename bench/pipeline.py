"""Readings per second of our pipeline and of the same work in Quix Streams, in alternating runs over one topic.

Both start anew on readings that were written before: 7 features as JSON, 1,000 streams, LSTM(64), exactly once, one
process. Throughput comes from the broker's clock alone: output records carry the time at which the broker got them
(message.timestamp.type=LogAppendTime); what counts is the rate between the first and the last tenth of them, so that
neither start-up nor the end does. Every reading must have been answered exactly once, or the run fails.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np

from bench import quix_environment
from bench.children import Child
from bench.stage import FEATURES, Progress, Stage

STREAMS = 1_000
ROUNDS = 120
PAIRS = 3
READINGS = "bench.preloaded"


def measure(
    stage: Stage, progress: Progress, pairs: int = PAIRS, rounds: int = ROUNDS, quix: bool = True
) -> dict[str, Any]:
    """Rates of alternating runs, their medians and the ratio of those."""
    if quix:
        progress(0.0, "setting up Quix Streams in an environment of its own")
        quix_environment.python()
    stage.create_topic(READINGS)
    total = stage.write_readings(READINGS, STREAMS, rounds, progress)
    ours: list[float] = []
    theirs: list[float] = []
    phases: list[dict[str, float]] = []
    for run in range(pairs):
        rate, stopped = _ours(stage, run, total, progress)
        ours.append(rate)
        phases.append(stopped["phase_s"])
        progress(1.0, f"run {run + 1}: ours {rate:,.0f} readings/s")
        if quix:
            theirs.append(_quix(stage, run, total, progress))
            progress(1.0, f"run {run + 1}: Quix Streams {theirs[-1]:,.0f} readings/s")
    found: dict[str, Any] = {
        "pipeline_readings_per_s": round(statistics.median(ours)),
        "detail": {
            "readings": total,
            "streams": STREAMS,
            "partitions": len(stage.answers(READINGS)),
            "ours_per_s": [round(rate) for rate in ours],
            "phase_s": phases,
        },
    }
    if theirs:
        found["quix_readings_per_s"] = round(statistics.median(theirs))
        found["pipeline_vs_quix"] = round(statistics.median(ours) / statistics.median(theirs), 2)
        found["detail"]["quix_per_s"] = [round(rate) for rate in theirs]
    return found


def _ours(stage: Stage, run: int, total: int, progress: Progress) -> tuple[float, dict[str, Any]]:
    settings = stage.settings(f"ours-{run}", READINGS)
    with stage.serve(settings) as child:
        for _ in stage.await_answers(settings.group, READINGS, total, child, 120, _named(progress, "ours")):
            pass
        child.stop()
        stopped = child.expect("stopped", 1.0)
    return _rate(stage, settings.topics.predictions, total), stopped


def _quix(stage: Stage, run: int, total: int, progress: Progress) -> float:
    group, output = f"quix-{run}", f"quix-{run}.predictions"
    stage.create_output(output)
    given = {
        "bootstrap": stage.options["bootstrap_servers"],
        "group": group,
        "readings": READINGS,
        "predictions": output,
        "state": str(stage.work / group),
        "features": str(len(FEATURES)),
    }
    script = str(quix_environment.FOLDER.parent / "quix_app.py")
    command = [
        str(quix_environment.python()),
        "-I",
        script,
        *(part for name in given for part in (f"--{name}", given[name])),
    ]
    with Child("Quix Streams", command, stage.work / f"{group}.log") as child:
        for _ in stage.await_answers(group, READINGS, total, child, 300, _named(progress, "Quix Streams")):
            pass
    return _rate(stage, output, total)


def _rate(stage: Stage, topic: str, total: int) -> float:
    """Committed records a second, start and end left out. Raises ValueError unless each reading was answered once."""
    answers = stage.answers(topic)
    made = [json.loads(value) for records in answers.values() for value in records.values]
    seen = {(prediction["partition"], prediction["offset"]) for prediction in made}
    if not len(seen) == len(made) == total:
        raise ValueError(f"{topic}: {total} readings, {len(made)} predictions, of {len(seen)} different readings")
    return steady_rate(np.concatenate([records.timestamps_ms for records in answers.values()]))


def steady_rate(appended_ms: Any) -> float:
    """Records a second, from times [n] in ms: those after the 10 % mark up to the 90 % mark, over the time between."""
    times = np.sort(appended_ms)
    first, last = times[len(times) // 10], times[len(times) * 9 // 10]
    between = int(((times > first) & (times <= last)).sum())
    return between / max(1, int(last - first)) * 1000


def _named(progress: Progress, name: str) -> Progress:
    return lambda share, text: progress(share, f"{name}: {text}")
