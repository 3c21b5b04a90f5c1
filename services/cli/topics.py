"""`streamrnn topics create|check|start-over`: the four topics of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar, cast, get_args

import typer

T = TypeVar("T")
AGAIN_S = 1.0

app = typer.Typer(
    no_args_is_help=True,
    help="Create or check the readings, predictions, changelog and dead-letter topics, or start over on them.",
)

Config = Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until it can be done.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set topics.partitions=12.")]


@app.command()
def create(config: Config = None, set_: Set = None, wait_s: Wait = 0.0) -> None:
    """Creates the topics that are missing, with the partitions, compaction and retention the promises need.

    Existing topics are left as they are, but for outputs with fewer partitions than the readings, which get as many;
    `streamrnn topics check` says what is wrong with them. With --wait a broker that does not answer yet is asked again.
    """
    from rich.console import Console

    from services.brokers import kafka_topics
    from services.fleet.assembly import topic_names
    from services.settings import load

    settings = load(config, set_ or [])
    spec = kafka_topics.spec(settings, topic_names(settings))
    console = Console()
    tell = partial(console.print, highlight=False)
    made = _in_time(lambda: kafka_topics.create(settings.kafka, spec, tell), wait_s)
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


@app.command("start-over")
def start_over(
    config: Config = None,
    set_: Set = None,
    where: Annotated[
        str,
        typer.Option(
            "--from",
            help="Where to go on: committed (where the group stands; the beginning, where the readings were made "
            "anew), beginning or end.",
        ),
    ] = "committed",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forgets all streams' states and goes on from where --from says, in one transaction.

    For topics that were made anew, offsets that were moved, and states that cannot be read any more. No record is
    deleted. A server of the group that runs is shut out (exactly once); stop it before.
    """
    from rich.console import Console

    from services.brokers.kafka_start_over import StartOver, Where
    from services.brokers.kafka_topics import partition_count
    from services.fleet.assembly import topic_names
    from services.fleet.status import transactional_id
    from services.settings import load

    if where not in get_args(Where):
        raise typer.BadParameter(f"--from is committed, beginning or end, not {where}")
    settings, console = load(config, set_ or []), Console(highlight=False)
    names = topic_names(settings)
    ids = [transactional_id(settings.group, one) for one in range(partition_count(settings.kafka, names))]
    epoch = settings.epoch
    over = StartOver(settings.kafka, settings.group, names, ids, epoch.timeout_s, epoch.max_poll_mib << 20)
    chosen = cast("Where", where)
    plan = over.plan(chosen)
    for topic in plan.anew:
        console.print(f"made anew  {topic}")
    for partition, place in plan.places.items():
        stood = "has read nothing" if place.stands is None else f"stands at {place.stands}"
        console.print(
            f"partition {partition}: {len(place.streams):,} states are forgotten; the group {stood} and goes on at "
            f"{place.start}, of readings {place.first} to {place.end}"
        )
    if dry_run:
        return
    if not yes:
        typer.confirm(f"Start {settings.group} over?", abort=True)
    console.print("shutting out whoever serves ...")
    over.take_over()
    console.print("reading the changelog again, and forgetting ...")
    over.do(over.plan(chosen))
    console.print("done: the next `streamrnn serve` begins without states")


def _in_time(ask: Callable[[], T], wait_s: float) -> T:
    """What `ask` returns; a broker that does not answer is asked again for `wait_s`."""
    from services.predictor.ports import Retriable

    end_s = time.monotonic() + wait_s
    while True:
        try:
            return ask()
        except Retriable:
            if time.monotonic() >= end_s:
                raise
            time.sleep(AGAIN_S)
