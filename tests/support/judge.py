"""A judge of a random life that believes only what was committed.

It unrolls every stream offline, one reading at a time on an engine of its own, and compares bit for bit. What may be
seen at any moment is decided by the group's committed offsets alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from trial import BAD, FEATURES, NAMES, Life, Reading, Row, Schedule, Send, SendBad, Stream

from rnn.serve.engine import Engine
from services.codecs import predictions, sentinels, state_rows
from services.driver import GROUP, START_MS
from services.predictor.state_store import NO_ROW
from services.records import NO_SEQ, Records, Role


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


class Sent(NamedTuple):
    """A reading that was sent, whatever anybody's clock said."""

    ms: int  # the time
    changelog_end: int  # of its partition, then: a tombstone before it was written without knowledge of the reading
    offset: int


class Judge:
    """Knows what was sent, and looks at what is committed."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.findings = Findings()
        self._at_ms = START_MS
        self._engine = Engine(life.network, 64)
        self._slots: dict[Stream, int] = {}
        self._waiting: dict[Stream, list[Accepted]] = {}  # sent, not yet stepped offline
        self._stepped: dict[int, dict[Row, Accepted]] = {}  # by partition
        self._newest: dict[Stream, int] = {}  # offset of the last state row; absent: no state
        self._sent: dict[Stream, list[Sent]] = {}
        self._bad: dict[int, dict[int, tuple[bytes | None, bytes | None]]] = {}  # partition -> offset -> key, value
        self._read_to: dict[tuple[Role, int], int] = {}  # next offset to look at
        self._predicted: dict[int, set[Row]] = {}  # by partition
        self._last: dict[Stream, Row] = {}  # newest prediction
        self._buried: dict[int, set[int]] = {}  # by partition, offsets of dead letters

    # ---- sending ----------------------------------------------------------------------------------------------------

    def send(self, deed: Send) -> None:
        """Writes the readings, and notes that they must be answered."""
        self.life.broker.clock = lambda: self.life.now_ms + deed.ahead_ms
        try:
            self._send(deed)
        finally:
            self.life.broker.clock = lambda: self.life.now_ms

    def _send(self, deed: Send) -> None:
        rows = []
        for reading in deed.readings:
            self._at_ms += reading.dt_ms
            rows.append((reading, self._at_ms))
        if deed.packed:
            value = _packed(rows)
            offset = self.life.send_record(None, value, partition=deed.partition)
            if len(rows) > self.life.slots:
                self._note_bad(deed.partition, offset, None, value)
                return
            for row, (reading, at_ms) in enumerate(rows):
                self._note(deed.partition, reading, offset, row, at_ms)
            return
        for reading, at_ms in rows:
            seq = None if reading.seq == NO_SEQ else reading.seq
            offset = self.life.send(NAMES[reading.name], at_ms, reading.x, seq=seq, partition=deed.partition)
            self._note(deed.partition, reading, offset, -1, at_ms)

    def send_bad(self, deed: SendBad) -> None:
        """Writes a record that nobody can read."""
        key, value = BAD[deed.which]
        offset = self.life.send_record(key, value, headers=[("origin", b"test")], partition=deed.partition)
        self._note_bad(deed.partition, offset, key, value)

    def _note(self, partition: int, reading: Reading, offset: int, row: int, at_ms: int) -> None:
        stream = (partition, NAMES[reading.name])
        end = self.life.broker.log(Role.CHANGELOG, partition).end
        self._sent.setdefault(stream, []).append(Sent(self.life.now_ms, end, offset))
        self._waiting.setdefault(stream, []).append(Accepted(offset, row, at_ms, reading.x, reading.seq))
        self.findings.readings += 1

    def _note_bad(self, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        self._bad.setdefault(partition, {})[offset] = (key, value)
        self.findings.rejected += 1

    # ---- judging ----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Compares all that is visible with all that may and must be."""
        self.life.broker.check_integrity()
        committed = self.life.broker.offsets(GROUP)
        for partition in range(self.life.broker.partitions):
            upto = committed.get(partition, 0)
            self._changelog(partition, upto)
            self._predictions(partition, upto)
            self._dead_letters(partition, upto)

    def _new(self, role: Role, partition: int) -> Records:
        """What became visible since the last look."""
        records = self.life.broker.records(role, partition, start=self._read_to.get((role, partition), 0))
        if len(records):
            self._read_to[role, partition] = int(records.offsets[-1]) + 1
        return records

    def _step(self, stream: Stream, upto: int) -> None:
        """Unrolls the stream offline up to and with offset `upto`, one reading at a time."""
        slot = np.array([self._slots.setdefault(stream, len(self._slots))])
        if stream not in self._newest:
            self._engine.clear(slot)
        waiting = self._waiting.get(stream, [])
        while waiting and waiting[0].offset <= upto:
            reading = waiting.pop(0)
            x = np.array([[np.nan if value is None else value for value in reading.x]], np.float32)
            made = self._engine.run(slot, x, np.array([reading.at_ms]), np.array([reading.seq]))
            columns = (made.y, made.lo, made.hi, made.score, made.flags)
            reading.expected = (stream[1], reading.at_ms, self.life.model, *(_bits(column, 0) for column in columns))
            self._stepped.setdefault(stream[0], {})[reading.offset, reading.row] = reading

    def _changelog(self, partition: int, committed: int) -> None:
        """Steps every stream as far as the changelog says, and compares the states on the way."""
        records = self._new(Role.CHANGELOG, partition)
        for row, key in enumerate(records.keys):
            assert key is not None
            if key == sentinels.KEY:
                continue
            stream = (partition, key)
            where = f"changelog {partition}/{records.offsets[row]} of {key!r}"
            if records.values[row] is None:
                self._newest.pop(stream, None)
                last = [sent for sent in self._sent[stream] if sent.changelog_end <= records.offsets[row]][-1]
                silent_ms = self.life.now_ms - last.ms  # or less, where it was long until the tombstone was visible
                if self.life.ttl_ms is None or silent_ms <= self.life.ttl_ms:
                    self.findings.states.append(f"{where}: forgotten {silent_ms} ms after its last reading")
                elif any(reading.offset <= last.offset for reading in self._waiting[stream]):
                    self.findings.states.append(f"{where}: forgotten although a reading of it waited to be read")
                continue
            kept, _ = state_rows.decode(_one(records, row))
            offset = int(kept.offsets[0])
            if offset < self._newest.get(stream, NO_ROW):
                if not self.life.exactly_once:
                    continue  # a dropped epoch's rows stand there already; what is restored from such a row shows later
                self.findings.states.append(f"{where}: went back to reading {offset}")
                continue
            self._step(stream, offset)
            self._newest[stream] = offset
            slot = np.array([self._slots[stream]])
            if kept.memory(self.life.model).rows[0].tobytes() != self._engine.rows(slot)[0].tobytes():
                self.findings.states.append(f"{where}: not the offline state after reading {offset}")
            if offset >= committed:
                self.findings.leaked.append(f"{where}: of reading {offset}, but {committed} is committed")
        for (its_partition, key), waiting in self._waiting.items():
            if its_partition == partition and waiting and waiting[0].offset < committed:
                self.findings.states.append(f"{key!r}: no state after committed reading {waiting[0].offset}")

    def _predictions(self, partition: int, committed: int) -> None:
        stepped = self._stepped.get(partition, {})
        seen = self._predicted.setdefault(partition, set())
        made = predictions.decode(self._new(Role.PREDICTIONS, partition))
        for i, key in enumerate(zip(made.offsets.tolist(), made.rows.tolist(), strict=True)):
            where, stream = f"prediction of {partition}/{key}", (partition, made.streams[i])
            if key in seen:
                self.findings.doubled.append(where)
            elif key[0] >= committed or key not in stepped:
                self.findings.leaked.append(f"{where}, but {committed} is committed")
            elif self._last.get(stream, (NO_ROW, NO_ROW)) > key:
                self.findings.out_of_order.append(where)
            seen.add(key)
            self._last[stream] = key
            columns = (made.y, made.lo, made.hi, made.score, made.flags)
            got = (made.streams[i], int(made.at_ms[i]), made.models[i], *(_bits(column, i) for column in columns))
            if key in stepped and (made.partitions[i] != partition or got != stepped[key].expected):
                self.findings.different.append(f"{where}: {got} instead of {stepped[key].expected}")
        must = {key for key in stepped if key[0] < committed}
        self.findings.lost += [f"prediction of {partition}/{key}" for key in sorted(must - seen)]

    def _dead_letters(self, partition: int, committed: int) -> None:
        must = {offset: record for offset, record in self._bad.get(partition, {}).items() if offset < committed}
        seen = self._buried.setdefault(partition, set())
        letters = self._new(Role.DEAD_LETTERS, partition)
        for i, record in enumerate(zip(letters.keys, letters.values, strict=True)):
            offset = int(dict(letters.headers[i])["__connect.errors.offset"] or b"-1")
            where = f"dead letter of {partition}/{offset}"
            if offset in seen:
                self.findings.doubled.append(where)
            elif offset not in must:
                self.findings.leaked.append(f"{where}, but {committed} is committed")
            elif must[offset] != record:
                self.findings.different.append(where)
            seen.add(offset)
        self.findings.lost += [f"dead letter of {partition}/{offset}" for offset in sorted(must.keys() - seen)]


