"""`streamrnn broker start|run|stop|status`: a real Apache Kafka on this machine, for development.

Lives here: parsing, calling, printing. May import `services.brokers.devbroker`, inside the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from services.brokers.devbroker import DevBroker, DevBrokerError

app = typer.Typer(no_args_is_help=True, help="Run a real Apache Kafka on this machine, for development.")

NOT_RUNNING, NOT_ANSWERING = 3, 4

Folder = Annotated[
    Path | None, typer.Option(help="Where the broker keeps its data and log. [default: the user's data folder]")
]


@app.command()
def start(
    folder: Folder = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port for clients. [default: as before, else a free one]")
    ] = None,
) -> None:
    """Starts the broker, unless it runs already, and prints the address for `kafka.bootstrap_servers`.

    It keeps running after this command; its topics survive `stop`. The first start fetches Apache Kafka.
    """
    from services.brokers.devbroker import KAFKA_VERSION, DevBrokerError, default_cache, is_fetched

    broker = _broker(folder, port)
    try:
        if broker.alive() and broker.answers():
            if port is not None and broker.bootstrap != f"127.0.0.1:{port}":
                _fail(f"it runs already at {broker.bootstrap}: stop it first to move it to port {port}")
            typer.echo(f"Apache Kafka runs already at {broker.bootstrap} (process {broker.pid})")
            return
        if not is_fetched(default_cache()):
            typer.echo(f"First start: fetching Apache Kafka {KAFKA_VERSION} (45 MB) into {default_cache()} ...")
        broker.start()
    except DevBrokerError as error:
        _fail(error)
    typer.echo(f"Apache Kafka {KAFKA_VERSION} runs at {broker.bootstrap} (process {broker.pid})")
    typer.echo(f"  data and log   {broker.folder}")
    typer.echo(f"  use it         streamrnn topics create --set kafka.bootstrap_servers={broker.bootstrap}")
    typer.echo(f"  stop it        streamrnn broker stop{_named(folder)}")


@app.command()
def run(
    folder: Folder = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for clients.")] = 9092,
    host: Annotated[str | None, typer.Option(help="Name by which other machines know this one.")] = None,
) -> None:
    """Runs the broker until SIGTERM or Ctrl-C, as a container does. With --host other machines may connect.

    There is no authentication and no copy of anything: for development.
    """
    import signal
    import threading

    from services.brokers.devbroker import DevBroker, DevBrokerError, default_folder

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    broker = DevBroker(folder or default_folder(), port, owned=True, host=host)
    try:
        broker.start()
    except DevBrokerError as error:
        _fail(error)
    typer.echo(f"Apache Kafka runs at {host or '127.0.0.1'}:{port}")
    while not stopped.wait(0.5) and broker.alive():
        pass
    if not stopped.is_set():
        _fail(f"Kafka ended by itself; the end of {broker.log} says why")
    broker.stop(timeout_s=25.0)


@app.command()
def stop(folder: Folder = None) -> None:
    """Stops the broker. Topics, records and committed offsets stay in its folder for the next start."""
    broker = _broker(folder)
    if not broker.alive():
        typer.echo(f"No broker runs in {broker.folder}")
        return
    broker.stop()
    typer.echo(f"Stopped. Its data stay in {broker.folder}; delete that folder to forget them.")


@app.command()
def status(folder: Folder = None) -> None:
    """Says whether the broker runs. Exit status: 0 it serves, 3 it does not run, 4 it runs but does not answer."""
    broker = _broker(folder)
    if not broker.alive():
        typer.echo(f"No broker runs in {broker.folder}; start it with: streamrnn broker start{_named(folder)}")
        raise typer.Exit(NOT_RUNNING)
    serves = broker.answers()
    typer.echo(
        f"process {broker.pid} {'serves' if serves else 'does not answer'} at {broker.bootstrap}, log {broker.log}"
    )
    if not serves:
        raise typer.Exit(NOT_ANSWERING)


def _broker(folder: Path | None, port: int | None = None) -> DevBroker:
    from services.brokers.devbroker import DevBroker, default_folder

    return DevBroker(folder or default_folder(), port)


def _named(folder: Path | None) -> str:
    return "" if folder is None else f" --folder {folder}"


def _fail(error: DevBrokerError | str) -> NoReturn:
    typer.echo(f"streamrnn broker: {error}", err=True)
    raise typer.Exit(1)
