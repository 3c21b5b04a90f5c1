"""A stream whose step raises is set aside alone: its readings are dead letters, its state stays, and its neighbours'
predictions are the same in every bit. What is of no single stream is raised. State rows: test_restore.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from services.driver import Prediction, StreamDriver
from services.predictor.aside import KINDS, Aside
from services.predictor.deployed_models import DeployedModel
from services.predictor.stats import ShardStats
from services.records import Fault, Reason, Rejected, Role

AT = 1_700_000_000_000
BUG = 4096.0
"""A value that the engine of these tests does not survive."""
STREAMS = tuple("abcdef")

torch.manual_seed(5)
FORWARD = Network(ModelConfig(("flow", "level"), cell="lstm", hidden=6)).eval()
GENERAL = Network(ModelConfig(("flow", "level"), cell="gru", hidden=5, layer_norm=True)).eval()


class Driver(StreamDriver):
    """Its engine raises `error` where a reading of `x[0] == BUG` is stepped, when the others have been."""

    error: Exception = IndexError("planted")
    everything = False

    def _deployed(self, network: Network, model: str) -> DeployedModel:
        engine = engine_of(network, self._slots)
        run = engine.run

        def raising(slots: Any, x: Any, *args: Any, **told: Any) -> Any:
            result = run(slots, x, *args, **told)
            if self.everything or (x[:, 0] == BUG).any():
                raise self.error
            return result

        engine.run = raising  # type: ignore[method-assign]
        return DeployedModel(model, engine)


def bits(made: list[Prediction]) -> list[tuple[Any, ...]]:
    """Without offsets."""
    return [(one.at_ms, one.y.tobytes(), np.float32(one.score).tobytes(), one.flags, one.row) for one in made]


def packed(rows: list[tuple[str, float]], at: int) -> bytes:
    x = np.array([[value, 1.0] for _, value in rows], np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 2)
    table = pa.table({"stream": [name for name, _ in rows], "at": [at] * len(rows), "x": lists})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    value: bytes = sink.getvalue().to_pybytes()
    return value


# A reading is (stream, whether the engine does not survive it); a turn takes a list of them.
turns = st.lists(st.lists(st.tuples(st.sampled_from(STREAMS), st.booleans()), max_size=8), min_size=1, max_size=5)


@pytest.mark.parametrize("network", [FORWARD, GENERAL], ids=["forward", "any task"])
def test_neighbours_and_its_own_later_readings_are_as_if_it_had_not_been(network: Network) -> None:
    @given(turns, st.integers(2, 8), st.integers(1, 2))
    @settings(max_examples=15, deadline=None)
    def lived(schedule: list[list[tuple[str, bool]]], slots: int, partitions: int) -> None:
        hurt, well = Driver(network, partitions, slots=slots), Driver(network, partitions, slots=slots)
        refused = set()
        for turn, readings in enumerate(schedule):
            felled = {name for name, bug in readings if bug}
            for i, (name, bug) in enumerate(readings):
                at = AT + 1000 * (10 * turn + i)
                offset = hurt.send(name, at, [BUG if bug else i + 0.5, turn])
                if name in felled:
                    refused.add((hurt.partition_of(name), offset))
                else:
                    well.send(name, at, [i + 0.5, turn])
            hurt.run()
            well.run()
        letters = hurt.dead_letters()
        assert {letter.reason for letter in letters} <= {Reason.INTERNAL}
        told = [(one.partition, int(one.headers["__connect.errors.offset"] or b"")) for one in letters]
        assert set(told) <= refused  # of readings in two epochs only those of the one that raised
        assert len(told) == len(set(told))
        if slots >= len(STREAMS):
            assert set(told) == refused
            for name in STREAMS:
                assert bits(hurt.predictions(name)) == bits(well.predictions(name))
        steps = sum(len(readings) for readings in schedule)
        assert len(hurt.predictions()) + len(letters) == steps

    lived()


def test_of_a_packed_record_only_the_rows_of_that_stream_are_refused() -> None:
    hurt, well = Driver(FORWARD), Driver(FORWARD)
    hurt.send_record("k", packed([("a", 1.0), ("b", BUG), ("c", 2.0)], AT))
    well.send_record("k", packed([("a", 1.0), ("c", 2.0)], AT))
    for driver in (hurt, well):
        driver.send("a", AT + 1000, [3.0, 3.0])
        driver.run()
    for name in "ac":
        assert [one[:4] for one in bits(hurt.predictions(name))] == [one[:4] for one in bits(well.predictions(name))]
    assert hurt.predictions("b") == []
    (letter,) = hurt.dead_letters()
    assert letter.value == packed([("a", 1.0), ("b", BUG), ("c", 2.0)], AT)
    message = (letter.headers["__connect.errors.exception.message"] or b"").decode()
    assert "stream 'b'" in message
    assert "rows of other streams are not refused" in message


def test_a_dead_letter_of_the_decoder_and_one_of_a_step_stand_in_order() -> None:
    driver = Driver(FORWARD)
    for value in (b"no", b"bug", b"neither", b"bug", b"good"):
        x = {"bug": BUG, "good": 1.0}.get(value.decode())
        driver.send_record(value, value if x is None else json.dumps({"at": AT, "x": [x, 1]}).encode(), [("h", value)])
    driver.run()
    letters = driver.dead_letters()
    assert [letter.headers["h"] for letter in letters] == [b"no", b"bug", b"neither", b"bug"]
    assert [letter.reason for letter in letters] == ["not_json", "internal", "not_json", "internal"]
    assert [one.stream for one in driver.predictions()] == ["good"]


@pytest.mark.parametrize("streams", [1, 5])
def test_an_engine_that_can_step_nothing_makes_no_dead_letters(streams: int) -> None:
    driver = Driver(FORWARD)
    driver.everything = True
    for name in STREAMS[:streams]:
        driver.send(name, AT, [1.0, 2.0])
    for _ in range(2):  # the next incarnation as well
        with pytest.raises(IndexError):
            driver.run()
    assert driver.dead_letters() == []
    driver.everything = False
    driver.run()
    assert len(driver.predictions()) == streams


@pytest.mark.parametrize("error", [MemoryError(), type("OutOfMemoryError", (RuntimeError,), {})()])
def test_a_machine_without_memory_is_no_fault_of_a_stream(error: Exception) -> None:
    driver = Driver(FORWARD)
    driver.error = error
    driver.send("a", AT, [BUG, 2.0])
    driver.send("b", AT, [1.0, 2.0])
    with pytest.raises(type(error)):
        driver.run()
    assert driver.dead_letters() == []


def test_a_stream_that_raises_again_is_looked_for_first() -> None:
    driver = Driver(FORWARD, slots=300)
    steps = []
    for _ in range(2):
        for i in range(256):
            driver.send(f"s{i}", AT, [BUG if i == 77 else 1.0, 2.0])
        shard = driver.shard or driver.restart()
        before = shard.stats.phase_s["batch"].counts.sum()
        driver.run()
        steps.append(int(shard.stats.phase_s["batch"].counts.sum() - before))
    assert steps[1] < steps[0] / 3, steps
    assert len(driver.dead_letters()) == 2


def test_streams_whose_steps_always_raise_take_no_room_from_others() -> None:
    driver = Driver(FORWARD, max_streams=4)
    for turn in range(3):
        for i in range(3):
            driver.send(f"felled-{turn}-{i}", AT, [BUG, 2.0])
        driver.run()
    shard = driver.shard
    assert shard is not None and (shard.store.known, shard.admission.used) == (0, 0.0)
    for name in STREAMS[:4]:
        driver.send(name, AT, [1.0, 2.0])
    driver.run()
    driver.send("a", AT + 1000, [BUG, 2.0])
    driver.run()
    driver.send("a", AT + 2000, [1.0, 2.0])
    driver.run()
    assert [letter.reason for letter in driver.dead_letters()] == [Reason.INTERNAL] * 10
    assert len(driver.predictions()) == 5 and shard.store.known == 4, "one that has a state keeps its number"


@pytest.mark.parametrize("slots", [2, 8])
def test_a_number_that_was_given_back_is_a_new_stream_s(slots: int) -> None:
    hurt, well = Driver(FORWARD, slots=slots), Driver(FORWARD, slots=slots)
    for turn in range(4):
        for name in STREAMS[: turn + 2]:
            hurt.send(name, AT + turn, [float(turn), 1.0])
            well.send(name, AT + turn, [float(turn), 1.0])
        hurt.send(f"felled-{turn}", AT, [BUG, 2.0])
        hurt.run()
        well.run()
    for name in STREAMS:
        assert bits(hurt.predictions(name)) == bits(well.predictions(name))


def test_each_kind_of_error_is_told_once_and_not_without_end() -> None:
    told: list[dict[str, Any]] = []
    driver = StreamDriver(FORWARD)
    for step in range(2):
        driver.send("a", AT + step, [1.0, 1.0])
    shard, stats = driver.restart(), ShardStats()
    tell = lambda event, **fields: told.append({"event": event, **fields})  # noqa: E731
    aside = Aside(shard.store, shard.slots, shard.models, stats, tell)
    records = driver.broker.records(Role.READINGS, 0).take([1])
    for kind in range(3 * KINDS):
        for _ in range(2):
            aside.decoded(Rejected(records, [Reason.INTERNAL], [""], (Fault(f"E{kind}", "stack"),)))
    assert len(told) == KINDS
    assert told[0] == {
        "event": "internal_error", "place": "decode", "error": "E0", "stack": "stack", "partition": 0, "offset": 1,
    }  # fmt: skip
    assert stats.internal_errors == {"decode": 6 * KINDS}
