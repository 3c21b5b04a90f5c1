"""One random life of a shard on the in-memory broker, and a judge that believes only what was committed.

The judge unrolls every stream offline, one reading at a time on an engine of its own, and compares bit for bit. What may
be seen at any moment is decided by the group's committed offsets alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pyarrow as pa
import torch

from rnn.config import ModelConfig
from rnn.engine import Engine
from rnn.network import Network
from services.brokers.memory import Crash, Fault, Faults, Isolation, Step
from services.codecs import state_rows
from services.driver import GROUP, START_MS, StreamDriver
from services.predictor.ports import Fenced, Ledger
from services.predictor.shard import Shard
from services.records import NO_SEQ, Encoded, Role

Stream = tuple[int, bytes]  # partition and key: the same key in two partitions is two streams
FEATURES = ("flow", "level")
NAMES = (b"pump-1", b"pump-2", "ventil-ä".encode(), b"\xff\xfe raw", b"x" * 256)

BAD: tuple[tuple[bytes | None, bytes | None], ...] = (
    (b"pump-1", None),
    (b"pump-1", b"not json"),
    (b"pump-1", b""),
    (b"pump-2", b'{"at": 1, "x": [1]}'),
    (b"pump-1", b'{"at": 1, "x": [1, "2"]}'),
    (b"pump-1", b'{"at": 1, "x": [1, NaN]}'),
    (b"pump-2", b'{"at": 1, "x": [1, 1e400]}'),
    (b"pump-1", b'{"at": -1, "x": [1, 2]}'),
    (b"pump-1", b'{"at": 1, "x": [1, 2], "v": 2}'),
    (b"pump-1", b"[" * 5000),
    (b"", b'{"at": 1, "x": [1, 2]}'),
    (None, b'{"at": 1, "x": [1, 2]}'),
    (b"y" * 300, b'{"at": 1, "x": [1, 2]}'),
    (b"pump-1", b"\xff\xff\xff\xff\x10\x00\x00\x00truncated"),
)


@dataclass(frozen=True)
class Reading:
    """A row that a stream's sensor writes."""

    name: int  # index into NAMES
    x: tuple[float | None, float | None]
    dt_ms: int = 1000  # since the last reading of anybody; negative is late
    seq: int = NO_SEQ


@dataclass(frozen=True)
class Send:
    """Readings as JSON records, or together as one packed record."""

    partition: int
    readings: tuple[Reading, ...]
    packed: bool = False


@dataclass(frozen=True)
class SendBad:
    """A record that must become a dead letter."""

    partition: int
    which: int


@dataclass(frozen=True)
class Turn:
    """The owner, or a zombie, does one turn."""

    zombie: int = -1  # -1: the owner


@dataclass(frozen=True)
class Kill:
    """The owner dies between two turns."""


@dataclass(frozen=True)
class TakeOver:
    """A new owner starts; the old one does not know."""


@dataclass(frozen=True)
class Compact:
    """The changelog is compacted, with tombstones dropped, and readings that were committed fall to retention."""


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    ms: int


Deed = Send | SendBad | Turn | Kill | TakeOver | Compact | Wait
Mishap = tuple[int, Fault | None]  # after so many steps; None: another owner takes over in that very moment


@dataclass(frozen=True)
class Schedule:
    """All that a life depends on."""

    model: int
    partitions: int
    slots: int
    polls: tuple[int, ...]  # sizes of the polls, over and over
    mishaps: tuple[Mishap, ...]
    deeds: tuple[Deed, ...]
    ttl_ms: int | None = None


@dataclass
class Findings:
    """What the judge found. Empty but for `readings`, `kept` and the like in a sound system."""

    readings: int = 0
    rejected: int = 0
    doubled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)  # visible although its offset was not committed, or the reverse

    @property
    def all(self) -> list[str]:
        """Every finding."""
        return self.doubled + self.lost + self.different + self.states + self.out_of_order + self.leaked


