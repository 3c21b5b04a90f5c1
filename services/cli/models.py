"""`streamrnn models`: the registry's models, and which of them serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.brokers.kafka_models_in_use import ModelsInUse
    from services.registry import Aliases, Registry

app = typer.Typer(
    no_args_is_help=True,
    help="Models that were published: look at them, and say which one serves.",
    epilog="""\b
Publish a model and let it serve:
  streamrnn models add model --registry models --reason "first one"
  streamrnn models promote ID --registry models
\b
ID is an id, the beginning of one, or champion, challenger, previous. The registry is a folder or a URL
(s3://bucket/models), given by --registry, by STREAMRNN__REGISTRY, or as `registry` in the settings file.
""",
)

Where = Annotated[
    str | None, typer.Option("--registry", "-r", envvar="STREAMRNN__REGISTRY", help="Folder or URL of the registry.")
]
Config = Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings that names the registry.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
Reason = Annotated[str, typer.Option(help="Why; the history keeps it.")]
By = Annotated[str, typer.Option(help="Who, for the history; this user on this machine unless said.")]
Model = Annotated[str, typer.Argument(help="An id, the beginning of one, or an alias.")]


class NoRegistry(Exception):
    """Nobody said where the registry is. The message says how to."""


class NoRows(Exception):
    """Nobody said whose state rows count. The message says how to."""


class UnknownRows(Exception):
    """State rows of another release may name any model. The message says what to do."""


@app.command("list")
def list_(where: Where = None, config: Config = None, json_form: Json = False) -> None:
    """Lists the models, the newest first, with what each one is now."""
    from services.cli.models_view import entry_object, print_entries

    registry = _registry(where, config)
    entries = registry.models()
    if json_form:
        _print({"aliases": _state(registry.aliases()), "models": [entry_object(one) for one in entries]})
        return
    print_entries(registry.where, entries, registry.aliases())


@app.command()
def show(
    model: Model,
    where: Where = None,
    config: Config = None,
    json_form: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write the page into this file, too.")] = None,
) -> None:
    """One model's page: what it learned from, its scores by horizon and group, its rivals, verdicts and history."""
    from services.cli.models_view import page_object, print_page

    registry = _registry(where, config)
    found = page_object(registry, registry.resolve(model))
    if json_form:
        _print(found)
    else:
        print_page(found, html)


@app.command()
def add(
    folder: Annotated[Path, typer.Argument(help="Folder of the model, as `streamrnn train` leaves it.")],
    where: Where = None,
    config: Config = None,
    reason: Reason = "by hand",
    by: By = "",
    json_form: Json = False,
) -> None:
    """Publishes a model: checks it and copies its folder into the registry. No alias changes."""
    registry = _registry(where, config)
    card = registry.add(folder, reason=reason, by=by or _who())
    if json_form:
        _print({"model": card.model, "sha256": card.sha256})
    else:
        typer.echo(f"model     {card.model} in {registry.where}")
        typer.echo(f"next      streamrnn models challenge {card.model}, or promote it at once")


@app.command()
def promote(
    model: Model,
    where: Where = None,
    config: Config = None,
    reason: Reason = "by hand",
    by: By = "",
    json_form: Json = False,
) -> None:
    """Makes a model the champion, which serves; the champion becomes the previous one."""
    _change(where, config, json_form, lambda one: one.promote(one.resolve(model), reason=reason, by=by or _who()))


@app.command()
def challenge(
    model: Model,
    where: Where = None,
    config: Config = None,
    reason: Reason = "by hand",
    by: By = "",
    json_form: Json = False,
) -> None:
    """Makes a model the challenger, which runs beside the champion and is compared with it."""
    _change(where, config, json_form, lambda one: one.challenge(one.resolve(model), reason=reason, by=by or _who()))


@app.command()
def withdraw(
    where: Where = None, config: Config = None, reason: Reason = "by hand", by: By = "", json_form: Json = False
) -> None:
    """Takes the challenger back."""
    _change(where, config, json_form, lambda one: one.withdraw(reason=reason, by=by or _who()))


@app.command()
def rollback(
    where: Where = None, config: Config = None, reason: Reason = "by hand", by: By = "", json_form: Json = False
) -> None:
    """Makes the previous champion the champion again. Once more undoes it."""
    _change(where, config, json_form, lambda one: one.rollback(reason=reason, by=by or _who()))


@app.command()
def pin(
    where: Where = None, config: Config = None, reason: Reason = "by hand", by: By = "", json_form: Json = False
) -> None:
    """Keeps the champion: nobody, no program either, promotes or rolls back until `unpin`. Challengers still run."""
    _change(where, config, json_form, lambda one: one.pin(reason=reason, by=by or _who()))


@app.command()
def unpin(
    where: Where = None, config: Config = None, reason: Reason = "by hand", by: By = "", json_form: Json = False
) -> None:
    """Lets the champion be changed again."""
    _change(where, config, json_form, lambda one: one.pin(False, reason=reason, by=by or _who()))


@app.command()
def history(where: Where = None, config: Config = None, json_form: Json = False) -> None:
    """Every change of the aliases with its time, who, why and numbers, the oldest first."""
    from services.cli.models_view import change_object, print_history

    changes = _registry(where, config).history()
    if json_form:
        _print([change_object(one) for one in changes])
    else:
        print_history(changes)


@app.command()
def gc(
    where: Where = None,
    config: Config = None,
    older_than_days: Annotated[float, typer.Option(min=0, help="Younger models stay.")] = 30.0,
    keep: Annotated[list[str] | None, typer.Option(help="Also keep this model; may be given often.")] = None,
    without_rows: Annotated[
        bool, typer.Option("--without-rows", help="In place of --config: no pipeline's state rows are to be looked at.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    by: By = "",
    json_form: Json = False,
) -> None:
    """Removes models that nothing names: no alias, no parent of an aliased model, no --keep, and no state row.

    The rows are those of the pipeline of --config: its changelog is read. Where there is none, or it rests, say
    --without-rows, and name models whose streams may come back with --keep. What could not be read is counted, and
    models that it seems to name stay; where rows of another release are among it, nothing is removed.
    """
    if config is None and not without_rows and not dry_run:
        raise NoRows(
            "models that state rows name must stay: give --config of the pipeline whose changelog is to be read, or "
            "--without-rows where no pipeline has any; --dry-run only says what would go"
        )
    registry = _registry(where, config)
    rows = _named_by_rows(config)
    kept = [*(registry.resolve(model) for model in keep or []), *sorted(rows.models)]
    gone = registry.collect(kept, older_than_s=older_than_days * 86_400, by=by or _who(), dry_run=dry_run)
    if json_form:
        unread = {"unread": rows.unread} if rows.unread else {}
        _print({"would_go" if dry_run else "gone": gone} | unread)
        return
    if rows.unread:
        typer.echo(f"unread    {rows.unread:,} records; the first: {rows.first}")
    for model in gone:
        typer.echo(f"{'would go' if dry_run else 'gone':<9} {model}")
    if not gone:
        typer.echo(f"nothing to remove: all models are named or younger than {older_than_days:g} days")


@app.command("export-mlflow")
def export_mlflow(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="New or empty folder to write.")],
    where: Where = None,
    config: Config = None,
) -> None:
    """Writes a model as an MLflow model folder, for mlflow.pyfunc.load_model where streamrnn is installed."""
    from services.registry.mlflow_folder import export

    registry = _registry(where, config)
    made = export(registry, registry.resolve(model), folder)
    typer.echo(f"written   {made}")
    typer.echo("next      mlflow.pyfunc.load_model(that folder).predict(a table of readings)")


def _named_by_rows(config: str | None) -> ModelsInUse:
    from services.brokers.kafka_models_in_use import ModelsInUse, models_named

    if config is None:
        return ModelsInUse()
    from services.settings import load

    settings = load(config, [])
    rows = models_named(settings.kafka, settings.topics.changelog, settings.epoch.max_poll_mib << 20)
    if rows.another_version:
        raise UnknownRows(
            f"nothing is removed: state rows of another release may name any model. {rows.another_version} Run "
            "`streamrnn models gc` of the release that wrote them; if none has, give --without-rows, and --keep "
            "for each model whose streams may come back"
        )
    return rows


def _registry(where: str | None, config: str | None) -> Registry:
    from services.registry import Registry

    if not where:
        from services.settings import load

        where = getattr(load(config, []), "registry", None)
    if not where:
        raise NoRegistry("which registry? Give --registry FOLDER or URL, set STREAMRNN__REGISTRY, or name it as "
                         "`registry` in the settings file and give that with --config")  # fmt: skip
    return Registry(where)


def _change(where: str | None, config: str | None, json_form: bool, change: Callable[[Registry], Aliases]) -> None:
    registry = _registry(where, config)
    before = registry.aliases()
    after = change(registry)
    if json_form:
        _print(_state(after))
        return
    from services.registry.aliases import NAMES

    for name in NAMES:
        was, now = getattr(before, name), getattr(after, name)
        typer.echo(f"{name:<11} {now or '-'}" + (f"   (was {was or '-'})" if was != now else ""))
    typer.echo(f"{'pinned':<11} {'yes' if after.pinned else 'no'}")
    if before.version == after.version:
        typer.echo("nothing changed")


def _state(aliases: Aliases) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(aliases)


def _print(tree: Any) -> None:
    typer.echo(json.dumps(tree, allow_nan=False))


def _who() -> str:
    import getpass
    import socket

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user without a name
        return socket.gethostname()
