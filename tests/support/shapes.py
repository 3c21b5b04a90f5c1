"""Lives of shards that serve networks of every shape, and what must come of them.

What must come of a stream is worked out offline: its readings one at a time on an engine of its own, and at the end of
each round, when the stream has been silent for long, whatever still waited.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from trial import FEATURES, NAMES, Compact, Deed, Kill, Life, Mishap, Schedule, TakeOver, Turn

from rnn.config import END, ModelConfig
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from rnn.serve.result import Result
from services.codecs import predictions, state_rows
from services.driver import START_MS
from services.predictor.state_store import StateStore
from services.records import NO_SEQ, Role

WORDS = ("cat", "chased", "mouse")
STRANGER = "dog"
FLUSH_MS = 600_000

REAL: dict[str, Any] = {"features": FEATURES, "hidden": 5}
SPOKEN: dict[str, Any] = {"vocabulary": WORDS, "hidden": 5, "embedding": 3, "head": "categorical"}
KINDS: dict[str, Any] = {"head": "categorical", "labels": ("leak", "flow", "still"), "predicts": "now"}
LETTERS: dict[str, Any] = {"labels": ("s", "e", "v"), "horizon": 4, "predicts": "now"}
SHAPES: dict[str, ModelConfig] = {
    "forecast": ModelConfig(**REAL, cell="gru"),
    "one-to-one": ModelConfig(**REAL, task="one-to-one", predicts="now", targets=("true",), head="quantile"),
    "one-to-many": ModelConfig(**REAL, task="one-to-many", head="categorical", **LETTERS),
    "at the end": ModelConfig(**REAL, **KINDS, task="many-to-one", max_length=4),
    "so far": ModelConfig(**REAL, **KINDS, task="many-to-one", answer="each", cell="elman"),
    "both ways": ModelConfig(**REAL, **KINDS, direction="concat", lag=2),
    "both ways, values": ModelConfig(**REAL, predicts="now", targets=("true",), direction="sum", lag=1, layers=2),
    "both ways, words": ModelConfig(**SPOKEN, labels=("O", "NAME"), predicts="now", direction="concat", lag=3),
    "next steps": ModelConfig(**REAL, task="encoder-decoder", horizon=3, linear=2),
    "next word": ModelConfig(**SPOKEN, temperature=1.5, top_k=2),
    "translation": ModelConfig(**SPOKEN, **LETTERS, task="encoder-decoder", temperature=1.0),
}


@cache
def network(shape: str) -> Network:
    """Random weights."""
    torch.manual_seed(len(shape))
    return Network(SHAPES[shape]).eval()


@dataclass(frozen=True)
class Said:
    """A row that a stream's sensor writes."""

    name: int  # index into NAMES
    x: tuple[float | None, float | None]  # of a model of symbols the first one chooses the symbol
    end: int = 0  # as Readings.end
    dt_ms: int = 1000  # since the last reading of anybody
    seq: int = NO_SEQ


@dataclass(frozen=True)
class Record:
    """Readings as JSON records, or together as one packed record."""

    partition: int
    said: tuple[Said, ...]
    packed: bool = False


@dataclass(frozen=True)
class Round:
    """Records with deeds after each; then silence, with deeds in it."""

    records: tuple[tuple[Record, tuple[Deed, ...]], ...]
    silence: tuple[Deed, ...]


DEEDS: tuple[Deed, ...] = (Turn(), Turn(), Turn(), Kill(), Compact(), TakeOver(), Turn(0))
Answer = tuple[Any, ...]
Stream = tuple[int, bytes]


class Offline:
    """One stream, one reading at a time."""

    def __init__(self, shape: str, name: bytes) -> None:
        self.config = SHAPES[shape]
        self.engine = engine_of(network(shape), 8)
        store = StateStore()
        self.salt = store.salts(store.numbers(0, [name]))
        self.slot = np.array([3])

    def step(self, offset: int, row: int, at_ms: int, x: list[float], seq: int, end: int) -> list[Answer]:
        """What is said when this reading comes."""
        result = self.engine.run(
            self.slot,
            np.array([x], np.float32),
            np.array([at_ms]),
            np.array([seq]),
            end=np.array([end], np.uint8),
            tag=np.array([offset << 15 | row + 1]),
            salt=self.salt,
        )
        return self._answers(result, (offset, row, at_ms))

    def silence(self) -> list[Answer]:
        """What is said when nothing more comes."""
        return self._answers(self.engine.flush(self.slot), None)

    def _answers(self, result: Result, own: tuple[int, int, int] | None) -> list[Answer]:
        found = []
        for i in range(len(result)):
            about = own
            if result.tag is not None and result.at_ms is not None:
                tag = int(result.tag[i])
                about = (tag >> 15, (tag & 0x7FFF) - 1, int(result.at_ms[i]))
            assert about is not None
            score, flags = bits(result.score[i : i + 1]), int(result.flags[i])
            found.append((*about, self._answer(result, i), score, flags))
        return found

    def _answer(self, result: Result, i: int) -> Any:
        classes, y = self.config.classes, result.y[i]
        if not classes:
            return tuple(None if edge is None else bits(edge[i]) for edge in (result.y, result.lo, result.hi))
        assert result.prob is not None
        words = [None if np.isnan(number) else classes[int(number)] for number in y]
        if self.config.horizon == 1:
            assert result.top is not None
            pairs = zip(result.top[i].tolist(), result.prob[i].tolist(), strict=True)
            return words[0], tuple((classes[number], prob) for number, prob in pairs if prob == prob)
        text = tuple(words[: next((at for at, word in enumerate(words) if word in (None, END)), len(words))])
        return (text if text or result.prob[i, 0] == result.prob[i, 0] else None), bits(result.prob[i])


