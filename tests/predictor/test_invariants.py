"""Invariants 1 to 5 and 7 of docs/DESIGN.md over random lives: schedules, poll sizes, crashes, zombies, bad records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, example, find, given, note, settings
from hypothesis import strategies as st
from judge import play
from trial import (
    BAD,
    NAMES,
    Clock,
    Compact,
    Deed,
    Kill,
    Life,
    Reading,
    Schedule,
    Send,
    SendBad,
    TakeOver,
    Turn,
    Wait,
)

from services.brokers.memory import InjectedFault, MemorySink
from services.driver import GROUP
from services.predictor.ports import Refused, Sink
from services.records import NO_SEQ, Commit

TTL_MS = 10_000

number = st.one_of(st.integers(-400, 400).map(lambda n: n / 8), st.none(), st.sampled_from([0.0, -0.0, 3e38, 1e-40]))
reading = st.builds(
    Reading,
    name=st.integers(0, len(NAMES) - 1),
    x=st.tuples(number, number),
    dt_ms=st.sampled_from([1000, 1000, 1000, 1, 0, -5000, 90_000]),
    seq=st.one_of(st.just(NO_SEQ), st.integers(0, 70)),
)


def deeds(partitions: int, zombies: bool, waits: bool) -> st.SearchStrategy[tuple[Deed, ...]]:
    """A send or two and a turn, which is what usually happens, or one of the things that happen rarely."""
    partition = st.integers(0, partitions - 1)
    some = st.lists(reading, min_size=1, max_size=8).map(tuple)
    send = st.builds(Send, partition, some, st.booleans())
    bad = st.builds(SendBad, partition, st.integers(0, len(BAD) - 1))
    usual: list[st.SearchStrategy[tuple[Deed, ...]]] = [
        st.tuples(send, st.just(Turn())),
        st.tuples(send, send, st.just(Turn())),
        st.tuples(bad, send, st.just(Turn()), st.just(Turn())),
    ]
    rare: list[st.SearchStrategy[tuple[Deed, ...]]] = [st.just((Kill(),)), st.just((Compact(),))]
    if zombies:
        rare += [st.just((TakeOver(),)), st.tuples(st.builds(Turn, st.integers(0, 3)))]
    if waits:
        usual += [st.tuples(st.builds(Wait, st.sampled_from([1, TTL_MS // 2, TTL_MS + 1])))]
    return st.one_of(*usual, *usual, *rare)


@st.composite
def schedules(draw: st.DrawFn, zombies: bool = True, waits: bool = False, least: int = 10) -> Schedule:
    """Any life of at least so many deeds: hypothesis would make most of them too short for anything to go wrong."""
    partitions = draw(st.integers(1, 3))
    faults = st.sampled_from([InjectedFault.CRASH, InjectedFault.LOST, *([None] if zombies else [])])
    mishap = st.tuples(st.integers(0, 12), faults)
    parts = draw(st.lists(deeds(partitions, zombies, waits), min_size=least, max_size=3 * least))
    return Schedule(
        model=draw(st.integers(0, 2)),
        partitions=partitions,
        slots=draw(st.integers(1, 7)),
        polls=tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any))),
        mishaps=tuple(draw(st.lists(mishap, min_size=least // 3, max_size=least))),
        deeds=tuple(deed for part in parts for deed in part),
        ttl_ms=TTL_MS if waits else None,
    )


def patient(examples: int) -> settings:
    """No deadline, as the first example loads torch; no explanations, as they trace every line."""
    phases = [phase for phase in Phase if phase is not Phase.explain]
    return settings(max_examples=examples, deadline=None, phases=phases, suppress_health_check=list(HealthCheck))


ONE = (Reading(0, (0.0, 0.0)),)
TWO = (Reading(1, (0.0, 0.0)),)
SETTLED_TOO_LATE = Schedule(
    model=0,
    partitions=2,
    slots=6,
    polls=(8, 0),
    mishaps=(
        (6, InjectedFault.LOST),
        (0, None),
        (5, InjectedFault.CRASH),
        (9, InjectedFault.CRASH),
        (11, InjectedFault.LOST),
    ),
    deeds=(Send(1, ONE), Turn(), Turn(), Turn(), Send(0, ONE), Turn(), Turn(), Turn(0), Turn(0)),
)
"""A zombie settles a commit of one partition after others have read on in the other one."""


@patient(100)
@example(SETTLED_TOO_LATE)
@given(schedules())
def test_exactly_once_whatever_happens(schedule: Schedule) -> None:
    findings, life = play(schedule)
    note(f"{life.crashed} crashed, {life.fenced} fenced")
    assert findings.all == []


@patient(50)
@given(schedules(waits=True))
def test_exactly_once_while_idle_streams_are_forgotten(schedule: Schedule) -> None:
    findings, _ = play(schedule)
    assert findings.all == []


OUTAGE = Schedule(
    model=0,
    partitions=1,
    slots=4,
    polls=(1,),
    mishaps=(),
    deeds=(Send(0, ONE), Turn(), Wait(TTL_MS // 2), Send(0, TWO), Send(0, ONE), Wait(TTL_MS), Send(0, ONE), Turn()),
    ttl_ms=TTL_MS,
)
"""Nobody reads for longer than a stream may be silent, and it was not."""

BEHIND = Schedule(
    model=0,
    partitions=1,
    slots=1,
    polls=(1,),
    mishaps=(),
    deeds=(Send(0, ONE), Turn(), Wait(1), Send(0, TWO), Turn(), Send(0, ONE), Turn()),
    ttl_ms=TTL_MS,
)
"""It is read by a clock that is far behind, and the next by one that has been set right."""

off = st.sampled_from([0, 1, TTL_MS // 2, 2 * TTL_MS, -2 * TTL_MS, 1000 * TTL_MS])


@patient(25)
@example(OUTAGE, [0])
@example(OUTAGE, [1000 * TTL_MS, 0])
@example(BEHIND, [-2 * TTL_MS, 0])
@given(schedules(waits=True), st.lists(off, min_size=1, max_size=6))
def test_nobody_who_sends_is_forgotten_when_the_machine_s_clock_jumps(schedule: Schedule, clocks: list[int]) -> None:
    every = max(1, len(schedule.deeds) // len(clocks))
    deeds = [[Clock(clocks[i // every % len(clocks)]), deed] if i % every == 0 else [deed]
             for i, deed in enumerate(schedule.deeds)]  # fmt: skip
    findings, _ = play(replace(schedule, deeds=tuple(deed for some in deeds for deed in some)))
    assert findings.all == []


@patient(25)
@given(schedules(waits=True), st.integers(0), off.filter(lambda ms: ms >= 0))
def test_a_reading_from_the_future_makes_nobody_be_forgotten(schedule: Schedule, which: int, ahead_ms: int) -> None:
    sends = [i for i, deed in enumerate(schedule.deeds) if isinstance(deed, Send)]
    deeds = list(schedule.deeds)
    if sends:
        at = sends[which % len(sends)]
        sent = deeds[at]
        assert isinstance(sent, Send)
        deeds[at] = replace(sent, ahead_ms=ahead_ms)
    findings, _ = play(replace(schedule, deeds=tuple(deeds)))
    assert findings.all == []


STILL = Schedule(
    model=0,
    partitions=2,
    slots=2,
    polls=(1,),
    mishaps=((0, InjectedFault.CRASH), (0, InjectedFault.CRASH), (0, InjectedFault.CRASH), (7, InjectedFault.CRASH)),
    deeds=(
        *(Send(0, ONE), Turn(), Kill(), Send(0, ONE), Turn(), Send(0, ONE), Turn(), Send(0, ONE), Send(1, ONE), Turn()),
        *(Send(0, ONE), Turn(), Kill(), Kill(), Kill(), Send(0, ONE), Turn()),
    ),
    ttl_ms=None,
)
"""A crash before the offsets of two partitions, of which one is never read again."""


@patient(50)
@example(STILL)
@given(schedules(zombies=False))
def test_at_least_once_loses_nothing_and_repeats_only_what_is_equal(schedule: Schedule) -> None:
    findings, _ = play(schedule, at_least_once, watch=False)
    findings.doubled.clear()
    assert findings.all == []


# ---- the tests can fail ------------------------------------------------------------------------------------------


def at_least_once(schedule: Schedule) -> Life:
    """The same without transactions, and the shard knows it."""
    return Life(schedule, exactly_once=False)


class NoTransaction(Life):
    """The shard believes in transactions that are not there."""

    def sink(self) -> Sink:
        return MemorySink(self.broker, GROUP, "none", range(self.broker.partitions), False, self.faults)


class OffsetsFirst(Life):
    """Offsets are committed in a transaction of their own, before what they stand for."""

    class Careless(MemorySink):
        def commit(self, commit: Commit) -> None:
            super().commit(Commit(commit.started, commit.offsets, ()))
            super().commit(commit)

    def sink(self) -> Sink:
        return self.Careless(self.broker, GROUP, "careless", range(self.broker.partitions), True, self.faults)


def found(what: str, make: Callable[[Schedule], Life], watch: bool = False) -> Schedule:
    """The simplest life in which the judge finds `what`. Raises NoSuchExample."""

    def fails(schedule: Schedule) -> bool:
        try:
            findings, _ = play(schedule, make, watch)
        except Refused:
            return False  # the shard itself has noticed
        return bool(getattr(findings, what))

    return find(schedules(zombies=False, least=1), fails, settings=patient(300), random=Random(1))


@pytest.mark.parametrize(
    ("what", "make"),
    [("doubled", at_least_once), ("doubled", NoTransaction), ("lost", OffsetsFirst)],
)
def test_the_judge_finds_what_a_broken_commit_does(what: str, make: Callable[[Schedule], Life]) -> None:
    schedule = found(what, make)
    assert schedule.mishaps, "nothing goes wrong without a mishap"


def test_the_judge_sees_what_should_not_be_visible_yet() -> None:
    assert found("leaked", NoTransaction, watch=True).mishaps


def test_the_judge_sees_a_zombie_that_is_not_fenced() -> None:
    readings = (Reading(0, (1.0, 2.0)), Reading(0, (2.0, 3.0)))
    schedule = Schedule(0, 1, 4, (9,), (), (Turn(), Send(0, readings), TakeOver(), Turn(), Turn(0)))
    assert play(schedule)[0].all == []
    findings, _ = play(schedule, at_least_once, watch=False)
    assert findings.doubled == ["prediction of 0/(0, -1)", "prediction of 0/(1, -1)"]
