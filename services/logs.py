"""What the service says while it runs: one event a line, for people on a terminal and as JSON elsewhere.

An event is a few words and named fields: `log.info("epoch kept", shard=0, epoch=7, readings=9)`. Secrets are masked by
form, by name and by value (`services.redaction`), and tracebacks never show local variables. Imports structlog and the
standard library only.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any, Literal, TextIO

import structlog

from services.redaction import masked, scrubbed
from services.sparing import Sparing

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "pretty", "json"]
Event = MutableMapping[str, Any]

OTHERS_LEVEL = logging.WARNING
"""Least severe event of libraries that is written; our own `level` counts where it is more severe."""
WARNINGS = frozenset(
    {
        "batch_refused",
        "broker_away",
        "changelog_held_open",
        "events_not_written",
        "following_failed",
        "killed_at_stop",
        "model_refused",
        "offsets_expired",
        "partition_set_aside",
        "partitions_added",
        "ray_head_away",
        "readings_held_open",
        "readings_lost_to_retention",
        "ray_slow",
        "registry_problem",
        "rows_depend_on_neighbours",
        "shard_died",
        "shard_set_aside",
        "shard_stalled",
        "spotlight_needs_numbers",
        "states_deleted",
        "streams_full",
        "streams_moved",
        "topic_gone",
        "topic_warning",
        "unsettled",
    }
)
"""Events that a person should look at, some day; what somebody must look at ends the server with an error."""


ERRORS = frozenset({"internal_error"})
"""Events that are a fault of this program's own; each kind is told once, with its stack."""


def configure(
    level: Level = "info",
    format: Format = "auto",  # noqa: A002
    stream: TextIO | None = None,
    sparing: Sparing | None = None,
) -> Any:
    """Sends all events, our own and those of libraries, to `stream` (standard error), and returns a logger.

    May be called again; the last call counts. `format` auto is pretty when `stream` is a terminal, else json. `sparing`
    keeps back what repeats itself; errors are always written.
    """
    stream = sys.stderr if stream is None else stream
    pretty = format == "pretty" or (format == "auto" and stream.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    merge: list[Any] = [structlog.contextvars.merge_contextvars]
    before: list[Any] = [
        *merge,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty, key="at"),
    ]
    after: list[Any] = [structlog.processors.format_exc_info, _without_secrets]
    after += [_pretty(stream)] if pretty else [_in_order, _json()]
    structlog.configure(
        processors=(merge if sparing is None else [*merge, partial(_kept_back, sparing)]) + before + after,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _route_others(stream, max(number, OTHERS_LEVEL), before, after, sparing)
    return structlog.get_logger()


def bind(**fields: Any) -> None:
    """Adds `fields`, such as shard and epoch, to every later event of this thread or task. None removes one."""
    structlog.contextvars.bind_contextvars(**{name: value for name, value in fields.items() if value is not None})
    structlog.contextvars.unbind_contextvars(*(name for name, value in fields.items() if value is None))


def teller(log: Any) -> Callable[..., None]:
    """`notify(event, **fields)` that writes each event with the severity that it has."""

    def notify(event: str, **fields: Any) -> None:
        (log.error if event in ERRORS else log.warning if event in WARNINGS else log.info)(event, **fields)

    return notify


def _kept_back(sparing: Sparing, logger: Any, method: str, event: Event) -> Event:
    severe = method in ("error", "critical", "exception")
    if not severe and not sparing.admits(str(event.get("event")), event.get("shard")):
        raise structlog.DropEvent
    return event


def _route_others(stream: TextIO, level: int, before: list[Any], after: list[Any], sparing: Sparing | None) -> None:
    out = logging.StreamHandler(stream)
    if sparing is not None:  # by what is alike in its messages, which are made of a text and what changes in it
        out.addFilter(
            lambda record: record.levelno >= logging.ERROR or sparing.admits(f"{record.name}: {record.msg}", None)
        )
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
        if getattr(value, "shape", None) == ():  # a numpy scalar
            event[name] = value.item()
    shown: Event = _scrubbed(masked("", event))
    return shown


def _scrubbed(value: Any) -> Any:
    """Every text in it, however deep."""
    if isinstance(value, str | bytes):
        return scrubbed(value if isinstance(value, str) else value.decode("utf-8", "backslashreplace"))
    if isinstance(value, Mapping):
        return {_scrubbed(key): _scrubbed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(inner) for inner in value]
    return value


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