def play(schedule: Schedule, make: Callable[[Schedule], Life] = Life, watch: bool = True) -> tuple[Findings, Life]:
    """Lives through the schedule, then lets a new owner read the rest. The judge looks at the end; with `watch` also
    after every deed, until it finds something.
    """
    life = make(schedule)
    judge = Judge(life)
    for deed in schedule.deeds:
        if isinstance(deed, Send):
            judge.send(deed)
        elif isinstance(deed, SendBad):
            judge.send_bad(deed)
        else:
            life.do(deed)
            if watch:
                judge.look()
            if judge.findings.all:
                return judge.findings, life
    life.drain()
    judge.look()
    return judge.findings, life


def _bits(column: NDArray[np.generic] | None, row: int) -> bytes | None:
    """The row's bits, every NaN counting as the same one (the wire's null has no payload)."""
    if column is None:
        return None
    one = column[row]
    if column.dtype.kind == "f":
        one = np.where(np.isnan(one), np.float32(np.nan), one)
    return np.asarray(one).tobytes()


def _one(records: Records, row: int) -> Records:
    rows = slice(row, row + 1)
    return Records(records.partition, records.offsets[rows], records.timestamps_ms[rows], records.keys[rows],
                   records.values[rows], {0: records.headers[row]} if row in records.headers else {})  # fmt: skip


def _packed(rows: Sequence[tuple[Reading, int]]) -> bytes:
    columns: dict[str, Any] = {
        "stream": pa.array([NAMES[reading.name] for reading, _ in rows], pa.binary()),
        "at": pa.array([at_ms for _, at_ms in rows], pa.timestamp("ms", "UTC")),
        "seq": pa.array([None if reading.seq == NO_SEQ else reading.seq for reading, _ in rows], pa.int64()),
    }
    for i, feature in enumerate(FEATURES):
        columns[feature] = pa.array([reading.x[i] for reading, _ in rows], pa.float32())
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    value: bytes = sink.getvalue().to_pybytes()
    return value
