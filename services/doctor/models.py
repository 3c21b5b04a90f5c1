"""The models: registry or folder, whole or damaged; whether what they say and remember fits. May import registry,
fleet and rnn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.doctor.lines import CheckResult, Target, size
from services.predictor.ports import Refused
from services.records import Role
from services.settings import Settings

if TYPE_CHECKING:
    from rnn.io.card import Card

FEW_SLOTS = 8
RECENT_BYTES = 9
"""Of one of the latest readings, beside 4 for each feature."""


def model(patient: Target) -> Iterator[CheckResult]:
    """The models that would be served are there, whole, and work on this machine."""
    from rnn.io import weights
    from rnn.io.card import read_card

    settings = patient.settings
    if settings.registry is None:
        yield from _room(settings, read_card(settings.model))
        network, card = weights.load(settings.model)
        yield CheckResult("model", "ok", f"{settings.model}: {_named(card)}")
        yield from _works(settings, network)
        return
    from services.registry import Registry

    with tempfile.TemporaryDirectory() as copies:  # of an object store's models: the user's cache is left as it is
        registry = Registry(settings.registry, cache=Path(copies))
        aliases = registry.aliases()
        if aliases.champion is None:
            yield from _room(settings, read_card(settings.model))
            network, card = weights.load(settings.model)
            yield CheckResult(
                "model",
                "ok",
                f"registry {registry.where} has no champion; {settings.model} will be its first: {_named(card)}",
            )
            yield from _works(settings, network)
            return
        for alias in ("champion", "challenger", "previous"):
            name = getattr(aliases, alias)
            if name is None:
                continue
            try:
                yield from _room(settings, registry.card(name))
                network, card = weights.load(registry.folder(name))
            except Exception as error:
                if alias == "champion":
                    raise
                yield CheckResult(
                    "model",
                    "warn",
                    f"{alias} of {registry.where}: {error}".rstrip("."),
                    "Add the model again with `streamrnn models add FOLDER`, or name another one.",
                )
                continue
            yield CheckResult("model", "ok", f"{alias} of {registry.where}: {_named(card)}")
            if alias == "champion":
                yield from _works(settings, network)


def _named(card: Card) -> str:
    config = card.config
    return f"{card.model}, {config.task}, {len(config.features)} features, its weights as its card says"


def _works(settings: Settings, network: Any) -> Iterator[CheckResult]:
    from rnn.serve.build import engine_of
    from services.fleet.room import adaptation

    engine = engine_of(network, FEW_SLOTS, "cpu", adaptation(settings))  # ValueError: `state.adapt` does not suit it
    if broken := engine.check():
        yield CheckResult(
            "model",
            "warn",
            f"with batches of {', '.join(map(str, broken))} rows a stream's result depends on "
            "its neighbours on this processor",
            "Predictions stay exactly once; equality of bits is lost. Use "
            "another version of torch, or another machine.",
        )


def _room(settings: Settings, card: Card) -> Iterator[CheckResult]:
    """Raises Refused for a model that `serve` would refuse for its size; a line where it fits barely. Of shards on
    other machines nothing is known here.
    """
    from services.fleet.assembly import device_of
    from services.fleet.room import footprint_of, room, want_of_room

    if settings.fleet.ray_address is not None:
        return
    try:
        device = device_of(settings.device)
    except Refused:  # no such GPU: the check of torch says it
        return
    slots, shards = settings.state.slots, settings.fleet.shards
    need, there = footprint_of(card, settings, device), room(device)
    if why := want_of_room(card, need, there, slots, shards):
        raise Refused(why)
    if want_of_room(card, need, there, slots, 2 * shards):
        yield CheckResult(
            "model",
            "warn",
            f"{card.model} takes more than half of the memory that is free: {size(max(need.host, need.gpu))} in each "
            f"of {shards} shards",
            "Lower state.slots: more live streams than slots only cost speed. A challenger needs as much beside it.",
        )


def row_bytes(settings: Settings) -> int:
    """Of a state row, with every memory that it may hold; 0 where there is no model to tell."""
    with suppress(Exception):
        network = _champion(settings)
        from rnn.serve.build import engine_of
        from services.fleet.room import adaptation

        table = engine_of(network, FEW_SLOTS, "cpu", adaptation(settings)).table
        if settings.registry is None:
            return int(table.row_bytes)
        recent = settings.state.recent * (4 * len(network.config.features) + RECENT_BYTES)
        return 2 * int(table.row_bytes) + recent
    return 0


def _champion(settings: Settings) -> Any:
    from rnn.io import weights

    if settings.registry is not None:
        from services.registry import Registry

        with tempfile.TemporaryDirectory() as copies:
            registry = Registry(settings.registry, cache=Path(copies))
            if (name := registry.aliases().champion) is not None:
                return weights.load(registry.folder(name))[0]
    return weights.load(settings.model)[0]


def fit(patient: Target) -> Iterator[CheckResult]:
    """What the model says and remembers fits into the topics' max.message.bytes."""
    from services.brokers.kafka_topics import max_message_bytes
    from services.fleet.assembly import OVERHEAD_BYTES, answer_bytes, topic_names

    settings = patient.settings
    names = topic_names(settings)
    answer, row = answer_bytes(_champion(settings).config), row_bytes(settings)
    limits = max_message_bytes(settings.kafka, list(names.values()), 1)
    tight = False
    for role, what, needed in ((Role.PREDICTIONS, "a prediction", answer), (Role.CHANGELOG, "a state row", row)):
        if limits[names[role]] < needed + 2 * OVERHEAD_BYTES:
            tight = True
            yield CheckResult(
                "fit",
                "fail",
                f"{names[role]} takes records of {size(limits[names[role]])}, and {what} of this "
                f"model has up to {size(needed)}",
                f"Set max.message.bytes of {names[role]} to {needed + 2 * OVERHEAD_BYTES} or more.",
            )
    if not tight:
        yield CheckResult(
            "fit", "ok", f"predictions of up to {size(answer)} and state rows of {size(row)} fit into the topics"
        )
