"""The minutes in which it happens: says what the server does, and ends when the new champion has shown itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from services.cli.demo import stage
from services.cli.demo.bit_check import ChallengerStart
from services.cli.demo.story import Moment, Story
from services.cli.demo.view import View, progress_bar

if TYPE_CHECKING:
    from services.cli.demo.retrain import DemoPlan

LIMIT_S = 300.0
"""After so long without anything new it is over. However slow a machine is, its training says how far it is."""
QUIET_S = 60.0
"""How long to wait for missing predictions after the last reading before calling them lost."""
LOOK_BACK_STEPS = 60
"""Of each stream, for the error that is shown."""


def watch(
    console: Any,
    plan: DemoPlan,
    runner: stage.Runner,
    replay: Any,
    tally: Any,
    story: Story,
    challenger_start: ChallengerStart,
) -> None:
    """Returns when no more readings are written, and each has its prediction or was waited for in vain."""
    moved_s, passed = time.monotonic(), story.passed
    chapter = "the champion serves what it knows"
    with View(console, "streamrnn demo-retrain") as view:
        view.say(f"up to {replay.readings:,} readings of {replay.streams} streams, {plan.per_s:,.0f}/s")
        changed = False
        while True:
            runner.check()
            if replay.error is not None:
                raise replay.error
            if not changed and replay.sent >= plan.before:
                changed = True
                chapter = "a sensor has changed its unit"
                view.say("[bold red]change[/bold red]: Global_active_power comes in W now, no longer in kW")
            if story.passed is not passed:
                moved_s, passed = time.monotonic(), story.passed
            for moment in story.news():
                moved_s = time.monotonic()
                chapter, line = _said(moment, chapter)
                if line:
                    view.say(line)
            challenger_start.look(story)
            _show(view, chapter, replay, tally, story)
            by_new = int((tally.model > 0).sum())
            if by_new >= plan.after or replay.sent >= replay.readings or _in_vain(story):
                break
            if time.monotonic() - moved_s > LIMIT_S:
                view.say(f"nothing new has come of it for {LIMIT_S:.0f} s")
                break
            time.sleep(0.12)
        replay.stop()
        _wait(view, chapter, runner, replay, tally, story)


def _wait(view: View, chapter: str, runner: stage.Runner, replay: Any, tally: Any, story: Story) -> None:
    """Until each reading has its prediction."""
    quiet_s, seen = time.monotonic(), -1
    while tally.lost and time.monotonic() - quiet_s < QUIET_S:
        runner.check()
        if tally.predictions != seen:
            quiet_s, seen = time.monotonic(), tally.predictions
        _show(view, chapter, replay, tally, story)
        time.sleep(0.12)


def _in_vain(story: Story) -> bool:
    """Whether nothing more is to be expected."""
    ended = story.first("retrained")
    verdict = story.first("verdict")
    failed = ended is not None and not ended.fields.get("model")
    return failed or (verdict is not None and verdict.fields["outcome"] != "promoted")


def _said(moment: Moment, chapter: str) -> tuple[str, str]:
    """(the chapter from here on, the line to say; empty: none)."""
    told = moment.fields
    match moment.event:
        case "drift":
            what = f"{told['name']}, {told['measure']} {told['value']:.3g} (let pass: {told['threshold']:.3g})"
            return "drift: readings of the new kind gather", f"[yellow]drift[/yellow] of {what}"
        case "retraining":
            return "retraining", f"[yellow]retraining[/yellow] on the latest {int(told['last']):,} readings begins"
        case "begun":
            return chapter, f"the readings are there; Ray Train is to start {told['workers']} workers"
        case "starting":
            return chapter, "Ray Train starts its processes"
        case "worker":
            return chapter, f"Ray Train's worker {told['rank']} is there (process {told['pid']})"
        case "retrained" if told.get("model"):
            scores, line = told["scores"], f"[green]trained[/green] model {told['model']} in {told['seconds']:.0f} s"
            if scores.get("mse") is not None:
                line += (
                    f"; error {scores['mse']:.3f}, persistence {scores['persistence_mse']:.3f} on what was held back"
                )
            return "a new model", line
        case "retrained":
            return "no new model", f"[bold red]not trained[/bold red]: {told['message']}"
        case "challenger":
            return "the challenger runs in shadow", f"model {told['model']} challenges the champion, in shadow"
        case "models_activated":
            other = f", {told['challenger']} in shadow" if told["challenger"] else ""
            return chapter, f"shard {told.get('shard', '')}: {told['champion']} serves{other}"
        case "verdict":
            style = "green" if told["outcome"] == "promoted" else "bold red"
            reason = told["reason"].partition(": ")[2] or told["reason"]
            return f"the challenger is {told['outcome']}", f"[{style}]{told['outcome']}[/{style}]: {reason}"
        case "shard_died" | "model_refused" | "watching_failed" | "registry_problem":
            return chapter, f"[bold red]{moment.event}[/bold red] {told}"
    return chapter, ""


def _show(view: View, chapter: str, replay: Any, tally: Any, story: Story) -> None:
    predictions = tally.predictions
    rate = view.rate(predictions)
    (p50, p99), (mse, persistence, _) = tally.recent_ms(), _late(replay, tally)
    training = ""
    if story.passed is not None and story.first("retrained") is None:
        one = story.passed
        skill = 1 - one["validation_loss"] / one["baseline_loss"]
        training = f"pass {one['number']} of {one['passes']}, {skill:.1%} below persistence"
    rows = [
        ("now", f"[bold]{chapter}[/bold]"),
        ("readings", progress_bar(replay.sent, replay.readings)),
        ("predictions out", f"{predictions:,}   [bold]{rate:,.0f}/s[/bold]  {view.rates}"),
        ("Kafka to Kafka", f"p50 [bold]{p50:.0f} ms[/bold]   p99 [bold]{p99:.0f} ms[/bold]"),
        ("error of late", f"[bold]{mse:.3f}[/bold]; that of persistence {persistence:.3f}"),
        ("training", training or "none"),
    ]
    line = (
        f"{predictions:,} predictions, {rate:,.0f}/s, p99 {p99:.0f} ms, error {mse:.3f} (persistence "
        f"{persistence:.3f}){', training: ' + training if training else ''}"
    )
    view.show(rows, line if predictions else "")


def _late(replay: Any, tally: Any) -> tuple[float, float, float]:
    step = replay.sent // replay.streams
    late = np.arange(max(0, step - LOOK_BACK_STEPS), step)
    rows = (np.arange(replay.streams)[:, None] * replay.steps + late).ravel()
    found: tuple[float, float, float] = tally.errors(rows)
    return found
