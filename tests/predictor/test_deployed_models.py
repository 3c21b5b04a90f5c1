"""Models change under live readings, and no stream loses its memory: whatever crashes, is dropped or falls silent."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from services.brokers.memory import Crash, FaultPoint, Faults, InjectedFault
from services.codecs import state_rows
from services.driver import Prediction, StreamDriver
from services.predictor.anomaly import calibrated
from services.predictor.deployed_models import DeployedModel
from services.predictor.ports import Refused
from services.predictor.score_calibration import Calibration
from services.records import RECENT, Flag, Role

AT = 1_700_000_000_000
FEATURES = ("flow", "level")
KEEPS = 4  # latest readings that are remembered
STREAMS = ("a", "b", "c")


def network(seed: int, cell: str = "lstm", hidden: int = 6, **more: object) -> Network:
    torch.manual_seed(seed)
    return Network(ModelConfig(FEATURES, (), cell, hidden, **more)).eval()  # type: ignore[arg-type]


OLD, NEW = network(1), network(2, "gru", 5, layers=2)


class Unroll:
    """One stream, offline: what a model says of readings one after the other."""

    def __init__(self, model: Network) -> None:
        self.engine = engine_of(model, 8)

    def step(self, *readings: tuple[int, list[float], int]) -> bytes:
        """(at_ms, x, seq) each; what is said of the last one, bit for bit."""
        for at_ms, x, seq in readings:
            said = self.engine.run(np.array([3]), np.array([x], np.float32), np.array([at_ms]), np.array([seq]))
        return bits(said.y[0], said.lo[0], said.hi[0], said.score[0])  # type: ignore[index]


def bits(*values: object) -> bytes:
    return b"".join(np.asarray(value, np.float32).tobytes() for value in values)


def bits_of(made: Prediction) -> bytes:
    return bits(made.y, made.lo, made.hi, np.float32(made.score))


def reading(i: int, seq: int = -1) -> tuple[int, list[float], int]:
    return AT + 1000 * i, [float(np.sin(i)), float(i % 3)], seq


def send(driver: StreamDriver, stream: str, *numbers: int) -> None:
    for i in numbers:
        at, x, _ = reading(i)
        driver.send(stream, at=at, x=x)
    driver.run()


def test_a_challenger_changes_no_prediction_and_has_a_memory_when_it_is_promoted() -> None:
    driver, alone = StreamDriver(OLD, recent=KEEPS), StreamDriver(OLD)
    driver.challenge(NEW)
    for one in (driver, alone):
        send(one, "a", *range(10))
    assert [bits_of(made) for made in driver.predictions()] == [bits_of(made) for made in alone.predictions()]
    driver.promote()
    send(driver, "a", 10)
    *_, last = driver.predictions()
    assert last.model == driver.model != alone.predictions()[-1].model
    assert bits_of(last) == Unroll(NEW).step(*map(reading, range(11)))
    assert not last.flags & Flag.NEW


def test_a_share_of_many_streams_is_followed_and_those_that_join_later_are_brought_over() -> None:
    driver = StreamDriver(OLD, recent=KEEPS)

    def everyone(*numbers: int) -> None:
        for i in numbers:
            for stream in range(200):
                at, x, _ = reading(i)
                driver.send(f"{stream}", at=at, x=x)
            driver.run()

    def followed() -> int:
        assert driver.shard is not None and driver.challenger is not None
        return driver.shard.store.named().get(driver.challenger[1], 0)

    driver.challenge(NEW, share=0.25)
    everyone(*range(8))
    assert 30 <= (first := followed()) <= 70
    driver.challenge(NEW, share=1)
    everyone(8, 9)
    assert followed() == 200
    driver.promote()
    everyone(10)
    known = [bits_of(driver.predictions(f"{stream}")[-1]) for stream in range(200)]
    whole = Unroll(NEW).step(*map(reading, range(11)))
    joined = Unroll(NEW).step(*map(reading, range(8 - KEEPS, 11)))
    assert (known.count(whole), known.count(joined)) == (first, 200 - first)


def test_a_challenger_that_fails_at_its_work_leaves_and_changes_no_prediction() -> None:
    driver, alone = StreamDriver(OLD, recent=KEEPS), StreamDriver(OLD)
    driver.challenge(NEW)
    for one in (driver, alone):
        send(one, "a", *range(5))
    models = driver.shard.models  # type: ignore[union-attr]
    assert models.challenger is not None
    failing = models.challenger.model
    models.challenger.engine.table.parts["h0"] = torch.zeros(1, 8)  # as a device whose memory is gone
    for one in (driver, alone):
        send(one, "a", *range(5, 10))
    assert [bits_of(made) for made in driver.predictions()] == [bits_of(made) for made in alone.predictions()]
    assert models.challenger is None and models.failed is not None
    model, reason = models.failed
    assert model == failing and "failed beside the champion" in reason


def test_of_few_streams_a_challenger_is_given_all() -> None:
    driver = StreamDriver(OLD, recent=KEEPS)
    driver.challenge(NEW, share=0.01)
    for stream in STREAMS:
        send(driver, stream, 0, 1)
    assert driver.shard is not None and driver.challenger is not None
    assert driver.shard.store.named()[driver.challenger[1]] == len(STREAMS)


def test_a_stream_that_was_silent_is_brought_over_by_its_latest_readings() -> None:
    driver = StreamDriver(OLD, recent=KEEPS)
    send(driver, "a", *range(10))
    driver.challenge(NEW)
    driver.promote()
    send(driver, "a", 10)
    last = driver.predictions()[-1]
    assert bits_of(last) == Unroll(NEW).step(*map(reading, range(10 - KEEPS, 11)))
    assert not last.flags & Flag.NEW
    assert driver.shard is not None
    assert driver.shard.models.warmed == 1


def test_a_swap_and_back_again_is_as_if_nothing_had_been() -> None:
    driver, alone = StreamDriver(OLD, recent=KEEPS), StreamDriver(OLD)
    driver.challenge(NEW)
    for i in range(12):
        send(driver, "a", i)
        send(alone, "a", i)
        driver.promote()
    made, wanted = driver.predictions(), alone.predictions()
    for i in range(0, 12, 2):  # the old model's turns
        assert bits_of(made[i]) == bits_of(wanted[i])
    assert len({one.model for one in made}) == 2


def test_another_server_may_serve_another_model() -> None:
    first = StreamDriver(OLD, recent=KEEPS)
    send(first, "a", *range(10))
    second = StreamDriver(NEW, recent=KEEPS)
    second.broker, second.now_ms = first.broker, first.now_ms
    send(second, "a", 10)
    assert bits_of(second.predictions()[-1]) == Unroll(NEW).step(*map(reading, range(10 - KEEPS, 11)))


def test_without_latest_readings_another_model_is_refused() -> None:
    first = StreamDriver(OLD)
    send(first, "a", 0)
    second = StreamDriver(NEW, recent=KEEPS)
    second.broker = first.broker
    with pytest.raises(Refused, match=f"made by model {first.model}.*registry"):
        second.run()


def test_latest_readings_of_another_number_are_gathered_anew() -> None:
    driver = StreamDriver(OLD, recent=KEEPS)
    send(driver, "a", *range(10))
    more = StreamDriver(OLD, recent=2 * KEEPS)
    more.broker = driver.broker
    send(more, "a", 10)
    assert bits_of(more.predictions()[-1]) == Unroll(OLD).step(*map(reading, range(11)))


def test_a_repeated_reading_is_known_by_a_model_that_has_not_seen_it() -> None:
    driver = StreamDriver(OLD, recent=KEEPS)
    for i in range(6):
        at, x, _ = reading(i)
        driver.send("a", at=at, x=x, seq=i)
    driver.run()
    driver.challenge(NEW)
    driver.promote()
    at, x, _ = reading(5)
    driver.send("a", at=at, x=x, seq=5)
    driver.run()
    assert driver.predictions()[-1].flags & Flag.DUPLICATE


def test_rows_name_the_models_that_made_them() -> None:
    driver = StreamDriver(OLD, recent=KEEPS)
    send(driver, "a", 0)
    driver.challenge(NEW)
    send(driver, "b", 0)
    assert driver.shard is not None and driver.challenger is not None
    assert driver.shard.store.named() == {driver.model: 2, driver.challenger[1]: 1, RECENT: 2}
    driver.challenge(None)
    assert driver.shard.store.named()[driver.shard.models.champion.model] == 2
    send(driver, "b", 1)
    assert driver.shard.store.named() == {driver.model: 2, RECENT: 2}


# ---- whatever happens ------------------------------------------------------------------------------------------------

SENDS = st.tuples(st.just("send"), st.sampled_from(STREAMS), st.integers(1, 5))
DEEDS = st.one_of(
    SENDS, SENDS, SENDS, st.tuples(st.sampled_from(["turn", "crash", "challenge", "withdraw", "promote"]))
)
MISHAPS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([InjectedFault.LOST, InjectedFault.CRASH])), max_size=4)


class Judge:
    """What each prediction must be, given which model was asked to make it and what each model has seen so far.

    The order of events is the committed one: who was champion when an epoch was kept is in the predictions themselves;
    a model's memory of a stream begins with the readings that the stream remembered when the model first stepped it.
    """

    def __init__(self) -> None:
        self.sent: dict[str, list[tuple[int, list[float], int]]] = defaultdict(list)

    def check(self, made: list[Prediction], models: dict[str, Network]) -> None:
        by_stream: dict[str, list[Prediction]] = defaultdict(list)
        for one in made:
            by_stream[one.stream].append(one)
        for stream, its in by_stream.items():
            assert [one.at_ms for one in its] == [at for at, _, _ in self.sent[stream]], stream
            for i, one in enumerate(its):
                assert bits_of(one) in self.possible(stream, i, models[one.model]), (stream, i, one.model)

    def possible(self, stream: str, i: int, model: Network) -> set[bytes]:
        """What the model says of reading i if it has read since the stream's first one, or since it was warmed up with
        the latest readings before any later one.
        """
        readings = self.sent[stream]
        starts = {0, *(max(0, at - KEEPS) for at in range(1, i + 1))}
        return {Unroll(model).step(*readings[start : i + 1]) for start in starts}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(DEEDS, min_size=4, max_size=24), MISHAPS, st.sampled_from([2, 8]))
def test_every_reading_has_one_prediction_of_one_model_whatever_happens(deeds, mishaps, slots) -> None:  # type: ignore[no-untyped-def]
    coming = [list(one) for one in mishaps]

    def mishap(step: FaultPoint) -> InjectedFault | None:
        if not coming:
            return None
        coming[0][0] -= 1
        return coming.pop(0)[1] if coming[0][0] < 0 else None

    driver = StreamDriver(OLD, slots=slots, recent=KEEPS, max_readings=6, faults=Faults(mishap))
    models = {driver.model: OLD}
    judge, number = Judge(), 0
    for deed, *what in deeds:
        try:
            if deed == "send":
                for _ in range(what[1]):
                    judge.sent[what[0]].append(reading(number))
                    at, x, _ = reading(number)
                    driver.send(what[0], at=at, x=x)
                    number += 1
            elif deed == "turn":
                driver.turn()
            elif deed == "crash":
                driver.crash()
            elif deed == "challenge" and driver.model in models and models[driver.model] is OLD:
                driver.challenge(NEW)
                assert driver.challenger is not None
                models[driver.challenger[1]] = NEW
            elif deed == "withdraw":
                driver.challenge(None)
            elif deed == "promote" and driver.challenger is not None:
                driver.promote()
        except Crash:
            driver.crash()
    coming.clear()
    driver.run()
    judge.check(driver.predictions(), models)
    assert sum(map(len, judge.sent.values())) == len(driver.predictions())
    for partition in range(driver.broker.partitions):
        records = driver.broker.records(Role.CHANGELOG, partition)
        rows, _ = state_rows.decode(records)
        if len(rows):
            assert len(rows.memory(RECENT).index) == len(rows)


# ---- how improbable a reading is -------------------------------------------------------------------------------------


def calibration() -> Calibration:
    random = np.random.default_rng(5)
    return calibrated([random.gamma(2.0, 0.5, 4000)])


class Judging(StreamDriver):
    """A driver whose models come with a calibration of their scores."""

    def _deployed(self, network: Network, model: str) -> DeployedModel:
        return DeployedModel(model, engine_of(network, self._slots), calibration=calibration())


def test_predictions_say_how_improbable_their_reading_was_and_a_crash_changes_nothing() -> None:
    crashing, alone = (Judging(OLD, recent=KEEPS, slots=4) for _ in range(2))
    for i in range(30):
        for stream in ("a", "b", "c", "d", "e", "f"):  # more than slots: sketches move to the store and back
            for driver in (crashing, alone):
                at, x, _ = reading(i)
                driver.send(stream, at=at, x=[x[0], 50.0] if i == 25 and stream == "a" else x)
        if i % 7 == 3:
            crashing.turn()
            crashing.crash()
    crashing.run()
    alone.run()
    for stream in ("a", "f"):
        got, wanted = crashing.predictions(stream), alone.predictions(stream)
        assert [(one.p, one.lasting) for one in got[1:]] == [(one.p, one.lasting) for one in wanted[1:]]
        assert np.isnan(got[0].p)  # nothing had been said of it  # type: ignore[arg-type]
    odd = crashing.predictions("a")[25]
    assert odd.p is not None and odd.p < 1e-3 < min(one.p for one in crashing.predictions("f")[1:])  # type: ignore[type-var]


def test_a_challenger_judges_by_its_own_past() -> None:
    driver, alone = Judging(OLD, recent=KEEPS), Judging(NEW)
    driver.challenge(NEW)
    for one in (driver, alone):
        send(one, "a", *range(20))
    driver.promote()
    send(driver, "a", 20)
    send(alone, "a", 20)
    assert driver.predictions()[-1].p == alone.predictions()[-1].p is not None


def test_without_a_calibration_nothing_is_said_of_it() -> None:
    driver = StreamDriver(OLD)
    send(driver, "a", 0, 1)
    assert driver.predictions()[-1].p is None
    assert b'"p"' not in (driver.broker.records(Role.PREDICTIONS, 0).values[-1] or b"")
