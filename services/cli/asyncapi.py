"""`streamrnn asyncapi`: the topics as an AsyncAPI document, for the tools that read one."""

from __future__ import annotations

from typing import Annotated

import typer


def asyncapi(
    config: Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set pipeline=pumps.")] = None,
) -> None:
    """Prints the pipeline's topics as an AsyncAPI 3.0 document: addresses, keys, headers, schemas and examples.

    Connects to nothing, and shows no setting but the names of topics and brokers.
    """
    from services.brokers import kafka_options
    from services.settings import load
    from services.wire import document, text

    settings = load(config, set_ or [])
    names = {role: getattr(settings.topics, role) for role in ("readings", "predictions", "changelog", "dead_letters")}
    servers = kafka_options.brokers(settings.kafka).split(",")
    tree = document(
        {**names, "events": settings.topics.events, "group": settings.group}, [server.strip() for server in servers]
    )
    typer.echo(text(tree), nl=False)
