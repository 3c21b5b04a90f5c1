"""`streamrnn topics create|check`: the four topics of a pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Create or check the readings, predictions, changelog and dead-letter topics."
)

Config = Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set topics.partitions=12.")]


@app.command()
def create(config: Config = None, set_: Set = None) -> None:
    """Creates the topics that are missing, with the partitions, compaction and retention the promises need.

    Existing topics are left as they are; `streamrnn topics check` says what is wrong with them.
    """
    from rich.console import Console

    from services.brokers import kafka_topics
    from services.fleet.assembly import topic_names
    from services.settings import load

    settings = load(config, set_ or [])
    made = kafka_topics.create(settings.kafka, kafka_topics.spec(settings, topic_names(settings)))
    console = Console()
    for topic in topic_names(settings).values():
        console.print(f"{'created' if topic in made else 'exists '}  {topic}", highlight=False)
    if settings.registry is not None:
        events = settings.topics.events
        fresh = kafka_topics.create_events(settings.kafka, events, settings.topics.replication)
        console.print(f"{'created' if fresh else 'exists '}  {events}", highlight=False)


@app.command()
def check(config: Config = None, set_: Set = None) -> None:
    """Says which topic settings would break a promise (exit 1) or are worth a look (exit 0)."""
    from rich.console import Console

    from services.brokers import kafka_topics
    from services.fleet.assembly import topic_names
    from services.settings import load

    settings = load(config, set_ or [])
    findings = kafka_topics.check(settings.kafka, kafka_topics.spec(settings, topic_names(settings)))
    console = Console()
    for finding in findings:
        console.print(f"{finding.severity:>6}  {finding}", highlight=False)
    if not findings:
        console.print("all four topics keep the promises")
    raise typer.Exit(1 if any(finding.severity == "refuse" for finding in findings) else 0)
