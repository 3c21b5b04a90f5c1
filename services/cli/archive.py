"""`streamrnn archive`: a topic's records go to Parquet files by day, and `verify` says whether they are all there."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.archive.verify import ArchiveReport

LEAVES = {"Refused": 4, "ArchiveInUse": 3, "Damaged": 4, "NotWritten": 1, "Retriable": 1}
"""Exit codes: 1 what could not be done now, 3 another archiver is there, 4 a person must act."""

WARNED = ("records are gone", "batch passed over", "archive begins", "broker_away", "not written")

app = typer.Typer()

To = Annotated[str | None, typer.Option("--to", help="Folder, or URL of an object store (s3://, gs://, abfs://).")]


@app.callback(invoke_without_command=True)
def archive(
    context: typer.Context,
    config: Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set pipeline=pumps.")] = None,
    to: To = None,
    topic: Annotated[
        str, typer.Option(help="readings, predictions, changelog, dead_letters, or the name of any topic.")
    ] = "readings",
    once: Annotated[bool, typer.Option("--once", help="Up to the present end, then leave.")] = False,
    every_s: Annotated[float, typer.Option(min=1.0, help="Seconds between two rounds; a round writes files.")] = 300.0,
    piece_mb: Annotated[float, typer.Option(min=0.001, help="Size of a file, before compression.")] = 64.0,
) -> None:
    """Writes committed records to FOLDER/topic=NAME/day=2026-11-25/partition-00-FIRST-LAST.parquet until SIGTERM.

    \b
      streamrnn archive -c streamrnn.yaml --to /data/archive            a round every 5 minutes
      streamrnn archive -c streamrnn.yaml --to /data/archive --once     for cron
      streamrnn archive verify --to /data/archive                       is it all there?
    Where it goes on follows from the files' names: a kill at any moment loses and doubles nothing.
    Exit codes: 0 done or stopped, 1 no room or no broker, 2 settings are wrong, 3 another archiver writes there,
    4 files or topic must be looked at.
    """
    if context.invoked_subcommand is not None:
        return
    if to is None:
        raise typer.BadParameter("give a folder or URL", param_hint="--to")
    from services import logs
    from services.archive import places, service
    from services.archive.archiver import Archiver
    from services.archive.layout import Damaged
    from services.brokers.kafka_history import KafkaHistory
    from services.predictor.ports import Refused, Retriable
    from services.settings import load

    settings = load(config, set_ or [])
    log: Any = logs.configure(settings.log.level, settings.log.format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def notify(event: str, **fields: Any) -> None:
        (log.warning if event in WARNED else log.info)(event, **fields)

    name = (
        getattr(settings.topics, topic) if topic in ("readings", "predictions", "changelog", "dead_letters") else topic
    )
    history = KafkaHistory(settings.kafka, name, settings.epoch.max_poll_mib << 20)
    try:
        place = places.place(to, name)
        archiver = Archiver(history, place, notify, piece_bytes=round(piece_mb * 1e6))
        try:
            if once:
                service.once(archiver, place, stop, notify)
            else:
                service.forever(archiver, place, every_s, stop, notify)
        finally:
            place.close()
    except (Damaged, Refused, Retriable, places.NotWritten, places.ArchiveInUse) as error:
        log.error("leaving", reason=str(error))
        raise typer.Exit(LEAVES[type(error).__name__]) from None
    told = archiver.told
    gone = f"; {told.gone:,} offsets were gone already" if told.gone else ""
    over = f"; {told.passed_over:,} batches were passed over, which unpack to too much" if told.passed_over else ""
    typer.echo(f"{told.records:,} records of {name} in {told.pieces:,} files ({told.bytes / 1e6:,.1f} MB){gone}{over}")


@app.command()
def verify(
    to: To = None,
    topic: Annotated[str | None, typer.Option(help="Name of one topic. Without it: all that are there.")] = None,
) -> None:
    """Reads every file and says what is there, what is missing, and which files are damaged (then exit 1)."""
    from services.archive.places import topics
    from services.archive.verify import verify as verified

    if to is None:
        raise typer.BadParameter("give a folder or URL", param_hint="--to")
    names = [topic] if topic else topics(to)
    if not names:
        typer.echo("--to names no archive: there is no topic=NAME folder in it", err=True)
        raise typer.Exit(1)
    sound = [_told(name, verified(to, name)) for name in names]
    raise typer.Exit(0 if all(sound) else 1)


def _told(topic: str, verdict: ArchiveReport) -> bool:
    typer.echo(f"topic {topic}")
    for found in verdict.partitions:
        typer.echo(
            f"  partition {found.partition}: offsets {found.first:,} to {found.next - 1:,}, "
            f"{found.records:,} records in {found.pieces:,} files"
        )
        for hole in found.holes:
            typer.echo(f"    hole: {hole}")
    if not verdict.partitions and not verdict.wrong:
        verdict.wrong.append(f"{verdict.where} holds no files")
    for sentence in verdict.wrong:
        typer.echo(f"  WRONG: {sentence}")
    if not verdict.wrong:
        typer.echo("  all there, every checksum right")
    return not verdict.wrong
