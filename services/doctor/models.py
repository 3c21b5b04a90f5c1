"""The models: registry or folder, whole or damaged; whether what they say and remember fits. May import registry,
fleet and rnn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.doctor.lines import Line, Patient, size
from services.records import Role
from services.settings import Settings

if TYPE_CHECKING:
    from rnn.card import Card

FEW_SLOTS = 8
RECENT_BYTES = 9
"""Of one of the latest readings, beside 4 for each feature."""


def model(patient: Patient) -> Iterator[Line]:
    """The models that would be served are there, whole, and work on this machine."""
    from rnn import weights

    settings = patient.settings
    if settings.registry is None:
        network, card = weights.load(settings.model)
        yield Line("model", "ok", f"{settings.model}: {_named(card)}")
        yield from _works(settings, network)
        return
    from services.registry import Registry

    with tempfile.TemporaryDirectory() as copies:  # of an object store's models: the user's cache is left as it is
        registry = Registry(settings.registry, cache=Path(copies))
        aliases = registry.aliases()
        if aliases.champion is None:
            network, card = weights.load(settings.model)
            yield Line(
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
                network, card = weights.load(registry.folder(name))
            except Exception as error:
                if alias == "champion":
                    raise
                yield Line(
                    "model",
                    "warn",
                    f"{alias} of {registry.where}: {error}".rstrip("."),
                    "Add the model again with `streamrnn models add FOLDER`, or name another one.",
                )
                continue
            yield Line("model", "ok", f"{alias} of {registry.where}: {_named(card)}")
            if alias == "champion":
                yield from _works(settings, network)


def _named(card: Card) -> str:
    config = card.config
    return f"{card.model}, {config.task}, {len(config.features)} features, its weights as its card says"


def _works(settings: Settings, network: Any) -> Iterator[Line]:
    from rnn.serving import engine_of

    engine = engine_of(network, FEW_SLOTS, "cpu", _adaptation(settings))  # ValueError: `state.adapt` does not suit it
    if broken := engine.check():
        yield Line(
            "model",
            "warn",
            f"with batches of {', '.join(map(str, broken))} rows a stream's result depends on "
            "its neighbours on this processor",
            "Predictions stay exactly once; equality of bits is lost. Use "
            "another version of torch, or another machine.",
        )
    table, there = engine.table.row_bytes * settings.state.slots * settings.fleet.shards, _memory_bytes()
    if settings.fleet.ray_address is None and there and table > there / 2:
        yield Line(
            "model",
            "fail" if table > there else "warn",
            f"the tables of {settings.fleet.shards} shards with "
            f"{settings.state.slots:,} slots take {size(table)}; {size(there)} of memory are free",
            "Lower state.slots: more live streams than slots only cost speed.",
        )


def _adaptation(settings: Settings) -> Any:
    from rnn.adapt import Adaptation

    state = settings.state
    return Adaptation(state.adapt, state.adapt_memory) if state.adapt else None


def _memory_bytes() -> int:
    """Memory that is free on this machine, or in this container; 0 where that cannot be told."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        found.append(max(0, limit - int(Path("/sys/fs/cgroup/memory.current").read_text())))
    return min(found, default=0)


def row_bytes(settings: Settings) -> int:
    """Of a state row, with every memory that it may hold; 0 where there is no model to tell."""
    with suppress(Exception):
        network = _champion(settings)
        from rnn.serving import engine_of

        table = engine_of(network, FEW_SLOTS, "cpu", _adaptation(settings)).table
        if settings.registry is None:
            return int(table.row_bytes)
        recent = settings.state.recent * (4 * len(network.config.features) + RECENT_BYTES)
        return 2 * int(table.row_bytes) + recent
    return 0


def _champion(settings: Settings) -> Any:
    from rnn import weights

    if settings.registry is not None:
        from services.registry import Registry

        with tempfile.TemporaryDirectory() as copies:
            registry = Registry(settings.registry, cache=Path(copies))
            if (name := registry.aliases().champion) is not None:
                return weights.load(registry.folder(name))[0]
    return weights.load(settings.model)[0]


def fit(patient: Patient) -> Iterator[Line]:
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
            yield Line(
                "fit",
                "fail",
                f"{names[role]} takes records of {size(limits[names[role]])}, and {what} of this "
                f"model has up to {size(needed)}",
                f"Set max.message.bytes of {names[role]} to {needed + 2 * OVERHEAD_BYTES} or more.",
            )
    if not tight:
        yield Line(
            "fit", "ok", f"predictions of up to {size(answer)} and state rows of {size(row)} fit into the topics"
        )