@dataclass
class Accepted:
    """A reading that was sent, and what must come of it once its offline step was made."""

    offset: int
    row: int
    at_ms: int
    x: tuple[float | None, float | None]
    seq: int
    expected: tuple[object, ...] | None = None


@cache
def network(model: int) -> Network:
    """A few small networks with random weights."""
    torch.manual_seed(model)
    cell, head, layers, memory = (("lstm", "gaussian", 1, 20), ("gru", "gaussian", 2, 0), ("elman", "point", 1, 5))[model]
    config = ModelConfig(FEATURES, FEATURES[:1] if model else (), cell, 5, layers, head, scaler_memory=memory)
    return Network(config).eval()


class Life(StreamDriver):
    """A driver whose shards can meet with mishaps and leave zombies behind."""

    def __init__(self, schedule: Schedule, exactly_once: bool = True) -> None:
        self.mishaps = list(schedule.mishaps)
        self.zombies: list[Shard] = []
        self.fenced = self.crashed = 0
        self._polls, self._polled, self._quiet = schedule.polls, 0, False
        super().__init__(
            network(schedule.model),
            schedule.partitions,
            slots=schedule.slots,
            exactly_once=exactly_once,
            ttl_ms=schedule.ttl_ms,
            faults=Faults(self._mishap),
            poll_size=self._size,
        )

    def _size(self, room: int) -> int:
        if self._quiet:
            return room
        self._polled += 1
        return self._polls[self._polled % len(self._polls)]

    def _mishap(self, step: Step) -> Fault | None:
        if self._quiet or not self.mishaps:
            return None
        steps, fault = self.mishaps[0]
        if steps > 0:
            self.mishaps[0] = (steps - 1, fault)
            return None
        self.mishaps.pop(0)
        if fault is None:
            self.take_over()
        return fault

    def take_over(self) -> None:
        """A new owner starts beside the old one."""
        old, self.shard = self.shard, None
        if old is not None:
            self.zombies.append(old)
        self.survive(self.restart)

    def survive(self, act: Callable[[], object]) -> None:
        """Lets the owner do something; it may die of it."""
        try:
            act()
        except Crash:
            self.crashed += 1
            self.shard = None
        except Fenced:
            self.fenced += 1
            self.shard = None

    def do(self, deed: Deed) -> None:
        """One deed; sends are the judge's."""
        match deed:
            case Turn(-1):
                owner = self.shard
                self.survive(self.turn)
                if owner is not None and owner is self.shard:
                    owner.slots.check_integrity()
            case Turn(zombie):
                if self.zombies:
                    self.turn_zombie(self.zombies[zombie % len(self.zombies)])
            case Kill():
                self.crash()
            case TakeOver():
                self.take_over()
            case Wait(ms):
                self.advance(ms)
            case Compact():
                self.broker.compact(Role.CHANGELOG, delete_retention_ms=0)
                for partition, offset in self.broker.offsets(GROUP, stable=False).items():
                    self.broker.truncate(Role.READINGS, partition, offset)

    def turn_zombie(self, zombie: Shard) -> None:
        """An owner of earlier goes on as if nothing had happened."""
        try:
            zombie.turn()
            zombie.slots.check_integrity()
        except (Crash, Fenced) as end:
            self.fenced += isinstance(end, Fenced)
            self.zombies.remove(zombie)

    def drain(self) -> None:
        """Nothing happens any more; a new owner reads the rest."""
        self._quiet = True
        self.restart()
        self.run()


