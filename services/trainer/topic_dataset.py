"""A range of a topic as series to learn from: decoded as the service does it, grouped by stream, in order of arrival.

Imports numpy, rnn and codecs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn.config import ModelConfig
from rnn.io.card import TrainingSource
from rnn.nn.clock import NEVER_MS
from rnn.serve.ordering import WINDOW
from rnn.train.dataset import LabeledSeries, truth_width
from rnn.train.recipe import default_config
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.codecs.schema_inference import naming
from services.records import NO_SEQ, Readings, Records
from services.tables.table_dataset import TableDataset
from services.trainer import data_checks
from services.trainer.ranges import Range, WrongRange
from services.trainer.topic_readers import TopicReader

SAMPLED = 2_000
"""Records of each partition that are looked at for names."""
UNREAD = 20
"""Batches that unpack to too much which are named one by one; all are counted."""
PACKED_ROWS = 1_000_000
"""The largest packed record: what the service took, training takes."""


@dataclass(frozen=True, slots=True)
class TopicDataset:
    """What a range held."""

    material: TableDataset
    source: TrainingSource
    from_ms: int  # time of the first reading
    to_ms: int  # time of the last reading
    notes: tuple[str, ...] = ()  # what a person should know, though it does no harm


@dataclass(slots=True)
class _ReadingColumns:
    """Accepted readings of all partitions, in order of arrival within each."""

    number: list[NDArray[np.int64]] = field(default_factory=list)  # of the stream
    at_ms: list[NDArray[np.int64]] = field(default_factory=list)
    x: list[NDArray[np.float32]] = field(default_factory=list)
    seq: list[NDArray[np.int64]] = field(default_factory=list)
    end: list[NDArray[np.uint8]] = field(default_factory=list)
    streams: dict[tuple[int, bytes], int] = field(default_factory=dict)  # (partition, key) -> number
    rows: Counter[int] = field(default_factory=Counter)  # partition -> readings
    reasons: Counter[str] = field(default_factory=Counter)  # of refused records
    example: str = ""  # what was wrong with the first one
    unread: list[str] = field(default_factory=list)  # of batches that unpack to too much, a sentence each

    def add(self, readings: Readings) -> None:
        if not len(readings):
            return
        at, part = self.streams, readings.partition
        self.number.append(np.array([at.setdefault((part, key), len(at)) for key in readings.streams], np.int64))
        self.at_ms.append(readings.at_ms)
        self.x.append(readings.x)
        self.seq.append(readings.seq)
        self.end.append(readings.end)
        self.rows[part] += len(readings)


def take(
    past: TopicReader,
    wanted: Range,
    *,
    parent: ModelConfig | None = None,
    features: Sequence[str] = (),
    model: Mapping[str, Any] | None = None,
) -> TopicDataset:
    """Reads the range. What a reading may hold is the parent's config's to say; without one the readings' own names
    are taken, or `features` where they have none, with the default config or the fields `model` of one.

    Readings keep their order of arrival, as in service; those that repeat a sequence number are left out, as there. A
    key in two partitions is two streams. Raises WrongRange where nothing can be learned from what is there.
    """
    records: Iterable[Records] = past.read(wanted.partitions)
    if parent is None:
        first = list(islice(iter(records), 1))
        names = _names(past, wanted, first, features, model or {})
        schema, records = Schema(names), chain(first, records)
    else:
        _refuse_untold(parent)
        schema = Schema(parent.features, parent.vocabulary)
    columns = _decoded(records, schema)
    holes = past.holes(wanted.partitions)
    if not columns.rows:
        raise _nothing(wanted, columns, holes)
    config = parent or _config(schema.features, columns, model or {})
    series, names_of, repeated = _series(columns)
    notes = [*wanted.notes, *(_hole(*one) for one in holes), *data_checks.whole(wanted, config, series)]
    notes += [f"topic {wanted.topic}, {one} Training does without it." for one in columns.unread[:UNREAD]]
    if refused := sum(columns.reasons.values()):
        notes.append(f"{refused:,} records were refused ({_said(columns.reasons)}); the first one: {columns.example}")
    rows = dict(sorted(columns.rows.items()))
    source = TrainingSource(
        wanted.topic, dict(wanted.partitions), rows, len(series), sum(columns.reasons.values()), repeated
    )
    material = TableDataset(config, tuple(series), tuple(names_of), _digest(names_of, series))
    times = np.concatenate(columns.at_ms)
    return TopicDataset(material, source, int(times.min()), int(times.max()), tuple(notes))


def _decoded(records: Iterable[Records], schema: Schema) -> _ReadingColumns:
    decoder, columns = ReadingDecoder(schema, PACKED_ROWS), _ReadingColumns()
    for some in records:
        readings, rejected = decoder.decode(some)
        columns.add(readings)
        if len(rejected):
            columns.reasons.update(map(str, rejected.reasons))
            place = f"partition {some.partition}, offset {int(rejected.records.offsets[0])}"
            columns.example = columns.example or f"{place}: {rejected.details[0]}"
            columns.unread += [f"partition {some.partition}: {why}" for _, why in some.refused.values()]
    return columns


# ---- what a reading holds -------------------------------------------------------------------------------------------


def _names(
    past: TopicReader, wanted: Range, first: list[Records], features: Sequence[str], model: Mapping[str, Any]
) -> tuple[str, ...]:
    """Features in order, where no model says."""
    given = tuple(features) or tuple(model.get("features", ()))
    sample = [value for some in first for value in some.values[:SAMPLED]]
    for partition, (begin, end) in wanted.partitions.items():
        if given or any(some.partition == partition for some in first):
            continue
        for some in past.read({partition: (begin, min(end, begin + SAMPLED))}):
            sample += some.values
    found = naming(sample)
    if given:
        return given
    if found.names:
        return found.names
    if found.symbols and not found.positional:
        raise WrongRange(
            f"{wanted}: readings are symbols, and no model says which there are: name one with --model, or train on a "
            "table with --config"
        )
    if found.positional:
        raise WrongRange(
            f"{wanted}: readings have {found.positional} values without names: name them in order with --features "
            "A,B,..., or the model that they are for with --model"
        )
    raise WrongRange(f"{wanted}: none of the {len(sample):,} records looked at is a reading; see docs/wire.md")


def _config(features: tuple[str, ...], columns: _ReadingColumns, model: Mapping[str, Any]) -> ModelConfig:
    gaps = [_gaps(number, at_ms) for number, at_ms in zip(columns.number, columns.at_ms, strict=True)]
    known = np.concatenate([gap[gap > 0] for gap in gaps])
    interval_s = float(np.median(known)) / 1000 if len(known) else 1.0
    if not model:
        return default_config(features, interval_s, (), sum(columns.rows.values()))
    try:
        config = ModelConfig.from_tree({"interval_s": interval_s, **model, "features": features})
    except (ValueError, TypeError) as error:
        raise WrongRange(f"model: {error}") from None
    _refuse_untold(config)
    return config


def _gaps(number: NDArray[np.int64], at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times between neighbouring readings of each stream, in one part of the range."""
    order = np.argsort(number, kind="stable")
    same = np.diff(number[order]) == 0
    return np.asarray(np.diff(at_ms[order])[same])


