"""What a demo runs on: a broker of its own, its settings and topics, the server, and what stays to be looked at.

Everything is entered into the demo's ExitStack, which ends it in order, also on Ctrl-C.
"""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

PARTITIONS = 4
SHARDS = 2

Heard = Callable[..., None]


def broker(console: Any, stack: ExitStack) -> Any:
    """An Apache Kafka that lives as long as the demo."""
    from services.brokers.devbroker import DevBroker

    work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamrnn-demo-")))
    console.print("starting Apache Kafka ...", end=" ")
    started = DevBroker(work / "broker", owned=True)
    started.start()
    stack.callback(started.stop)
    console.print(f"ready at {started.bootstrap}")
    return started


def settings(path: Path, bootstrap: str, model: Path, more: str = "", spotlight: Sequence[str] = ()) -> Any:
    """Writes the settings where a person can read them, and reads them as `streamrnn serve` does. `more` is YAML."""
    from services.settings import load

    path.write_text(
        f"pipeline: demo\nmodel: {json.dumps(str(model))}\nkafka:\n  bootstrap_servers: {bootstrap}\n"
        f"topics:\n  partitions: {PARTITIONS}\n  replication: 1\n"
        f"fleet:\n  shards: {SHARDS}\ntelemetry:\n  port: 0\n  spotlight: {json.dumps(list(spotlight))}\n{more}"
    )
    return load(path, [])


def create_topics(settings: Any) -> None:
    """What `streamrnn topics create` makes."""
    from services.brokers import kafka_topics
    from services.fleet.assembly import topic_names

    kafka_topics.create(settings.kafka, kafka_topics.spec(settings, topic_names(settings)))
    if settings.registry is not None:
        kafka_topics.create_events(settings.kafka, settings.topics.events, settings.topics.replication)


def serve(console: Any, stack: ExitStack, settings: Any, log: Path, heard: Heard | None = None) -> Runner:
    """A server whose shards are ready. Its events go to the file `log`, and to `heard`."""
    from services.fleet.server import Server

    file = log.open("w")
    stack.callback(file.close)

    def notify(event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}, default=str), file=file, flush=True)
        if heard is not None:
            heard(event, **fields)

    server = Server(settings, notify)
    console.print(f"starting Ray with {SHARDS} actors ...")
    stack.callback(server.close)
    server.start()
    runner = Runner(server)
    stack.callback(runner.stop)
    runner.start()
    until(lambda: not server.ready() or not runner.is_alive(), f"the actors did not become ready; see {log}", 120)
    runner.check()
    return runner


class Runner(threading.Thread):
    """The server's loop beside the view."""

    def __init__(self, server: Any) -> None:
        super().__init__(name="server", daemon=True)
        self.server = server
        self.error: Exception | None = None

    def run(self) -> None:
        """Until stopped."""
        try:
            self.server.run()
        except Exception as error:  # raised again by `check` in the main thread
            self.error = error

    def check(self) -> None:
        """Raises what ended the loop."""
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Ends the loop."""
        self.server.stop()
        self.join()

    def statuses(self) -> list[Any]:
        """Of the shards."""
        found: list[Any] = self.server.supervisor.statuses()
        return found


def keep(console: Any, settings: Any, path: Path, runner: Runner) -> None:
    """Goes on serving until Ctrl-C or SIGTERM, and says how to look at it."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    bootstrap = settings.kafka["bootstrap_servers"]
    console.rule("still serving; Ctrl-C ends it")
    for name, value in (
        ("broker", bootstrap),
        ("readings", settings.topics.readings),
        ("predictions", settings.topics.predictions),
        ("settings", path),
        ("page", runner.server.url.removesuffix("metrics")),
        ("metrics", runner.server.url),
    ):
        console.print(f"{name:<12} {value}", highlight=False)
    try:
        while runner.is_alive() and not stop.wait(0.5):
            pass
    except KeyboardInterrupt:
        pass
    runner.check()


def until(done: Callable[[], Any], otherwise: str, timeout_s: float) -> None:
    """Polls until `done()` is true. Raises TimeoutError with the sentence `otherwise`."""
    began_s = time.monotonic()
    while not done():
        if time.monotonic() - began_s > timeout_s:
            raise TimeoutError(f"within {timeout_s:.0f} s {otherwise}")
        time.sleep(0.1)
