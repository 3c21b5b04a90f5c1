"""The driver as a user of docs/testing.md meets it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from services.brokers.memory import FaultPoint, Faults, InjectedFault, Isolation, MemoryChangelog
from services.codecs import sentinels
from services.driver import GROUP, START_MS, StreamDriver
from services.predictor.ports import Changelog, Fenced, Refused, Retriable
from services.records import Flag, Reason, Records, Role

AT = 1_700_000_000_000


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(3)
    return Network(ModelConfig(("flow", "level"), cell="lstm", hidden=6)).eval()


@pytest.fixture(scope="module")
def model(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pump"
    weights.save(folder, network, created_ms=AT)
    return folder


def example(name: str) -> Callable[[Path], None]:
    """A test function out of the document."""
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    space: dict[str, Callable[[Path], None]] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), space)
    return space[name]


@pytest.mark.parametrize("name", ["test_pump_model", "test_nothing_is_lost_in_the_middle_of_a_commit"])
def test_the_examples_of_the_document_pass(name: str, model: Path) -> None:
    example(name)(model)


def test_a_folder_and_its_network_predict_the_same(model: Path, network: Network) -> None:
    made = []
    for given in (model, network):
        driver = StreamDriver(given)
        driver.send("a", at=AT, x=[1.0, 2.0])
        driver.run()
        made.append(driver.predictions("a")[0])
    assert made[0].y.tobytes() == made[1].y.tobytes()
    assert made[0].model == weights.load(model)[1].model
    assert len(made[1].model) == len(made[0].model)


def test_readings_can_be_given_in_many_ways(network: Network) -> None:
    driver = StreamDriver(network, partitions=4)
    driver.send("a", at=AT, x=[1.0, None], seq=0)
    driver.send("b", at=datetime.fromtimestamp(AT / 1000, UTC), x=np.array([1.0, np.nan]), seq=0)
    driver.send(b"c", at="2023-11-14T22:13:20Z", x={"flow": 1.0}, partition=3)
    driver.run()
    made = {prediction.stream: prediction for prediction in driver.predictions()}
    assert made.keys() == {"a", "b", "c"}
    assert {prediction.at_ms for prediction in made.values()} == {AT}
    assert {prediction.flags for prediction in made.values()} == {Flag.NEW | Flag.MISSING}
    assert len({prediction.y.tobytes() for prediction in made.values()}) == 1
    assert made["c"].partition == 3
    assert made["a"].partition == driver.partition_of("a")


def test_refused_records_come_back_as_they_were(network: Network) -> None:
    driver = StreamDriver(network)
    driver.send_record("a", b'{"at": 1}', headers=[("origin", b"plc-7")])
    driver.send_record(None, b'{"at": 1, "x": [1, 2]}')
    driver.run()
    first, second = driver.dead_letters()
    assert (first.key, first.value, first.reason) == (b"a", b'{"at": 1}', Reason.WRONG_SCHEMA)
    assert first.headers["origin"] == b"plc-7"
    assert (second.key, second.reason) == (None, Reason.MISSING_KEY)
    assert driver.predictions() == []


def test_few_slots_and_crashes_change_no_prediction(network: Network) -> None:
    def predicted(driver: StreamDriver, crash: bool) -> list[bytes]:
        rng = np.random.default_rng(1)
        for second in range(20):
            for stream in ("a", "b", "c"):
                driver.send(stream, at=AT + second * 1000, x=rng.normal(size=2))
            if second % 4 == 0:
                driver.run()
                if crash:
                    driver.crash()
                    driver.broker.compact(Role.CHANGELOG)
        driver.run()
        return [prediction.y.tobytes() for stream in ("a", "b", "c") for prediction in driver.predictions(stream)]

    assert predicted(StreamDriver(network, slots=2), crash=True) == predicted(StreamDriver(network), crash=False)


def test_a_zombie_is_fenced(network: Network) -> None:
    driver = StreamDriver(network)
    zombie = driver.restart()
    driver.send("a", at=AT, x=[1.0, 2.0])
    driver.restart()
    with pytest.raises(Fenced):
        zombie.turn()
    assert driver.predictions() == []
    driver.run()
    assert len(driver.predictions()) == 1


def test_a_lost_connection_is_settled_by_the_shard_itself(network: Network) -> None:
    for step, epochs in (
        (FaultPoint.BEFORE_END, {"kept": 1, "dropped": 1}),
        (FaultPoint.AFTER_END, {"kept": 1, "dropped": 0}),
    ):
        driver = StreamDriver(network, faults=Faults.once(step, InjectedFault.LOST))
        driver.send("a", at=AT, x=[1.0, 2.0])
        driver.run()
        assert len(driver.predictions()) == 1
        assert driver.shard is not None
        assert driver.shard.stats.epochs == epochs


def test_an_idle_stream_is_forgotten(network: Network) -> None:
    driver = StreamDriver(network, ttl_ms=1000)
    for stream in ("a", "b"):
        driver.send(stream, at=AT, x=[1.0, 2.0])
    driver.run()
    driver.advance(1001)
    driver.send("b", at=AT + 1, x=[1.0, 2.0])
    driver.run()
    changelog = driver.broker.records(Role.CHANGELOG, 0)
    assert [key for key, value in zip(changelog.keys, changelog.values, strict=True) if value is None] == [b"a"]
    driver.send("a", at=AT + 2, x=[1.0, 2.0])
    driver.run()
    assert [prediction.flags for prediction in driver.predictions("a")] == [Flag.NEW, Flag.NEW]
    assert [prediction.flags for prediction in driver.predictions("b")] == [Flag.NEW, Flag(0)]


def test_an_idle_stream_that_comes_back_in_the_same_poll_keeps_its_name(network: Network) -> None:
    """Two epochs of one poll: the first one finds the stream idle that the second one steps."""
    driver = StreamDriver(network, slots=1, ttl_ms=1000)
    driver.send("a", at=AT, x=[1.0, 2.0])
    driver.run()
    driver.advance(1001)
    driver.send("b", at=AT, x=[1.0, 2.0])
    driver.send("a", at=AT + 1, x=[1.0, 2.0])
    driver.send("c", at=AT, x=[1.0, 2.0])
    driver.run()
    rows = driver.broker.records(Role.CHANGELOG, 0)
    last = dict(zip(rows.keys, rows.values, strict=True))
    assert {key for key, value in last.items() if value is not None} == {b"a", b"b", b"c", sentinels.KEY}


def test_the_clock_moves_only_by_hand(network: Network) -> None:
    driver = StreamDriver(network)
    driver.send("a", at=AT, x=[1.0, 2.0])
    driver.run()
    driver.advance(7)
    driver.send("a", at=AT, x=[1.0, 2.0])
    driver.run()
    assert driver.broker.records(Role.PREDICTIONS, 0).timestamps_ms.tolist() == [START_MS, START_MS + 7]


def test_offsets_that_were_moved_by_hand_are_refused(network: Network) -> None:
    driver = StreamDriver(network)
    driver.send("a", at=AT, x=[1.0, 2.0])
    driver.run()
    driver.crash()
    driver.broker.write_offsets(GROUP, {0: 0})
    with pytest.raises(Refused, match="moved or deleted"):
        driver.run()
    assert len(driver.broker.records(Role.PREDICTIONS, 0, Isolation.READ_UNCOMMITTED)) == 1


class Interrupted(StreamDriver):
    """Its broker goes away twice in the middle of a restore."""

    left = 2

    def changelog(self) -> Changelog:
        driver = self

        class Away(MemoryChangelog):
            def read(self, partition: int) -> Iterator[Records]:
                for records in super().read(partition):
                    yield records
                    if driver.left:
                        driver.left -= 1
                        raise Retriable("nothing came after offset 1 of 3")

        return Away(self.broker, chunk=1)


def test_a_broker_that_goes_away_in_a_restore_is_waited_for(network: Network) -> None:
    driver, whole = Interrupted(network, partitions=2), StreamDriver(network, partitions=2)
    driver.left = 0
    for one in (driver, whole):
        for step in range(2):
            for stream in ("a", "b", "c"):
                one.send(stream, at=AT + 1000 * step, x=[1.0, step])
            one.run()
    driver.left = 2
    driver.crash()
    driver.restart()
    assert driver.left == 0
    for one in (driver, whole):
        for stream in ("a", "b", "c"):
            one.send(stream, at=AT + 9000, x=[1.0, 2.0])
        one.run()
    for stream in ("a", "b", "c"):
        assert driver.predictions(stream)[-1].y.tobytes() == whole.predictions(stream)[-1].y.tobytes()
        assert not driver.predictions(stream)[-1].flags & Flag.NEW


class Cleaned(StreamDriver):
    """Its broker goes away in a restore, and has removed stream a's row and tombstone when it is back."""

    away = cleaned = False

    def changelog(self) -> Changelog:
        driver = self

        class Away(MemoryChangelog):
            def read(self, partition: int) -> Iterator[Records]:
                for records in super().read(partition):
                    if driver.cleaned and records.keys[0] == b"a":
                        continue
                    yield records
                    if driver.away:
                        driver.away, driver.cleaned = False, True
                        raise Retriable("nothing came after offset 1 of 3")

        return Away(self.broker, chunk=1)


def test_what_an_interrupted_restore_had_read_is_not_kept(network: Network) -> None:
    driver = Cleaned(network, partitions=1)
    for stream in ("a", "b"):
        driver.send(stream, at=AT, x=[1.0, 2.0])
        driver.run()
    driver.away = True
    driver.crash()
    driver.restart()
    assert driver.cleaned
    for stream in ("a", "b"):
        driver.send(stream, at=AT + 1000, x=[1.0, 2.0])
    driver.run()
    assert driver.predictions("a")[-1].flags & Flag.NEW
    assert not driver.predictions("b")[-1].flags & Flag.NEW