def bits(numbers: Any) -> bytes:
    """Of float32 numbers, every NaN counting as the same one (the wire's null has no payload)."""
    flat = np.asarray(numbers, np.float32).reshape(-1)
    return np.where(np.isnan(flat), np.float32(np.nan), flat).tobytes()


def visible(life: Life) -> dict[Stream, list[Answer]]:
    """What a read-committed consumer gets, by stream in the order of the topic."""
    found: dict[Stream, list[Answer]] = {}
    for partition in range(life.broker.partitions):
        made = predictions.decode(life.broker.records(Role.PREDICTIONS, partition))
        for i, stream in enumerate(made.streams):
            answer: Any = tuple(None if edge is None else bits(edge[i]) for edge in (made.y, made.lo, made.hi))
            if made.label is not None and made.top is not None:
                answer = (made.label[i], made.top[i])
            elif made.text is not None and made.prob is not None:
                answer = (made.text[i], bits(made.prob[i]))
            where = (int(made.offsets[i]), int(made.rows[i]), int(made.at_ms[i]))
            one = (*where, answer, bits(made.score[i]), int(made.flags[i]))
            found.setdefault((partition, stream), []).append(one)
    return found


class Play:
    """One life, and beside it what must come of it."""

    def __init__(self, shape: str, schedule: Schedule, exactly_once: bool = True) -> None:
        self.life = Life(schedule, exactly_once, network(shape), flush_after_ms=FLUSH_MS)
        self.shape, self.symbolic = shape, SHAPES[shape].symbolic
        self.expected: dict[Stream, list[Answer]] = {}
        self.offline: dict[Stream, Offline] = {}
        self._at_ms = START_MS

    def round(self, one: Round) -> None:
        """Lives through a round. Afterwards all is read and all is said."""
        for record, deeds in one.records:
            self._write(record)
            for deed in deeds:
                self.life.do(deed)
        self.life.drain()
        self.life.quiet = False
        self.life.advance(FLUSH_MS + 1)
        for deed in one.silence:
            self.life.do(deed)
        self.life.drain()
        self.life.advance(FLUSH_MS + 1)  # a new owner hears for itself how long it is silent
        self.life.turn()
        self.life.quiet = False
        for stream, its in self.offline.items():
            self.expected[stream] += its.silence()

    def states(self) -> dict[Stream, bytes]:
        """Committed state rows."""
        found = {}
        for partition in range(self.life.broker.partitions):
            records = self.life.broker.records(Role.CHANGELOG, partition)
            kept, _ = state_rows.decode(records)
            if len(kept):
                rows = kept.memory(self.life.model).rows
                found |= {(partition, name): row.tobytes() for name, row in zip(kept.streams, rows, strict=True)}
        return found

    def _write(self, record: Record) -> None:
        rows = []
        for said in record.said:
            self._at_ms += said.dt_ms
            rows.append((said, self._at_ms))
        if record.packed:
            offset = self.life.send_record(None, self._packed(rows), partition=record.partition)
            if len(rows) > self.life.slots:
                return  # refused
            for row, (said, at_ms) in enumerate(rows):
                self._step(record.partition, said, offset, row, at_ms)
            return
        for said, at_ms in rows:
            x: Any = None if said.end == 2 else [self._symbol(said)] if self.symbolic else said.x
            seq = None if said.seq == NO_SEQ else said.seq
            name = NAMES[said.name]
            offset = self.life.send(name, at_ms, x, seq=seq, end=said.end > 0, partition=record.partition)
            self._step(record.partition, said, offset, -1, at_ms)

    def _step(self, partition: int, said: Said, offset: int, row: int, at_ms: int) -> None:
        name = NAMES[said.name]
        stream = (partition, name)
        its = self.offline.setdefault(stream, Offline(self.shape, name))
        x = [np.nan if value is None else value for value in said.x]
        if self.symbolic:
            symbol = self._symbol(said)
            x = [np.nan if symbol is None else 3 + WORDS.index(symbol) if symbol in WORDS else 0]
        if said.end == 2:
            x = [np.nan] * len(x)
        self.expected.setdefault(stream, []).extend(its.step(offset, row, at_ms, x, said.seq, said.end))

    def _symbol(self, said: Said) -> str | None:
        words = (*WORDS, STRANGER)
        return None if said.x[0] is None else words[int(abs(said.x[0])) % len(words)]

    def _packed(self, rows: list[tuple[Said, int]]) -> bytes:
        columns: dict[str, Any] = {
            "stream": pa.array([NAMES[said.name] for said, _ in rows], pa.binary()),
            "at": pa.array([at_ms for _, at_ms in rows], pa.timestamp("ms", "UTC")),
            "seq": pa.array([None if said.seq == NO_SEQ else said.seq for said, _ in rows], pa.int64()),
            "end": pa.array([said.end for said, _ in rows], pa.uint8()),
        }
        if self.symbolic:
            symbols = [None if said.end == 2 else self._symbol(said) for said, _ in rows]
            columns["symbol"] = pa.array(symbols, pa.utf8())
        else:
            for i, feature in enumerate(FEATURES):
                values = [None if said.end == 2 else said.x[i] for said, _ in rows]
                columns[feature] = pa.array(values, pa.float32())
        batch = pa.record_batch(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        value: bytes = sink.getvalue().to_pybytes()
        return value


def played(shape: str, partitions: int, slots: int, polls: tuple[int, ...], mishaps: tuple[Mishap, ...],
           rounds: tuple[Round, ...], exactly_once: bool = True) -> Play:  # fmt: skip
    """The whole of a life."""
    play = Play(shape, Schedule(0, partitions, slots, polls, mishaps, ()), exactly_once)
    for one in rounds:
        play.round(one)
    return play
