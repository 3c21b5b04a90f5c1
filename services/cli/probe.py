"""`streamrnn probe`: one reading goes through a pipeline that is being served, and its prediction comes back."""

from __future__ import annotations

import json
import secrets
import time
import zlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rnn.config import ModelConfig
    from services.settings import Settings

TICK_S = 0.1


def probe(
    config: Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set pipeline=pumps.")] = None,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the prediction.")] = 60.0,
) -> None:
    """Writes one reading of a stream of its own to the readings topic, waits for its prediction, and prints that.

    \b
    The stream is called streamrnn-probe-..., and is forgotten after `state.ttl_days` like any other that is silent.
    Exit codes: 0 answered, 1 not answered in time, or the broker does not answer.
    """
    from services.brokers.kafka_client import end_offsets, open_producer
    from services.brokers.kafka_source import KafkaSource
    from services.codecs import predictions
    from services.settings import load

    settings = load(config, set_ or [])
    at_ms, stream = time.time_ns() // 1_000_000, f"streamrnn-probe-{secrets.token_hex(4)}".encode()
    value = json.dumps({"at": at_ms, **_reading(_config(settings))}).encode()
    ends = end_offsets(settings.kafka, settings.topics.predictions)
    partition = zlib.crc32(stream) % len(ends)
    source = KafkaSource(settings.kafka, settings.topics.predictions, sorted(ends))
    source.seek(ends)
    began_s = time.monotonic()
    try:
        with open_producer(settings.kafka) as producer:
            producer.append(settings.topics.readings, partition, [stream], [value], at_ms)
            producer.flush()
        while time.monotonic() < began_s + wait:
            for records in source.poll(10_000, TICK_S):
                if stream in predictions.decode(records).streams:
                    where = next(row for row, key in enumerate(records.keys) if key == stream)
                    typer.echo(f"{(records.values[where] or b'').decode()}")
                    typer.echo(f"answered in {time.monotonic() - began_s:.2f} s", err=True)
                    return
    finally:
        source.close()
    typer.echo(
        f"streamrnn probe: no prediction of {stream.decode()} in {settings.topics.predictions} within {wait:g} s: is "
        f"`streamrnn serve` ready, and does it read {settings.topics.readings}?", err=True,
    )  # fmt: skip
    raise typer.Exit(1)


def _config(settings: Settings) -> ModelConfig:
    """The shape of the model that serves. Raises ModelRefused, or the registry's errors."""
    from rnn.io import weights

    if settings.registry is None:
        return weights.load(settings.model)[1].config
    from services.registry import Registry

    registry = Registry(settings.registry)
    return registry.card(registry.resolve("champion")).config


def _reading(config: ModelConfig) -> dict[str, Any]:
    """A reading that such a model answers: a symbol it knows, or zeros; an end where only that is answered."""
    x: Any = config.vocabulary[0] if config.symbolic else [0.0] * len(config.features)
    return {"x": x, "end": True} if config.at_end else {"x": x}
