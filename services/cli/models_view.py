"""What `streamrnn models` shows: the list, one model's page, the history; as objects for scripts, as text for people.

A page prints what there is: `report.json` is its trainer's, and may hold less, more or something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from services.registry import Aliases, Change, ModelEntry, Registry

LOWEST = " ▁▂▃▄▅▆▇█"
WIDTH = 100


# ---- objects --------------------------------------------------------------------------------------------------------


def entry_object(entry: ModelEntry) -> dict[str, Any]:
    """As JSON has it."""
    return asdict(entry)


def change_object(change: Change) -> dict[str, Any]:
    """As JSON has it."""
    return {**asdict(change), "version": change.version}


def page_object(registry: Registry, model: str) -> dict[str, Any]:
    """Everything that is known of a model. Raises ModelUnknown and ModelRefused."""
    import json

    from rnn.io.card import card_text

    card = registry.card(model)
    return {
        "registry": registry.where,
        "card": json.loads(card_text(card)),
        "added": asdict(registry.added(model)),
        "aliases": list(registry.aliases().of(model)),
        "report": dict(registry.report(model)),
        "verdicts": [dict(one) for one in registry.verdicts(model)],
        "history": [change_object(one) for one in _of(model, registry.history())],
    }


def _of(model: str, changes: Sequence[Change]) -> Iterator[Change]:
    """Those after which the model was something else than before."""
    was: tuple[str, ...] = ()
    for one in changes:
        if one.aliases.of(model) != was or (one.what in ("pinned", "unpinned") and one.aliases.champion == model):
            yield one
        was = one.aliases.of(model)


# ---- pages ----------------------------------------------------------------------------------------------------------


def print_entries(where: str, entries: Sequence[ModelEntry], aliases: Aliases) -> None:
    """The list of models."""
    console = _console()
    if not entries:
        console.print(f"{where} has no models yet: streamrnn models add FOLDER", highlight=False, soft_wrap=True)
        return
    table = Table("model", "is", "made", "parent", "scores", "verdict", "KiB", box=None)
    for one in entries:
        names = [f"{name} (pinned)" if name == "champion" and aliases.pinned else name for name in one.aliases]
        scores = "refused: see `models show`" if one.problem else _pairs(one.scores, 3)
        cells = (one.model, ", ".join(names), _time(one.created_ms), one.parent or "", scores, one.verdict or "",
                 f"{one.bytes / 1024:,.0f}")  # fmt: skip
        table.add_row(*map(escape, cells))
    console.print(table)


def print_history(changes: Iterable[Change]) -> None:
    """Every change, one line each."""
    table = Table("", "when", "who", "what", "champion", "challenger", "why", box=None)
    for one in changes:
        why = one.reason + (f" ({_pairs(one.numbers, 4)})" if one.numbers else "")
        cells = (str(one.version), _time(one.at_ms), one.by, one.what, one.aliases.champion or "",
                 one.aliases.challenger or "", why)  # fmt: skip
        table.add_row(*map(escape, cells))
    _console().print(table)


def print_page(page: Mapping[str, Any], html: Path | None = None) -> None:
    """One model's page, also into an HTML file where one is named."""
    console = _console(record=html is not None)
    card, report = page["card"], page["report"]
    config = card["config"]
    data, added = card.get("data"), page["added"]
    lines = [
        ("model", f"{card['model']}{'  ' + ', '.join(page['aliases']) if page['aliases'] else ''}"),
        ("registry", page["registry"]),
        ("made", _time(card["created_ms"])),
        ("added", f"{_time(added['at_ms'])} by {added['by'] or '?'}: {added['reason']}" if added["at_ms"] else ""),
        ("parent", card.get("parent") or "none: training began anew"),
        ("network", f"{config['cell']}, {config['layers']} x {config['hidden']}, head {config['head']}"),
        ("task", config.get("task", "many-to-many")),
        ("reads", _names(config.get("vocabulary") or config["features"])),
        ("answers", _names(config.get("labels") or config["targets"])),
        ("data", _data(data)),
        ("scores", _pairs(card.get("scores") or {})),
    ]  # fmt: skip
    for name, value in lines:
        if value:
            console.print(f"[bold]{name:<9}[/] ", end="")
            console.print(value, markup=False, highlight=False, soft_wrap=True)
    parts: tuple[tuple[str, Callable[[], Table | None]], ...] = (
        ("Learning curve", lambda: _curve(report.get("curve"))),
        ("Scores", lambda: _table([report["scores"]])),
        ("By horizon", lambda: _table(report["by_horizon"])),
        ("By group", lambda: _table(_named("group", report["by_group"]))),
        ("Calibration", lambda: _table(_rows(report["calibration"]))),
        ("Rivals, on the same readings", lambda: _table(_named("rival", report["rivals"]))),
        ("Verdicts", lambda: _table(page["verdicts"])),
        ("History", lambda: _table([_line(one) for one in page["history"]])),
    )
    for title, part in parts:
        try:
            shown = part()
        except (KeyError, TypeError, ValueError, AttributeError):  # another trainer's report
            continue
        if shown is not None:
            console.print(f"\n[bold]{title}[/]")
            console.print(shown)
    if html is not None:
        from services.registry.problems import Unreachable

        try:
            console.save_html(str(html))
        except OSError as error:
            raise Unreachable(f"{html} cannot be written: {error.strerror or error}.") from None
        console.print(f"\nwritten to {html}", highlight=False, soft_wrap=True)


