"""`streamrnn replay`: a table goes to Kafka as its sensors would write it, and what is said of it comes back."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.codecs.predictions import PredictionRows
    from services.tables.table_dataset import TableDataset

TICK_S = 0.05

Record = tuple[int, bytes, bytes]
"""Partition, key, value."""


def replay(
    file: Annotated[Path, typer.Argument(help="YAML as of `streamrnn train --config`; its test part is written.")],
    config: Annotated[str | None, typer.Option("--config", "-c", help="YAML file of settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set pipeline=pumps.")] = None,
    first: Annotated[int, typer.Option(min=1, help="Write so many readings at most.")] = 1000,
    rate: Annotated[float, typer.Option(min=0.1, help="Readings a second.")] = 50.0,
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds of silence after which no more is expected.")] = 15.0,
    json_form: Annotated[
        bool, typer.Option("--json", help="Print predictions as they came, a JSON object each.")
    ] = False,
) -> None:
    """Writes the test part of what FILE names to the readings topic, and prints the predictions as they come.

    \b
    While another terminal runs `streamrnn serve -c streamrnn.yaml`:
      streamrnn replay examples/entities/config.yaml -c streamrnn.yaml
    Stops when nothing comes any more, or with Ctrl-C; what was written stays in the topic.
    """
    import time

    from rich.console import Console

    from services.brokers.kafka_client import end_offsets, open_producer
    from services.brokers.kafka_source import KafkaSource
    from services.codecs import predictions
    from services.settings import load
    from services.settings.training import training_file
    from services.tables.sets import material_of

    settings, plan = load(config, set_ or []), training_file(file)
    console = Console(stderr=True)
    ends = end_offsets(settings.kafka, settings.topics.predictions)
    material = material_of(plan.data, plan.model, test=True)
    written = _records(material, first, len(ends))
    read = _symbols(material)
    source = KafkaSource(settings.kafka, settings.topics.predictions, sorted(ends))
    source.seek(ends)
    began_s = heard_s = time.monotonic()
    sent, said = 0, 0
    try:
        with open_producer(settings.kafka) as producer:
            while sent < len(written) or time.monotonic() - heard_s < wait:
                due = min(len(written), int((time.monotonic() - began_s) * rate) + 1)
                for partition, key, value in written[sent:due]:
                    producer.append(settings.topics.readings, partition, [key], [value], time.time_ns() // 1_000_000)
                if sent < due:
                    producer.flush()
                    sent, heard_s = due, time.monotonic()
                for records in source.poll(10_000, TICK_S):
                    heard_s = time.monotonic()
                    if json_form:
                        lines: Iterator[str] = (value.decode() for value in records.values if value is not None)
                    else:
                        lines = _lines(predictions.decode(records), read)
                    for line in lines:
                        typer.echo(line)
                        said += 1
                if sent == len(written) and not material.config.at_end and said >= sent:
                    break
    finally:
        source.close()
        console.print(f"{sent:,} readings written, {said:,} predictions read", highlight=False)
    if sent and not said:
        console.print(f"nothing was answered: is `streamrnn serve` running on {settings.topics.readings}?")
        raise typer.Exit(1)


def _records(material: TableDataset, first: int, partitions: int) -> list[Record]:
    """The first readings of all series in order of time, a stream always to the same partition."""
    import numpy as np

    from services.tables.table_dataset import records

    found = [(zlib.crc32(key) % partitions, key, value) for key, values in records(material) for value in values]
    order = np.argsort(np.concatenate([one.at_ms for one in material.series]), kind="stable")
    return [found[place] for place in order[:first].tolist()]


def _symbols(material: TableDataset) -> dict[tuple[bytes, int], str]:
    """What was read of each stream at each time, where it is a symbol."""
    return {
        (name.encode(), at_ms): word
        for name, one, words in zip(material.streams, material.series, material.words, strict=False)
        for at_ms, word in zip(one.at_ms.tolist(), words, strict=True)
    }


def _lines(made: PredictionRows, read: dict[tuple[bytes, int], str]) -> Iterator[str]:
    """One line a prediction, for people."""
    for row, stream in enumerate(made.streams):
        at_ms = int(made.at_ms[row])
        what = read.get((stream, at_ms), _clock(at_ms))
        yield f"{stream.decode(errors='backslashreplace'):<14} {what:<20} {_answer(made, row)}"


def _answer(made: PredictionRows, row: int) -> str:
    if made.text is not None:
        text = made.text[row]
        return "-" if text is None else " ".join(text)
    if made.top is not None:
        top: Any = made.top[row] or ()
        return f"{(made.label or [])[row] or '-':<14} " + "  ".join(f"{name} {prob:.0%}" for name, prob in top)
    values = made.y[row].reshape(-1).tolist()
    return "  ".join(f"{value:.4g}" for value in values[:12]) + ("  ..." if len(values) > 12 else "")


def _clock(at_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
