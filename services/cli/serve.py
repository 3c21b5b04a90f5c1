"""`streamrnn serve`: runs until SIGTERM or Ctrl-C, then ends the current epoch, commits it and leaves."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import typer

LEAVES = {"Fenced": 3, "Refused": 4, "HeadLost": 5, "NotJoined": 5}
"""Exit codes: 3 another server took over, 4 a person must act, 5 start again: Ray's head is gone."""


def serve(
    config: Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set fleet.shards=4.")] = None,
) -> None:
    """Reads the readings topic, steps every stream's state and writes a prediction per reading, exactly once.

    \b
    Stops on SIGTERM or Ctrl-C within 10 s, with everything it has read either committed or untouched.
    /metrics, /healthz and /readyz are on telemetry.port.
    Exit codes: 0 stopped, 2 settings are wrong, 3 another server took over, 4 topics or model must be looked at,
    5 the head of the Ray that was joined is gone: start again.
    """
    from services import logs
    from services.fleet.ray_head import HeadLost, NotJoined
    from services.fleet.server import Server
    from services.predictor.ports import Fenced, Refused
    from services.settings import load
    from services.sparing import Sparing

    settings = load(config, set_ or [])
    sparing = Sparing(settings.log.repeats)
    log: Any = logs.configure(settings.log.level, settings.log.format, sparing=sparing)
    sparing.say = log.info
    server = Server(settings, logs.teller(log))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    try:
        server.start()
        server.run()
    except (Fenced, Refused, HeadLost, NotJoined) as error:
        log.error("leaving", reason=str(error))
        raise typer.Exit(LEAVES[type(error).__name__]) from None
    finally:
        server.close()
        sparing.close()
    log.info("stopped")