class Judge:
    """Knows what was sent, and looks at what is committed."""

    def __init__(self, life: Life, check_states: bool = True) -> None:
        self.life, self.check_states = life, check_states
        self.findings = Findings()
        self._at_ms = START_MS
        self._engine = Engine(life.network, 64)
        self._slots: dict[Stream, int] = {}
        self._sent: dict[Stream, list[Accepted]] = {}
        self._stepped: dict[Stream, int] = {}  # how many of its readings were stepped offline
        self._bad: dict[int, list[tuple[int, bytes | None, bytes | None]]] = {}  # partition -> offset, key, value
        self._read_to: dict[int, int] = {}  # partition -> changelog offset that was looked at

    # ---- sending ----------------------------------------------------------------------------------------------------

    def send(self, deed: Send) -> None:
        """Writes the readings, and notes that they must be answered."""
        rows = []
        for reading in deed.readings:
            self._at_ms += reading.dt_ms
            rows.append((reading, self._at_ms))
        if not deed.packed:
            for reading, at_ms in rows:
                offset = self.life.send(
                    NAMES[reading.name],
                    at_ms,
                    reading.x,
                    seq=None if reading.seq == NO_SEQ else reading.seq,
                    partition=deed.partition,
                )
                self._note(deed.partition, reading, Accepted(offset, -1, at_ms, reading.x, reading.seq))
            return
        value = _packed(rows)
        offset = self.life.send_record(None, value, partition=deed.partition)
        if len(rows) > self.life.max_rows:
            self._note_bad(deed.partition, offset, None, value)
            return
        for row, (reading, at_ms) in enumerate(rows):
            self._note(deed.partition, reading, Accepted(offset, row, at_ms, reading.x, reading.seq))

    def send_bad(self, deed: SendBad) -> None:
        """Writes a record that nobody can read."""
        key, value = BAD[deed.which]
        offset = self.life.send_record(key, value, headers=[("origin", b"test")], partition=deed.partition)
        self._note_bad(deed.partition, offset, key, value)

    def _note(self, partition: int, reading: Reading, accepted: Accepted) -> None:
        self._sent.setdefault((partition, NAMES[reading.name]), []).append(accepted)
        self.findings.readings += 1

    def _note_bad(self, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        self._bad.setdefault(partition, []).append((offset, key, value))
        self.findings.rejected += 1

    # ---- judging ----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Compares all that is visible with all that may and must be."""
        self.life.broker.check_integrity()
        committed = self.life.broker.offsets(GROUP, stable=False)
        for partition in range(self.life.broker.partitions):
            self._changelog(partition, committed.get(partition, 0))
            self._predictions(partition, committed.get(partition, 0))
            self._dead_letters(partition, committed.get(partition, 0))

    def _step(self, stream: Stream, upto: int) -> None:
        """Unrolls the stream offline up to and with offset `upto`, one reading at a time."""
        slot = np.array([self._slots.setdefault(stream, len(self._slots))])
        sent, done = self._sent.get(stream, []), self._stepped.get(stream, 0)
        if done == 0:
            self._engine.clear(slot)
        while done < len(sent) and sent[done].offset <= upto:
            reading = sent[done]
            x = np.array([[np.nan if value is None else value for value in reading.x]], np.float32)
            made = self._engine.run(slot, x, np.array([reading.at_ms]), np.array([reading.seq]))
            band = (made.lo, made.hi) if made.lo is not None and made.hi is not None else ()
            columns = (made.y, *band, made.score, made.flags)
            reading.expected = (reading.at_ms, stream[1], self.life.model, *(_bits(column) for column in columns))
            done += 1
        self._stepped[stream] = done

    def _state(self, stream: Stream) -> bytes:
        slot = np.array([self._slots[stream]])
        return self._engine.rows(slot)[0].tobytes()

    def _changelog(self, partition: int, committed: int) -> None:
        """Steps every stream as the changelog says, and compares the states on the way."""
        records = self.life.broker.records(Role.CHANGELOG, partition, start=self._read_to.get(partition, 0))
        for row, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
            assert key is not None
            stream = (partition, key)
            where = f"state of {stream} at changelog {int(records.offsets[row])}"
            if value is None:
                self._forget(stream, where)
                continue
            one = _row(records, row)
            kept, _ = state_rows.decode(one, self._engine.layout, self.life.model)
            offset = int(kept.offsets[0])
            sent, done = self._sent.get(stream, []), self._stepped.get(stream, 0)
            if done and offset < sent[done - 1].offset:
                self.findings.states.append(f"{where} went back to offset {offset}")
                continue
            self._step(stream, offset)
            if self.check_states and kept.rows[0].tobytes() != self._state(stream):
                self.findings.states.append(f"{where}, offset {offset}, differs from the offline one")
            if offset >= committed:
                self.findings.leaked.append(f"{where} is of reading {offset}, but {committed} is committed")
        if len(records):
            self._read_to[partition] = int(records.offsets[-1]) + 1
        for (its_partition, key), sent in self._sent.items():
            done = self._stepped.get((its_partition, key), 0)
            if its_partition == partition and done < len(sent) and sent[done].offset < committed:
                self.findings.states.append(f"{(partition, key)} has no state for committed reading {sent[done].offset}")

    def _forget(self, stream: Stream, where: str) -> None:
        sent, done = self._sent.get(stream, []), self._stepped.get(stream, 0)
        if not done:
            self.findings.states.append(f"{where} is a tombstone of a stream without state")
        self._sent[stream], self._stepped[stream] = sent[done:], 0
        self._answered.setdefault(stream, []).extend(sent[:done])

    @property
    def _answered(self) -> dict[Stream, list[Accepted]]:
        return self.__dict__.setdefault("answered", {})

    def _predictions(self, partition: int, committed: int) -> None:
        must = {
            (reading.offset, reading.row): reading
            for stream in self._sent
            if stream[0] == partition
            for reading in (*self._answered.get(stream, ()), *self._sent[stream])
            if reading.offset < committed
        }
        seen: dict[tuple[int, int], int] = {}
        last: dict[str, tuple[int, int]] = {}
        for made in self.life.predictions_of(partition):
            key = (made.offset, made.row)
            seen[key] = seen.get(key, 0) + 1
            if seen[key] > 1:
                self.findings.doubled.append(f"prediction of {partition}/{key}")
                continue
            if key not in must:
                self.findings.leaked.append(f"prediction of {partition}/{key}, but {committed} is committed")
                continue
            if last.get(made.stream, (-1, -1)) > key:
                self.findings.out_of_order.append(f"prediction of {partition}/{key}")
            last[made.stream] = key
            band = (made.lo, made.hi) if made.lo is not None and made.hi is not None else ()
            columns = (made.y, *band, np.float32(made.score), np.uint8(made.flags))
            got = (made.at_ms, made.stream_bytes, made.model, *(_bits(np.atleast_1d(column)) for column in columns))
            if made.partition != partition or got != must[key].expected:
                self.findings.different.append(f"prediction of {partition}/{key}: {got} != {must[key].expected}")
        for key in sorted(must.keys() - seen.keys()):
            self.findings.lost.append(f"prediction of {partition}/{key}")

    def _dead_letters(self, partition: int, committed: int) -> None:
        must = {offset: (key, value) for offset, key, value in self._bad.get(partition, []) if offset < committed}
        seen: list[int] = []
        for letter in self.life.dead_letters():
            if letter.partition != partition:
                continue
            offset = int(letter.headers["__connect.errors.offset"] or b"-1")
            seen.append(offset)
            if offset not in must:
                self.findings.leaked.append(f"dead letter of {partition}/{offset}, but {committed} is committed")
            elif must[offset] != (letter.key, letter.value):
                self.findings.different.append(f"dead letter of {partition}/{offset}")
        self.findings.doubled += [f"dead letter of {partition}/{offset}" for offset in set(seen) if seen.count(offset) > 1]
        self.findings.lost += [f"dead letter of {partition}/{offset}" for offset in sorted(must.keys() - set(seen))]
