"""What the service says while it runs: one event a line, for people on a terminal and as JSON elsewhere.

An event is a few words and named fields: `log.info("epoch kept", shard=0, epoch=7, readings=9)`. Secrets are masked by
the names of their fields, and tracebacks never show local variables. Imports structlog and the standard library only.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from services.masking import masked, scrubbed

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "pretty", "json"]
Event = MutableMapping[str, Any]

OTHERS_LEVEL = logging.WARNING
"""Least severe event of libraries that is written; our own `level` counts where it is more severe."""


def configure(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> Any:  # noqa: A002
    """Sends all events, our own and those of libraries, to `stream` (standard error), and returns a logger.

    May be called again; the last call counts. `format` auto is pretty when `stream` is a terminal, else json.
    """
    stream = sys.stderr if stream is None else stream
    pretty = format == "pretty" or (format == "auto" and stream.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty, key="at"),
    ]
    after: list[Any] = [structlog.processors.format_exc_info, _without_secrets]
    after += [_pretty(stream)] if pretty else [_in_order, _json()]
    structlog.configure(
        processors=before + after,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _route_others(stream, max(number, OTHERS_LEVEL), before, after)
    return structlog.get_logger()


def bind(**fields: Any) -> None:
    """Adds `fields`, such as shard and epoch, to every later event of this thread or task. None removes one."""
    structlog.contextvars.bind_contextvars(**{name: value for name, value in fields.items() if value is not None})
    structlog.contextvars.unbind_contextvars(*(name for name, value in fields.items() if value is None))


def _route_others(stream: TextIO, level: int, before: list[Any], after: list[Any]) -> None:
    out = logging.StreamHandler(stream)
    out.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *after],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(level)
    logging.captureWarnings(True)


def _without_secrets(logger: Any, method: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = scrubbed(value)
        elif getattr(value, "shape", None) == ():  # a numpy scalar
            event[name] = value.item()
    shown: Event = masked("", event)
    return shown


def _pretty(stream: TextIO) -> Any:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        timestamp_key="at",
        pad_event_to=28,
        exception_formatter=structlog.dev.plain_traceback,  # the rich one would show local variables
    )


def _in_order(logger: Any, method: str, event: Event) -> Event:
    """Time, level and event first."""
    first = {name: event[name] for name in ("at", "level", "event") if name in event}
    return {**first, **event}


def _json() -> Any:
    return structlog.processors.JSONRenderer(default=_as_text, ensure_ascii=False)


def _as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)
