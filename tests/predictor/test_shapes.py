"""Networks of every shape through the same loop: whatever happens, the same predictions and states, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from shapes import DEEDS, SHAPES, Play, Record, Round, Said, played, visible
from trial import NAMES

from services.brokers.memory import InjectedFault
from services.records import NO_SEQ

number = st.one_of(st.integers(-40, 40).map(lambda n: n / 8), st.none(), st.sampled_from([0.0, 1e3]))
said = st.builds(
    Said,
    name=st.integers(0, len(NAMES) - 1),
    x=st.tuples(number, number),
    end=st.sampled_from([0, 0, 0, 1, 2]),
    dt_ms=st.sampled_from([1000, 1000, 1, 0, -5000]),
    seq=st.one_of(st.just(NO_SEQ), st.just(NO_SEQ), st.integers(0, 70)),
)
deeds = st.lists(st.sampled_from(DEEDS), max_size=3).map(tuple)


@st.composite
def lives(draw: st.DrawFn, zombies: bool = True) -> dict[str, Any]:
    partitions = draw(st.integers(1, 2))
    record = st.builds(
        Record, st.integers(0, partitions - 1), st.lists(said, min_size=1, max_size=7).map(tuple), st.booleans()
    )
    records = st.lists(st.tuples(record, deeds), min_size=1, max_size=5).map(tuple)
    faults = st.sampled_from([InjectedFault.CRASH, InjectedFault.LOST, *([None] if zombies else [])])
    return {
        "partitions": partitions,
        "slots": draw(st.integers(1, 7)),
        "polls": tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any))),
        "mishaps": tuple(draw(st.lists(st.tuples(st.integers(0, 12), faults), max_size=10))),
        "rounds": tuple(draw(st.lists(st.builds(Round, records, deeds), min_size=1, max_size=3))),
    }


patient = settings(
    max_examples=15,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=list(HealthCheck),
)


def the_same(play: Play) -> None:
    """Everything that had to be said was said, once, in order; and the states are those of the offline unroll."""
    found = visible(play.life)
    expected = {stream: answers for stream, answers in play.expected.items() if answers}
    assert found == expected
    assert play.states() == {stream: its.engine.rows(its.slot)[0].tobytes() for stream, its in play.offline.items()}
    play.life.broker.check_integrity()


@pytest.mark.parametrize("shape", SHAPES)
@patient
@given(life=lives())
def test_every_shape_exactly_once_whatever_happens(shape: str, life: dict[str, Any]) -> None:
    the_same(played(shape, **life))
