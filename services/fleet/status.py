"""What actors are told by their supervisor, and tell it. Plain values; imports nothing heavy."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from services.predictor.stats import Paired, ShardStats
from services.predictor.watched_streams import Points


class ExitReason(enum.StrEnum):
    """How an actor's loop ended, named by what the supervisor does next."""

    STOPPED = "stopped"  # it was asked to; nothing to do
    FENCED = "fenced"  # another owner has the shard: if it is not our own replacement, this server leaves
    REFUSED = "refused"  # going on would break a promise: the shard is set aside, a person must act
    CRASHED = "crashed"  # anything else: start a new incarnation


@dataclass(frozen=True, slots=True)
class ShardExit:
    """The value of `ShardActor.run`."""

    end: ExitReason
    message: str = ""
    model: str = ""  # the champion that was refused, where that is why


class Stopped(Exception):
    """The stop came while something was waited for: the broker, the registry, a foreign transaction."""


@dataclass(frozen=True, slots=True)
class ShardEvent:
    """One line of a shard's log."""

    at_s: float
    name: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelAssignment:
    """Which models a shard is to run, by their ids."""

    champion: str = ""  # empty: the folder that `model` names
    challenger: str = ""  # empty: none
    share: float = 1.0  # of the streams, that the challenger is to follow


@dataclass(frozen=True, slots=True)
class AssignmentResult:
    """The value of `ShardActor.order`. Neither done nor a model: give the order again."""

    done: bool = False
    model: str = ""  # the one that cannot be run
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """The value of `ShardActor.status`."""

    shard: int
    incarnation: int
    pid: int
    node: str
    stats: ShardStats
    events: list[ShardEvent] = field(default_factory=list)
    rounds: list[Paired] = field(default_factory=list)  # closed since the last status
    points: list[Points] = field(default_factory=list)  # of streams in the spotlight, since the last status
    failed: tuple[str, str] | None = None  # a challenger that failed at its work since then, and why


def dealt(partitions: int, shards: int, shard: int) -> list[int]:
    """The partitions of `shard`: p belongs to shard p mod shards."""
    return [partition for partition in range(partitions) if partition % shards == shard]


def transactional_id(group: str, shard: int) -> str:
    """Whoever initialises this id owns the shard."""
    return f"{group}-shard-{shard}"
