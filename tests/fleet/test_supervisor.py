"""What a supervisor makes of an actor's end. With real actors: tests/services and tests/chaos."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from rnn.config import ModelConfig
from rnn.nn.network import Network
from services.brokers.memory import FaultPoint, Faults, InjectedFault
from services.driver import START_MS, StreamDriver
from services.fleet.apart import check_left
from services.fleet.shard_handle import BLAMED, DROPPING, ShardHandle
from services.fleet.status import AssignmentResult, ExitReason, ModelAssignment, ShardExit, ShardStatus
from services.fleet.supervisor import Supervisor
from services.predictor.ports import Fenced, Refused
from services.predictor.stats import ShardStats
from services.settings import Settings

FENCED = ShardExit(ExitReason.FENCED, "another owner")


class Told(Supervisor):
    """A supervisor that starts nothing. `replace` does to the books what a stalled actor makes it do."""

    def __init__(self) -> None:
        self.said: list[str] = []
        super().__init__(Settings(), 2, lambda event, **fields: self.said.append(event))

    def _begin(self, member: ShardHandle) -> None:
        member.incarnation += 1

    def replace(self, shard: int) -> None:
        self._replace(self._members[shard], self.settings.fleet.stall_timeout_s)

    def ended(self, shard: int, outcome: ShardExit) -> Any:
        self._ended(self._members[shard], outcome)


def test_whoever_is_shut_out_leaves() -> None:
    with pytest.raises(Fenced, match="shard 1 was taken over: another server with group"):
        Told().ended(1, FENCED)


def test_a_replacement_that_is_shut_out_starts_once_more_and_only_once() -> None:
    told = Told()
    told.replace(1)
    told.ended(1, FENCED)  # by its stalled predecessor, which woke up
    assert told.said == ["shard_stalled", "shard_died"]
    with pytest.raises(Fenced):
        told.ended(1, FENCED)  # so it was another server


def test_a_crash_in_between_changes_nothing_about_that() -> None:
    told = Told()
    told.replace(0)
    told.ended(0, ShardExit(ExitReason.CRASHED, "out of memory"))
    told.ended(0, FENCED)
    with pytest.raises(Fenced):
        told.ended(0, FENCED)
    with pytest.raises(Fenced):
        told.ended(1, FENCED)  # nobody of that shard was replaced


def test_a_shard_that_dies_again_and_again_shows() -> None:
    told = Told()
    for _ in range(5):
        told.ended(1, ShardExit(ExitReason.CRASHED, "Traceback ...\nIndexError: of one record"))
    assert "shard 1 has died 5 times in a row, the last time of: IndexError: of one record" in told.unready()
    for _ in range(10):
        told.ended(1, ShardExit(ExitReason.CRASHED, "IndexError"))
    assert not told.hopeless()  # to start the server anew would end the other shard as well
    for _ in range(6):
        told.ended(0, ShardExit(ExitReason.CRASHED, "IndexError"))
    assert told.hopeless()


def test_a_shard_that_stalls_again_and_again_is_not_ready_until_one_has_lasted() -> None:
    told = Told()
    stalled, other = told._members

    def heard(at_s: float, beats: int, kept: int = 0) -> None:
        """It answers whether or not it makes progress."""
        stats = replace(ShardStats(), ready=True, beats=beats)
        stats.epochs["kept"] = kept
        for member in (stalled, other):
            told._heard(member, ShardStatus(member.shard, member.incarnation, 1, "here", stats), at_s)

    now_s = time.monotonic()
    for member in (stalled, other):
        member.incarnation, member.run = 0, object()
    heard(now_s, 1)
    assert told.unready() == []
    for _ in range(3):
        told.replace(0)
        assert stalled.due_s is None and stalled.run is not None  # the next one has begun
        heard(now_s, 1)
    sentence = "shard 0 has died or stalled 3 times in a row, the last time of: no progress for 30 s"
    assert told.unready() == [sentence] and told.restarts()[0] == {"stalled": 3}
    heard(now_s + 100, 1)  # it answers and makes no progress: that is no calm
    assert sentence in told.unready()
    assert not told.hopeless() and not stalled.suspect()
    heard(now_s, 2, kept=1)
    assert told.unready() == []


def test_a_wall_clock_that_steps_back_is_no_lack_of_progress() -> None:
    told, driver = Told(), StreamDriver(Network(ModelConfig(("flow",), hidden=4)))
    shard, now_s = driver.restart(), time.monotonic()
    long_ago_s = now_s - Settings().fleet.stall_timeout_s
    for member in told._members:
        member.incarnation, member.run = 0, object()
    for heard_s in (long_ago_s, now_s):
        for member in told._members:
            told._heard(member, ShardStatus(member.shard, 0, 1, "here", shard.stats.snapshot()), heard_s)
        driver.now_ms -= 3_600_000
        shard.turn()
    assert told.unready() == []


def test_epochs_that_are_dropped_again_and_again_show_until_one_is_kept() -> None:
    broken = [True]
    faults = Faults(lambda at: InjectedFault.LOST if broken and at is FaultPoint.BEFORE_END else None)
    told, driver = Told(), StreamDriver(Network(ModelConfig(("flow",), hidden=4)), faults=faults)
    shard = driver.restart()
    driver.send("pump-1", at=START_MS, x=[1.0])
    for member in told._members:
        member.incarnation, member.run = 0, object()

    def after_turns(n: int) -> list[str]:
        for _ in range(n):
            shard.turn()
        for member in told._members:
            told._heard(member, ShardStatus(member.shard, 0, 1, "here", shard.stats.snapshot()), time.monotonic())
        return told.unready()

    assert after_turns(DROPPING - 1) == []
    why = f"has dropped its last {DROPPING} epochs, the last one because connection lost at before_end"
    assert after_turns(1) == [f"shard {n} {why}" for n in range(2)]
    assert shard.stats.lag == {0: 1} and shard.stats.lag_s > 0
    broken.clear()
    assert after_turns(1) == [] and shard.stats.lag == {0: 0}


class Asked:
    """What follows the registry: every shard is to run this."""

    def __init__(self) -> None:
        self.wanted = ModelAssignment("good")
        self.turned_down: list[str] = []

    def assignment(self, shard: int) -> ModelAssignment:
        return self.wanted

    def refused(self, model: str, reason: str) -> None:
        self.turned_down.append(model)

    def heard(self, rounds: Any) -> None:
        pass

    def saw(self, stats: Any) -> None:
        pass


def following() -> tuple[Told, Asked, ShardHandle]:
    told, asked = Told(), Asked()
    told._following = asked  # type: ignore[assignment]
    member = told._members[0]
    member.served = member.assignment = ModelAssignment("good", "tried")
    return told, asked, member


def test_a_champion_that_cannot_run_leaves_the_one_that_served() -> None:
    told, asked, member = following()
    asked.wanted = ModelAssignment("damaged", "good")
    told.ended(0, ShardExit(ExitReason.REFUSED, "model: damaged", "damaged"))
    assert told.said == ["model_refused", "shard_died"] and asked.turned_down == ["damaged"]
    assert told._wanted(member) == ModelAssignment("good", "tried")
    told.ended(0, ShardExit(ExitReason.REFUSED, "model: no room", "good"))  # nothing else to serve with: tried again
    assert told.unready()[0] == "shard 0 is set aside: model: no room" and asked.turned_down == ["damaged"]
    told.ended(1, ShardExit(ExitReason.REFUSED, "model: damaged", "damaged"))  # it has served nothing yet
    with pytest.raises(Refused, match="model: no room; model: damaged"):
        check_left(told._members)


def test_a_challenger_that_cannot_run_is_left_out() -> None:
    told, asked, member = following()
    asked.wanted = member.ordering = ModelAssignment("good", "damaged", 0.5)
    told._answered(member, AssignmentResult(model="damaged", reason="damaged"))
    assert asked.turned_down == ["damaged"]
    assert told._wanted(member) == ModelAssignment("good")


def test_a_challenger_that_fails_at_its_work_is_refused_and_ordered_no_more() -> None:
    told, asked, member = following()
    asked.wanted = member.assignment
    status = ShardStatus(0, member.incarnation, 1, "here", ShardStats(), failed=("tried", "out of memory"))
    told._heard(member, status, 0.0)
    assert asked.turned_down == ["tried"] and member.assignment == told._wanted(member) == ModelAssignment("good")


def test_a_challenger_beside_which_a_shard_dies_again_and_again_is_taken_for_the_cause() -> None:
    told, asked, member = following()
    asked.wanted = member.assignment
    killed = ShardExit(ExitReason.CRASHED, "the kernel killed it: out of memory")
    for _ in range(BLAMED):
        told.ended(0, killed)
    assert not asked.turned_down, "once or twice may be chance"
    told.ended(0, killed)
    assert asked.turned_down == ["tried"] and told._wanted(member) == ModelAssignment("good")


def test_a_shard_that_is_refused_is_set_aside_until_none_is_left() -> None:
    told = Told()
    told.ended(1, ShardExit(ExitReason.REFUSED, "partition 1: states are ahead"))
    assert told.said == ["shard_set_aside"]
    assert told.unready() == ["shard 0 is starting", "shard 1 is set aside: partition 1: states are ahead"]
    check_left(told._members)
    told.ended(0, ShardExit(ExitReason.REFUSED, "the topic is gone"))
    with pytest.raises(Refused, match="the topic is gone; partition 1: states are ahead"):
        check_left(told._members)
