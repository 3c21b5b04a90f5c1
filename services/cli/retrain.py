"""`streamrnn retrain`: one retraining as the server makes them, once, for a scheduler such as a CronJob to call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def retrain(
    config: Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set retrain.last=48h.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes on Ray that share the work; 0: this one. [retrain.workers]")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; the registry's history keeps it.")] = "schedule",
) -> None:
    """Trains a model on the pipeline's latest readings, after the settings of `retrain`, and lets it challenge the
    champion: `streamrnn serve` runs it in shadow and decides.

    \b
    Needs `registry`, and a champion in it. Runs at `retrain.niceness`, for servers may share the machine. While
    another model is on trial nothing is trained, for it would take that one's place before its verdict.
    Exit codes: 0 trained and challenging, or another is on trial; 1 not, with the reason.
    """
    from services.fleet.ray_head import become_node
    from services.fleet.ray_runtime import prepare
    from services.registry import Registry
    from services.settings import load
    from services.trainer import job
    from services.trainer.ranges import WrongRange, asked

    settings = load(config, set_ or [])
    os.nice(settings.retrain.niceness)
    rules, fleet, where = settings.retrain, settings.fleet, settings.registry
    if where is None:
        raise WrongRange("registry: name the one whose champion is to be challenged; without one nothing follows")
    registry = Registry(where)
    champion, other = registry.resolve("champion"), registry.aliases().challenger
    if other is not None:
        typer.echo(f"{other} is on trial: nothing is trained until its verdict; `streamrnn models withdraw` ends it")
        return
    processes = rules.workers if workers is None else workers
    if processes and fleet.ray_node is not None and fleet.ray_address is not None:
        prepare()
        become_node(fleet.ray_address, fleet.ray_node)
    outcome = job.retrain(
        settings,
        job.RetrainRequest(
            runs=rules.runs or Path("runs"), parent=champion, registry=where,
            asked=asked(last=rules.last), archive=rules.archive, workers=processes, gpus=fleet.gpus_per_shard > 0,
            warm=rules.warm, recipe=rules.recipe, niceness=rules.niceness, limit_s=rules.limit_minutes * 60,
            reason=reason, by="streamrnn retrain",
        ),
    )  # fmt: skip
    if outcome.model is None:
        typer.echo(f"streamrnn retrain: {outcome.end}: {outcome.message}", err=True)
        raise typer.Exit(1)
    if outcome.model != champion:
        registry.challenge(outcome.model, reason=reason, by="streamrnn retrain", numbers=dict(outcome.scores))
    typer.echo(f"{outcome.model} challenges {champion}: {outcome.message}, in {outcome.seconds:.0f} s")