def _refuse_untold(config: ModelConfig) -> None:
    if truth_width(config):
        raise WrongRange(
            "this network learns from truths (labels, tags, answers) that readings do not carry: train it on a table, "
            "`streamrnn train --config`"
        )


# ---- series ---------------------------------------------------------------------------------------------------------


def _series(columns: _ReadingColumns) -> tuple[list[LabeledSeries], list[str], int]:
    """(series, their names, repeated readings that were left out)."""
    number, at_ms = np.concatenate(columns.number), np.concatenate(columns.at_ms)
    x, seq, end = np.concatenate(columns.x), np.concatenate(columns.seq), np.concatenate(columns.end)
    order = np.argsort(number, kind="stable")
    edges = np.flatnonzero(np.diff(number[order])) + 1
    twice = Counter(key for _, key in columns.streams)
    names = []
    for partition, key in columns.streams:
        text = key.decode(errors="backslashreplace")
        names.append(text if twice[key] == 1 else f"{text}@{partition}")
    made, repeated = [], 0
    for mine in np.split(order, edges):
        kept = mine[~_repeats(seq[mine], at_ms[mine])]
        repeated += len(mine) - len(kept)
        made.append(LabeledSeries(x[kept], at_ms[kept], end[kept], np.zeros((len(kept), 0), np.float32)))
    return made, names, repeated


def _repeats(seq: NDArray[np.int64], at_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which readings of a stream are duplicates to the service, as `rnn.serve.ordering.check` says; one by one."""
    twice = np.zeros(len(seq), np.bool_)
    if (seq == NO_SEQ).all() or (np.diff(seq) > 0).all():
        return twice
    top, bits, last_ms = -1, 0, NEVER_MS
    for place, (number, at) in enumerate(zip(seq.tolist(), at_ms.tolist(), strict=True)):
        behind, late = top - number, at <= last_ms
        seen = number >= 0 and 0 <= behind < WINDOW and bits >> behind & 1 == 1
        if seen and late:
            twice[place] = True
            continue
        last_ms = max(last_ms, at)
        if number < 0:
            continue
        if behind >= WINDOW or seen or behind <= -WINDOW:
            top, bits = number, 1
        elif behind < 0:
            top, bits = number, (bits << -behind | 1) & (1 << WINDOW) - 1
        else:
            bits |= 1 << behind
    return twice


def _digest(names: Sequence[str], series: Sequence[LabeledSeries]) -> str:
    """sha256 of what is learned from, whatever the partitions were read in."""
    digest = hashlib.sha256()
    for name, one in sorted(zip(names, series, strict=True), key=lambda pair: pair[0]):
        digest.update(f"{name} {one.x.shape}".encode())
        for array in (one.x, one.at_ms, one.end):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _nothing(wanted: Range, columns: _ReadingColumns, holes: Sequence[tuple[int, int, int]]) -> WrongRange:
    refused = sum(columns.reasons.values())
    if not refused:
        only = "what could not be archived, and " if holes else ""
        return WrongRange(f"{wanted} holds no committed record, only {only}marks of transactions: take another range")
    return WrongRange(
        f"{wanted}: all {refused:,} records were refused ({_said(columns.reasons)}); the first one: {columns.example} "
        "Name the model that they are for with --model, or their values with --features"
    )


def _hole(partition: int, first: int, end: int) -> str:
    return (
        f"offsets {first} to {end - 1} of partition {partition} could not be archived (`streamrnn archive verify` says "
        "why): training does without them"
    )


def _said(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(4))