def _console(record: bool = False) -> Console:
    return Console(width=max(WIDTH, Console().width), record=record)


def _data(data: Mapping[str, Any] | None) -> str:
    if not data:
        return "not known"
    known = f"{data['rows']:,} readings, {_time(data['from_ms'])} to {_time(data['to_ms'])}"
    rest = {name: value for name, value in data.items() if name not in ("rows", "from_ms", "to_ms", "digest") and value}
    return f"{known}, digest {str(data['digest'])[:12]}" + (f"; {_pairs(rest)}" if rest else "")


def _line(change: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"": change["version"], "when": _time(change["at_ms"]), "who": change["by"], "what": change["what"],
            "why": change["reason"], "numbers": change["numbers"]}  # fmt: skip


# ---- small shapes ---------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """A table with the columns that any row has; None where there is nothing to show."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns or not rows:
        return None
    table = Table(*(escape(str(name)) for name in columns), box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(escape(_cell(name, row.get(name))) for name in columns))
    return table


def _rows(value: Any) -> list[Mapping[str, Any]]:
    """A list of mappings as it is, a mapping of mappings by name, a plain mapping as one row."""
    if isinstance(value, Mapping):
        nested = any(isinstance(inner, Mapping) for inner in value.values())
        return _named("", value) if nested else [value]
    return [one for one in value if isinstance(one, Mapping)]


def _named(column: str, value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        return _rows(value)
    return [{column: name, **(inner if isinstance(inner, Mapping) else {"score": inner})}
            for name, inner in value.items() if inner is not None]  # fmt: skip


def _curve(curve: Any) -> Table | None:
    """Each number's course over training as a line of bars, its first and last value beside it."""
    points = [one if isinstance(one, Mapping) else {"loss": one} for one in curve]
    names = [name for name in dict.fromkeys(key for one in points for key in one)
             if any(isinstance(one.get(name), float) for one in points)]  # fmt: skip
    rows = []
    for name in names:
        values = [float(one[name]) for one in points if isinstance(one.get(name), int | float)]
        rows.append({"": name, "first": values[0], "last": values[-1], "least": min(values), "course": _bars(values)})
    return _table(rows)


def _bars(values: Sequence[float], most: int = 48) -> str:
    step = max(1, -(-len(values) // most))
    some = [sum(part) / len(part) for part in (values[at : at + step] for at in range(0, len(values), step))]
    low, high = min(some), max(some)
    return "".join(LOWEST[1 + round((len(LOWEST) - 2) * (one - low) / ((high - low) or 1))] for one in some)


def _cell(name: Any, value: Any) -> str:
    if isinstance(value, Mapping):
        return _pairs(value)
    if str(name).endswith("_ms") and isinstance(value, int) and value > 1e11:
        return _time(value)
    return "" if value is None else _number(value)


def _pairs(values: Mapping[str, Any], most: int | None = None) -> str:
    shown = [f"{name} {_number(value)}" for name, value in list(values.items())[:most]]
    return ", ".join(shown) + (" ..." if most and len(values) > most else "")


def _number(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_number, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _time(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return str(at_ms)
