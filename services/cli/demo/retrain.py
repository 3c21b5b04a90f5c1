"""`streamrnn demo-retrain`: a sensor changes its unit, and the server helps itself. Leaves nothing running."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from services.cli.demo import stage
from services.cli.demo.first_model import season_model
from services.cli.demo.retrain_watch import watch
from services.cli.demo.stage import PARTITIONS, SHARDS
from services.cli.demo.view import while_training

TRAINED_ON = ("2007-09-01", "2007-12-01")
SERVED = ("2007-12-01", "2009-12-01")
CHANGED, FACTOR = 0, 1000.0
"""The feature that changes (Global_active_power) and what its values are multiplied by: kW becomes W."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """How long each part takes. Readings of all streams together; the change comes at the same step of each."""

    streams: int = 360  # so many that each takes longer to get used to the change than a retraining does
    per_s: float = 2_000
    before: int = 40_000  # until the change
    settle_s: float = 30.0  # that a drift must last before a retraining begins: as many readings of the new kind
    last: int = 60_000  # that are learned from; no more than come in `settle_s`
    updates: int = 300  # of the retraining
    after: int = 40_000  # predicted by the new champion
    first_updates: int = 500  # of the first model's training
    niceness: int = 10  # of the retraining


QUICK = DemoPlan(
    150, 1_000, before=6_000, settle_s=15.0, last=15_000, updates=60, after=6_000, first_updates=60, niceness=0
)


def demo_retrain(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer readings and shorter trainings.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Go on serving afterwards, until Ctrl-C.")] = False,
    out: Annotated[
        Path, typer.Option(help="Folder of the picture, the settings, the logs, and retrain/ with registry and runs.")
    ] = Path("demo-output"),
) -> None:
    """A sensor's unit changes, and a model that was trained on what came since takes over; no stream forgets anything.

    \b
    Trains a first model on one autumn of household power (once), serves pieces of the two years after it as many
    streams, and turns kW into W on the way. What follows is the server's own doing: it sees the drift, retrains on Ray
    Train with two workers, runs the new model in shadow, and promotes it. Then every prediction is checked, and made
    again offline. The last line printed is one JSON object. Replaces what an earlier run left in OUT/retrain.
    """
    from rich.console import Console

    console = Console(file=sys.stdout)
    with ExitStack() as stack:
        good = _demo(console, stack, QUICK if quick else DemoPlan(), keep, out)
    if not good:
        raise typer.Exit(1)


def _demo(console: Any, stack: ExitStack, plan: DemoPlan, keep: bool, out: Path) -> bool:
    from services import datasets
    from services.brokers.kafka_client import ColumnProducer
    from services.brokers.kafka_source import KafkaSource
    from services.cli.demo.bit_check import ChallengerStart
    from services.cli.demo.replay import Replay
    from services.cli.demo.retrain_summary import judged, print_summary
    from services.cli.demo.story import Story
    from services.cli.demo.tally import Tally
    from services.datasets.series import cache_folder

    place = (out / "retrain").absolute()
    for old in ("registry", "runs"):
        shutil.rmtree(place / old, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    cache = cache_folder(None)
    console.print("[bold]household power[/bold], UCI, CC BY 4.0: one house, one reading a minute, seven channels")
    series = datasets.household_power(cache)
    season, served = (_span(series.at_ms, *dates) for dates in (TRAINED_ON, SERVED))
    model, trained = while_training(
        console,
        "training the first model on one autumn",
        lambda progress: season_model(series, season, plan.first_updates, cache, progress),
    )
    console.print(f"model {model.name}, {'trained just now' if trained else 'found in the cache'}")
    broker = stage.broker(console, stack)
    settings = stage.settings(out / "retrain.yaml", broker.bootstrap, model, _changes(plan, place))
    stage.create_topics(settings)

    steps = (served.stop - served.start) // plan.streams
    served = slice(served.start, served.start + steps * plan.streams)
    x, std = np.array(series.x[served]), np.nanstd(series.x[season], axis=0)
    changed = np.arange(len(x)) % steps >= plan.before // plan.streams  # [rows]
    x[changed, CHANGED] *= FACTOR
    scale = np.tile(std, (len(x), 1))  # [rows, features], in the unit that the reading has
    scale[changed, CHANGED] *= FACTOR
    at_ms = np.tile(series.at_ms[served][:steps], plan.streams)  # all of them are read at the same time
    replay = Replay(x, at_ms, plan.streams, PARTITIONS)
    tally, story, challenger_start = Tally(replay, scale), Story(place / "runs"), ChallengerStart(settings, SHARDS)
    runner = stage.serve(console, stack, settings, out / "retrain-server.log", story.heard)
    tally.start(KafkaSource(settings.kafka, settings.topics.predictions, range(PARTITIONS)))
    stack.callback(tally.stop)
    producer = ColumnProducer(settings.kafka)
    stack.callback(producer.close)
    replay.start(producer, settings.topics.readings, plan.per_s)
    stack.callback(replay.stop)
    watch(console, plan, runner, replay, tally, story, challenger_start)

    result = judged(console, settings, replay, tally, story, challenger_start, scale, changed)
    picture = out / "demo-retrain.png"
    result.draw(picture)
    print_summary(console, result, picture)
    if keep:
        stage.keep(console, settings, out / "retrain.yaml", runner)
    print(json.dumps(result.summary), flush=True)
    return result.good


def _changes(plan: DemoPlan, place: Path) -> str:
    """Settings of how models change: what is not here is as `streamrnn serve` has it."""
    registry, runs = (json.dumps(str(place / name)) for name in ("registry", "runs"))  # any path is YAML then
    return (
        f"registry: {registry}\nstate:\n  slots: 1024\nretrain:\n  on_drift: true\n  workers: 2\n"
        f"  niceness: {plan.niceness}\n"
        f"  settle_h: {plan.settle_s / 3600:.6f}\n  last: '{plan.last}'\n  recipe:\n    updates: {plan.updates}\n"
        f"  runs: {runs}\nrollout:\n  least_readings: {min(10_000, plan.after)}\n"
        "  shadow: 1\n"  # every prediction is made again offline, where a challenger has followed all from its start
    )


def _span(at_ms: NDArray[np.int64], begin: str, end: str) -> slice:
    first, last = (
        int(np.searchsorted(at_ms, datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000))
        for day in (begin, end)
    )
    return slice(first, last)
