"""What became of a run on a real Kafka: every prediction, dead letter, state and offset beside an offline unroll.

The truth is what stands in the readings topic; columns are compared bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Report:
    """What a run found; all of `lost` to `disagreements` must be 0 or True."""

    kills: int = 0
    broker_kills: int = 0
    zombies: int = 0
    zombies_fenced: int = 0
    readings: int = 0
    predictions: int = 0
    rejected: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    bit_identical: bool = False
    dead_letters_exact: bool = False
    state_identical: bool = False
    offsets_agree: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing lost, doubled, out of order or different."""
        return (self.lost, self.doubled, self.out_of_order) == (0, 0, 0) and all(
            (self.bit_identical, self.dead_letters_exact, self.state_identical, self.offsets_agree)
        )


def read_offsets(settings: Any) -> dict[int, int]:
    """Committed offsets of the pipeline's group."""
    from services.brokers.kafka_client import group_offsets

    return dict(group_offsets(settings.kafka, settings.group, settings.topics.readings))


def verify(settings: Any, readings: dict[int, Any], report: Report) -> None:
    """Compares predictions, dead letters, changelog and offsets with an offline unroll of every stream."""
    from rnn.io import weights
    from rnn.serve.engine import Engine
    from services.brokers.kafka_client import read_topic
    from services.codecs import predictions, state_rows
    from services.codecs.readings import ReadingDecoder
    from services.codecs.schema import Schema

    network, card = weights.load(settings.model)
    engine = Engine(network, 16, "cpu")
    decoder = ReadingDecoder(Schema(network.config.features))
    predicted = read_topic(settings.kafka, settings.topics.predictions)
    letters = read_topic(settings.kafka, settings.topics.dead_letters)
    changelog = read_topic(settings.kafka, settings.topics.changelog)
    committed = read_offsets(settings)
    same = dead = state = offsets_agree = True
    for partition, records in readings.items():
        accepted, rejected = decoder.decode(records)
        got = predictions.decode(predicted[partition])
        report.readings += len(records)
        report.predictions += len(got)
        report.rejected += len(rejected)
        count = np.zeros(int(records.offsets[-1]) + 1, np.int64)
        np.add.at(count, got.offsets, 1)
        wanted = count[accepted.offsets]
        report.lost += int((wanted == 0).sum())
        report.doubled += int(np.maximum(wanted - 1, 0).sum()) + int(count.sum() - wanted.sum())
        want_state: dict[bytes, tuple[int, bytes]] = {}
        first_answer = {int(offset): row for row, offset in reversed(list(enumerate(got.offsets.tolist())))}
        names = np.array(accepted.streams, dtype=object)
        got_names = np.array(got.streams, dtype=object)
        for stream in sorted(set(accepted.streams)):
            mine = np.flatnonzero(names == stream)
            engine.clear(np.zeros(1, np.int64))
            result = engine.run(
                np.zeros(len(mine), np.int64), accepted.x[mine], accepted.at_ms[mine], accepted.seq[mine]
            )
            want_state[stream] = (int(accepted.offsets[mine[-1]]), engine.rows(np.zeros(1, np.int64))[0].tobytes())
            rows = [first_answer.get(int(offset), -1) for offset in accepted.offsets[mine]]
            if min(rows) >= 0:
                for name in ("y", "lo", "hi", "score", "flags"):
                    wanted_bits, got_bits = getattr(result, name), getattr(got, name)[rows]
                    if not identical(wanted_bits, got_bits):
                        same = False
                        report.notes.append(difference(name, partition, stream, wanted_bits, got_bits))
            order = got.offsets[got_names == stream]
            report.out_of_order += int((np.diff(order) < 0).sum())
        bad_offsets = rejected.records.offsets.tolist()
        written = letters[partition]
        from_headers = [int(dict(written.headers[row])["__connect.errors.offset"]) for row in range(len(written))]
        dead &= from_headers == bad_offsets and written.values == rejected.records.values
        kept, _ = state_rows.decode(changelog[partition])
        rows = kept.memory(card.model).rows
        have = {stream: (int(kept.offsets[row]), rows[row].tobytes()) for row, stream in enumerate(kept.streams)}
        state &= have == want_state
        offsets_agree &= committed.get(partition) == int(records.offsets[-1]) + 1
    report.bit_identical, report.dead_letters_exact = same, dead
    report.state_identical, report.offsets_agree = state, offsets_agree


def difference(name: str, partition: int, stream: bytes, wanted: np.ndarray, got: np.ndarray) -> str:
    """The first place where two columns differ, as a sentence."""
    for row, (a, b) in enumerate(zip(wanted, got, strict=True)):
        if not identical(np.atleast_1d(a), np.atleast_1d(b)):
            return f"{name} of {stream.decode()} in partition {partition}, its reading {row}: {a} offline, {b} online"
    return f"{name} of {stream.decode()} in partition {partition}: {wanted.dtype}{wanted.shape}, {got.dtype}{got.shape}"


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit, every NaN counting as the same one (the wire's null has no payload)."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    if a.dtype.kind == "f":
        a, b = np.where(np.isnan(a), np.float32(np.nan), a), np.where(np.isnan(b), np.float32(np.nan), b)
    return a.shape == b.shape and a.tobytes() == b.tobytes()
