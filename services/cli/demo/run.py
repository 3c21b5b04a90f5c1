"""The demo from end to end: broker, topics, model, fleet, replay, kill, summary, picture. Leaves nothing running."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from services.cli.demo import stage
from services.cli.demo.first_model import TRAIN_SHARE, first_model
from services.cli.demo.stage import PARTITIONS, SHARDS
from services.cli.demo.view import View, progress_bar, while_training

SHOWN = 2
"""Streams in the spotlight of the page."""
SCORED_SHARE = 0.2
"""The last part of the series, which no training has seen."""
QUIET_S = 60.0
"""How long to wait for missing predictions after the last reading before calling them lost."""


@dataclass(frozen=True, slots=True)
class _Kill:
    shard: int
    pid: int
    at_ms: int
    predictions: int  # seen by then


def demo(
    readings: Annotated[int, typer.Option(help="How many readings to replay.")] = 125_000,
    streams: Annotated[int, typer.Option(help="Into how many streams the series is cut.", min=PARTITIONS)] = 16,
    rate: Annotated[float, typer.Option(help="Readings a second.")] = 5_000,
    kill: Annotated[bool, typer.Option(help="kill -9 one actor half way.")] = True,
    keep: Annotated[bool, typer.Option("--keep", help="Go on serving afterwards, until Ctrl-C.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the picture, the settings and the logs.")] = Path("demo-output"),
) -> None:
    """Real sensor readings through real Kafka into recurrent networks, with a kill -9 on the way.

    \b
    Starts a development broker, trains a first model on the first 70 % of household power (once), serves it with two
    Ray actors, replays part of the last 20 % as many streams and checks every prediction. The last line printed is
    one JSON object.
    """
    from rich.console import Console

    console = Console(file=sys.stdout)
    with ExitStack() as stack:
        failed = _demo(console, stack, readings, streams, rate, kill, keep, out)
    if failed:
        raise typer.Exit(1)


def _demo(console: Any, stack: ExitStack, readings: int, streams: int, rate: float, kill: bool, keep: bool,
          out: Path) -> bool:  # fmt: skip
    from services import datasets
    from services.brokers.kafka_client import ColumnProducer
    from services.brokers.kafka_source import KafkaSource
    from services.cli.demo.picture import draw
    from services.cli.demo.replay import Replay
    from services.cli.demo.tally import Tally
    from services.datasets.series import cache_folder

    out.mkdir(parents=True, exist_ok=True)
    cache = cache_folder(None)
    console.print("[bold]household power[/bold], UCI, CC BY 4.0: one house, one reading a minute, seven channels")
    series = datasets.household_power(cache)
    model, std = _model(console, series, cache)
    broker = stage.broker(console, stack)
    path = out / "streamrnn.yaml"
    first = len(series.x) - int(len(series.x) * SCORED_SHARE)
    last = min(len(series.x), first + readings // streams * streams)
    replay = Replay(series.x[first:last], series.at_ms[first:last], streams, PARTITIONS)
    shown = [name.decode() for name in replay.names[:SHOWN]]
    settings = stage.settings(path, broker.bootstrap, model, "state:\n  slots: 1024\n", shown)
    stage.create_topics(settings)
    tally = Tally(replay, std)
    runner = stage.serve(console, stack, settings, out / "server.log")
    console.print(f"watch it at {runner.server.url.removesuffix('metrics')}", highlight=False)

    tally.start(KafkaSource(settings.kafka, settings.topics.predictions, range(PARTITIONS)))
    stack.callback(tally.stop)
    producer = ColumnProducer(settings.kafka)
    stack.callback(producer.close)
    replay.start(producer, settings.topics.readings, rate)
    stack.callback(replay.stop)
    began_s = time.monotonic()
    killed = _watch(console, runner, replay, tally, kill)
    took_s = time.monotonic() - began_s

    picture = out / "demo.png"
    draw(picture, replay, tally, killed.shard if killed else 0, killed.at_ms if killed else None,
         "global active power", "kW")  # fmt: skip
    summary = _summary(replay, tally, killed, took_s)
    _print_summary(console, summary, picture)
    if keep:
        stage.keep(console, settings, path, runner)
    print(json.dumps(summary), flush=True)
    return bool(summary["lost"] or summary["doubled"])


def _model(console: Any, series: Any, cache: Path) -> tuple[Path, Any]:
    folder, trained = while_training(
        console, "training the first model", lambda progress: first_model(series, cache, progress)
    )
    console.print(f"model {folder.name}, {'trained just now' if trained else 'found in the cache'}")
    return folder, np.nanstd(series.x[: int(len(series.x) * TRAIN_SHARE)], axis=0)


def _watch(console: Any, runner: stage.Runner, replay: Any, tally: Any, kill: bool) -> _Kill | None:
    killed: _Kill | None = None
    recovered = False
    quiet_s, seen = time.monotonic(), 0
    with View(console, "streamrnn demo") as view:
        view.say(f"replaying {replay.readings:,} readings of {replay.streams} streams")
        while True:
            runner.check()
            if replay.error is not None:
                raise replay.error
            statuses = runner.statuses()
            predictions = tally.predictions
            _show(view, replay, tally, predictions, statuses)
            if kill and killed is None and predictions >= replay.readings // 2 and statuses:
                victim = statuses[0]
                os.kill(victim.pid, signal.SIGKILL)
                killed = _Kill(victim.shard, victim.pid, time.time_ns() // 1_000_000, predictions)
                view.say(f"[bold red]kill -9[/bold red] of actor {victim.shard} (process {victim.pid})")
            if killed and not recovered:
                back = [s for s in statuses if s.shard == killed.shard and s.pid != killed.pid and s.stats.readings]
                if back:
                    recovered = True
                    after_s = (time.time_ns() // 1_000_000 - killed.at_ms) / 1000
                    view.say(f"actor {killed.shard} is back after {after_s:.1f} s (process {back[0].pid}), "
                             f"{back[0].stats.restored} state rows restored")  # fmt: skip
            if predictions != seen:
                quiet_s, seen = time.monotonic(), predictions
            done = replay.sent >= replay.readings and tally.lost == 0
            if done or time.monotonic() - quiet_s > QUIET_S:
                return killed
            time.sleep(0.12)


def _show(view: View, replay: Any, tally: Any, predictions: int, statuses: list[Any]) -> None:
    rate, (p50, p99), (mse, persistence, coverage) = view.rate(predictions), tally.recent_ms(), tally.errors()
    skill = 1 - mse / persistence if persistence else math.nan
    lag = sum(sum(status.stats.lag.values()) for status in statuses)
    epochs = sum(status.stats.epochs["kept"] for status in statuses)
    rows = [
        ("progress", progress_bar(predictions, replay.readings)),
        ("readings in", f"{replay.sent:,}"),
        ("predictions out", f"{predictions:,}   [bold]{rate:,.0f}/s[/bold]  {view.rates}"),
        ("Kafka to Kafka", f"p50 [bold]{p50:.0f} ms[/bold]   p99 [bold]{p99:.0f} ms[/bold]"),
        ("error", f"[bold]{skill:.1%}[/bold] below persistence; the 80 % band holds {coverage:.0%}"),
        ("lag, epochs", f"{lag:,} readings, {epochs:,} transactions"),
        *(("actor", _phrase(status)) for status in statuses),
    ]
    line = (
        f"{predictions:,} of {replay.readings:,} predictions, {rate:,.0f}/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, "
        f"error {skill:+.1%} below persistence, lag {lag:,}"
    )
    view.show(rows, line if predictions else "")


def _phrase(status: Any) -> str:
    stats = status.stats
    if not stats.ready:
        return f"{status.shard}  restoring state {stats.restore_done:.0%}"
    return f"{status.shard}  process {status.pid}, {stats.readings:,} readings, {stats.live_streams} streams in memory"


def _summary(replay: Any, tally: Any, killed: _Kill | None, took_s: float) -> dict[str, Any]:
    mse, persistence, coverage = tally.errors()
    p50, p99 = np.nanpercentile(tally.latency_ms, [50, 99])
    calm = np.ones(len(replay.sent_ms), bool)
    if killed is not None:  # readings that met the dead actor's partitions waited for its successor
        shards = (np.arange(len(calm)) // replay.steps) % PARTITIONS % SHARDS
        waited = tally.latency_ms + replay.sent_ms >= killed.at_ms
        calm = ~((shards == killed.shard) & waited & (tally.latency_ms > 1000))
    return {
        "readings": replay.sent,
        "predictions": tally.predictions,
        "lost": tally.lost,
        "doubled": tally.doubled,
        "kills": int(killed is not None),
        "skill": round(1 - mse / persistence, 4),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "readings_per_s": round(replay.sent / took_s),
        "p99_ms_without_recovery": round(float(np.nanpercentile(tally.latency_ms[calm], 99)), 1),
        "out_of_order": tally.disorder,
        "coverage_80": round(coverage, 4),
    }


def _print_summary(console: Any, summary: dict[str, Any], picture: Path) -> None:
    good = not summary["lost"] and not summary["doubled"] and not summary["out_of_order"]
    rows = (
        ("readings in", f"{summary['readings']:,}", ""),
        (
            "predictions out",
            f"{summary['predictions']:,}",
            f"lost {summary['lost']}, doubled {summary['doubled']}, out of order {summary['out_of_order']}",
        ),
        ("actors killed", f"{summary['kills']}", ""),
        (
            "error",
            f"{summary['skill']:.1%}",
            f"below persistence (mean squared, z-scored); the 80 % band held {summary['coverage_80']:.1%}",
        ),
        (
            "latency",
            f"{summary['p50_ms']:.0f} ms",
            f"p50; p99 {summary['p99_ms']:.0f} ms, without the recovery {summary['p99_ms_without_recovery']:.0f} ms",
        ),
    )
    console.rule("what happened")
    for name, number, comment in rows:
        style = ("green" if good else "bold red") if name == "predictions out" else None
        console.print(f"{name:<16} {number:>10}   {comment}", style=style, highlight=False, soft_wrap=True)
    console.print(f"{'picture':<16} {picture}", highlight=False)
