"""One random life of a shard on the in-memory broker: its deeds, and a driver that does them with mishaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.brokers.memory import Crash, FaultPoint, Faults, InjectedFault
from services.driver import GROUP, StreamDriver
from services.predictor.ports import Fenced, Refused
from services.predictor.shard import Shard
from services.records import NO_SEQ, Role

Stream = tuple[int, bytes]  # partition and key: the same key in two partitions is two streams
Row = tuple[int, int]  # offset of a record and row in it, -1 for a JSON reading
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
    """Readings as JSON records, or together as one packed record; by a producer whose clock may be ahead."""

    partition: int
    readings: tuple[Reading, ...]
    packed: bool = False
    ahead_ms: int = 0


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


@dataclass(frozen=True)
class Clock:
    """From now on the clock of the shard's machine is ahead of the time by so much, or behind."""

    ahead_ms: int


Deed = Clock | Send | SendBad | Turn | Kill | TakeOver | Compact | Wait
Mishap = tuple[int, InjectedFault | None]  # after so many steps; None: another owner takes over in that very moment


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


@cache
def network(model: int) -> Network:
    """A few small networks with random weights."""
    torch.manual_seed(model)
    cell, head, layers, memory = (("lstm", "gaussian", 1, 20), ("gru", "gaussian", 2, 0), ("elman", "point", 1, 5))[
        model
    ]
    config = ModelConfig(FEATURES, FEATURES[:1] if model else (), cell, 5, layers, head, scaler_memory=memory)
    return Network(config).eval()


class Life(StreamDriver):
    """A driver whose shards can meet with mishaps and leave zombies behind."""

    def __init__(
        self, schedule: Schedule, exactly_once: bool = True, model: Network | None = None, **more: Any
    ) -> None:
        self.faults = Faults(self._mishap)
        self.slots, self.ttl_ms, self.exactly_once = schedule.slots, schedule.ttl_ms, exactly_once
        self.mishaps = list(schedule.mishaps)
        self.zombies: list[Shard] = []
        self.fenced = self.crashed = 0
        self._polls, self._polled, self.quiet = schedule.polls, 0, False
        self.ahead_ms = 0
        super().__init__(
            model or network(schedule.model),
            schedule.partitions,
            slots=schedule.slots,
            exactly_once=exactly_once,
            ttl_ms=schedule.ttl_ms,
            faults=self.faults,
            poll_size=self._size,
            **more,
        )

    def _size(self, room: int) -> int:
        if self.quiet:
            return room
        self._polled += 1
        return self._polls[self._polled % len(self._polls)]

    def _mishap(self, step: FaultPoint) -> InjectedFault | None:
        if self.quiet or not self.mishaps:
            return None
        steps, fault = self.mishaps[0]
        if steps > 0:
            self.mishaps[0] = (steps - 1, fault)
            return None
        self.mishaps.pop(0)
        if fault is None:
            self.take_over()
        return fault

    def clock_ms(self) -> int:
        """The time, as the shard's machine has it."""
        return self.now_ms + self.ahead_ms

    def take_over(self) -> None:
        """A new owner starts beside the old one."""
        old, self.shard = self.shard, None
        if old is not None:
            self.zombies.append(old)
        self.survives(self.restart)

    def survives(self, act: Callable[[], object]) -> bool:
        """Whether a shard that does something lives on."""
        try:
            act()
            return True
        except Crash:
            self.crashed += 1
        except Fenced:
            self.fenced += 1
        except Refused as refused:
            if "retention" not in str(refused):  # another owner may have committed, and what it read be deleted since
                raise
        return False

    def do(self, deed: Deed) -> None:
        """One deed; sends are the judge's."""
        match deed:
            case Turn(-1):
                if self.shard is not None or self.survives(self.restart):
                    self.turn_of(self.shard)
            case Turn(zombie):
                if self.zombies:
                    self.turn_of(self.zombies[zombie % len(self.zombies)])
            case Kill():
                self.crash()
            case TakeOver():
                self.take_over()
            case Wait(ms):
                self.advance(ms)
            case Clock(ms):
                self.ahead_ms = ms
            case Compact():
                self.broker.compact(Role.CHANGELOG, delete_retention_ms=0)
                for partition, offset in self.broker.offsets(GROUP).items():
                    self.broker.truncate(Role.READINGS, partition, offset)

    def turn_of(self, shard: Shard | None) -> None:
        """The owner, or one of earlier that goes on as if nothing had happened. In the middle another may take over."""
        assert shard is not None
        if self.survives(shard.turn):
            shard.slots.check_integrity()
            return
        if shard is self.shard:
            self.shard = None
        self.zombies = [zombie for zombie in self.zombies if zombie is not shard]

    def drain(self) -> None:
        """Nothing happens any more; a new owner reads the rest."""
        self.quiet = True
        self.restart()
        self.run()
