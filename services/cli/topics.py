"""`streamrnn topics create|check`: the four topics of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

T = TypeVar("T")
AGAIN_S = 1.0

app = typer.Typer(
    no_args_is_help=True, help="Create or check the readings, predictions, changelog and dead-letter topics."
)

Config = Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until it can be done.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set topics.partitions=12.")]


@app.command()
def create(config: Config = None, set_: Set = None, wait_s: Wait = 0.0) -> None:
    """Creates the topics that are missing, with the partitions, compaction and retention the promises need.

    Existing topics are left as they are; `streamrnn topics check` says what is wrong with them. With --wait a broker
    that does not answer yet is asked again.
    """
    from rich.console import Console

    from services.brokers import kafka_topics
    from services.fleet.assembly import topic_names
    from services.settings import load

    settings = load(config, set_ or [])
    spec = kafka_topics.spec(settings, topic_names(settings))
    made = _in_time(lambda: kafka_topics.create(settings.kafka, spec), wait_s)
    console = Console()
    for topic in topic_names(settings).values():
        console.print(f"{'created' if topic in made else 'exists '}  {topic}", highlight=False)
    if settings.registry is not None:
        events = settings.topics.events
        fresh = kafka_topics.create_events(settings.kafka, events, settings.topics.replication)
        console.print(f"{'created' if fresh else 'exists '}  {events}", highlight=False)


@app.command()
def check(config: Config = None, set_: Set = None, wait_s: Wait = 0.0) -> None:
    """Says which topic settings would break a promise (exit 1) or are worth a look (exit 0). With --wait it looks again
    until no promise would be broken.
    """
    from rich.console import Console

    from services.brokers import kafka_topics
    from services.fleet.assembly import topic_names
    from services.settings import load

    settings = load(config, set_ or [])
    spec, end_s = kafka_topics.spec(settings, topic_names(settings)), time.monotonic() + wait_s
    findings = _in_time(lambda: kafka_topics.check(settings.kafka, spec), wait_s)
    while any(one.severity == "refuse" for one in findings) and time.monotonic() < end_s:
        time.sleep(AGAIN_S)
        findings = _in_time(lambda: kafka_topics.check(settings.kafka, spec), end_s - time.monotonic())
    console = Console()
    for finding in findings:
        console.print(f"{finding.severity:>6}  {finding}", highlight=False)
    if not findings:
        console.print("all four topics keep the promises")
    raise typer.Exit(1 if any(finding.severity == "refuse" for finding in findings) else 0)


def _in_time(ask: Callable[[], T], wait_s: float) -> T:
    """What `ask` returns; a broker that does not answer is asked again for `wait_s`."""
    from services.predictor.ports import Unsettled

    end_s = time.monotonic() + wait_s
    while True:
        try:
            return ask()
        except Unsettled:
            if time.monotonic() >= end_s:
                raise
            time.sleep(AGAIN_S)
