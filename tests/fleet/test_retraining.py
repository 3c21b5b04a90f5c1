"""When a retraining begins, and that its failure is an outcome and nothing more. Real Ray, no broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from waiting import wait_for

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from services.fleet import model_controller
from services.fleet.events import Events
from services.fleet.ray_runtime import join_or_start, prepare
from services.fleet.retraining import Retraining
from services.fleet.rollout import Rollout
from services.quality.drift import Drift
from services.registry import Registry
from services.settings import Settings
from services.trainer.runs import latest_pass, open_run

MIDNIGHT_S = 1_700_006_400.0  # 2023-11-15T00:00:00Z
DRIFTED = Drift("flow", "psi", 0.7, 0.25, True, 0)
STEADY = Drift("flow", "psi", 0.1, 0.25, False, None)


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    prepare()
    join_or_start(None, 1, 0)
    yield
    ray.shutdown()


class World:
    def __init__(self, folder: Path, **rules: Any) -> None:
        torch.manual_seed(1)
        weights.save(folder / "model", Network(ModelConfig(("flow",), hidden=4)).eval(), created_ms=0)
        registry = Registry(folder / "registry")
        self.champion = registry.add(folder / "model", reason="a test").model
        self.now_s = MIDNIGHT_S
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.settings = Settings(
            model=folder / "model",
            registry=registry.where,
            kafka={"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 200},
            retrain={"runs": folder / "runs", **rules},
        )
        self.retraining = Retraining(self.settings, self.notify, lambda: self.now_s)

    def notify(self, event: str, **told: Any) -> None:
        self.said.append((event, told))

    def tick(self, *drifts: Drift, on_trial: bool = False) -> Any:
        return self.retraining.tick(self.champion, drifts, on_trial)

    def ended(self) -> dict[str, Any]:
        """Ticks until the one under way has ended; what was said of it."""

        def look() -> bool:
            assert self.tick() is None
            return not self.retraining.running

        wait_for(look, "it ends", progress=lambda: len(self.said))
        return self.said[-1][1]


def test_the_schedule_begins_one_and_a_broker_that_is_away_makes_it_fail(on_ray: None, tmp_path: Path) -> None:
    world = World(tmp_path, cron="0 3 * * *")
    world.tick()
    world.now_s += 3 * 3600 - 1
    world.tick(DRIFTED)  # which is nobody's business here
    assert not world.retraining.running
    world.now_s += 1
    world.tick()
    assert world.retraining.running
    assert world.said[-1] == ("retraining", {"reason": "schedule 0 3 * * *", "workers": 1, "last": "7d"})
    told = world.ended()
    assert told["end"] == "failed" and "127.0.0.1:1" in told["message"]
    assert world.retraining.outcomes == {"failed": 1}
    world.now_s += 24 * 3600 - 1
    world.tick()
    assert not world.retraining.running
    assert Registry(tmp_path / "registry").models()[0].model == world.champion


def test_drift_begins_one_and_then_there_is_a_rest(on_ray: None, tmp_path: Path) -> None:
    world = World(tmp_path, on_drift=True, rest_h=6, settle_h=0)
    world.tick(STEADY)
    assert not world.retraining.running
    world.tick(STEADY, DRIFTED)
    assert world.said[-1][1]["reason"] == "drift of flow (psi 0.7, above 0.25)"
    world.ended()
    world.now_s += 6 * 3600 - 1
    world.tick(DRIFTED)
    assert not world.retraining.running
    world.now_s += 1
    world.tick(DRIFTED)
    assert world.retraining.running
    world.retraining.stop()
    assert not world.retraining.running
    event, told = world.said[-1]
    assert (
        event == "retrained" and told["end"] == "cancelled" and "the fleet that began it has ended" in told["message"]
    )


class Slow(Retraining):
    """Of which each look waits at the `gate`, and then begins one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.arrived, self.gate = threading.Event(), threading.Event()

    def tick(self, champion: str, *_: Any) -> Any:
        self.arrived.set()
        self.gate.wait()
        return super().tick(champion, [DRIFTED])


def test_what_a_look_begins_while_the_fleet_ends_is_cancelled(
    on_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, on_drift=True, settle_h=0)
    monkeypatch.setattr(model_controller, "LEAVE_S", 0.0)
    rollout = Rollout(Registry(tmp_path / "registry"), world.settings, 1, world.notify)
    rollout.open()
    slow = Slow(world.settings, world.notify)
    follower = model_controller.ModelController(
        rollout, slow, Events(world.settings.kafka, "events", world.notify), world.notify
    )
    slow.arrived.wait()
    follower.stop()
    slow.gate.set()
    follower._thread.join()
    assert not slow.running
    ends = [told["end"] for event, told in world.said if event == "retrained"]
    assert ends == ["cancelled"]
    assert any("a look under way has not ended" in told.get("error", "") for _, told in world.said)


def test_a_retraining_steps_back_as_far_as_its_setting_says(on_ray: None, tmp_path: Path) -> None:
    nobody_elses = 13
    assert nobody_elses not in {process.info["nice"] for process in psutil.process_iter(["nice"])}
    world = World(tmp_path, on_drift=True, settle_h=0, niceness=nobody_elses)
    world.tick(DRIFTED)
    world.ended()
    assert nobody_elses in {process.info["nice"] for process in psutil.process_iter(["nice"])}


def test_drift_begins_none_while_a_model_is_on_trial(on_ray: None, tmp_path: Path) -> None:
    world = World(tmp_path, on_drift=True, settle_h=0)
    world.tick(DRIFTED, on_trial=True)
    assert not world.retraining.running
    world.tick(DRIFTED)
    assert world.retraining.running
    world.ended()


def test_a_drift_must_last_before_it_begins_one(on_ray: None, tmp_path: Path) -> None:
    world = World(tmp_path, on_drift=True)
    fresh = replace(DRIFTED, since_ms=round(world.now_s * 1000))
    world.tick(fresh)
    world.now_s += 1799
    world.tick(STEADY, fresh)
    assert not world.retraining.running
    world.now_s += 1
    world.tick(STEADY)  # over before it lasted so long
    assert not world.retraining.running
    world.tick(STEADY, fresh)
    assert world.retraining.running
    world.ended()


def test_how_far_one_has_come_is_read_from_its_folder(tmp_path: Path) -> None:
    assert latest_pass(tmp_path / "nowhere", 0) == {}
    run = open_run(tmp_path, "0" * 64, {})
    assert latest_pass(tmp_path, 0) == {}
    for number in (1, 2):
        run.tell("pass", number=number, passes=8, validation_loss=0.1, baseline_loss=0.2)
    run.tell("worker", rank=0)
    assert latest_pass(tmp_path, 0)["number"] == 2
    assert latest_pass(tmp_path, time.time_ns() // 1_000_000 + 1_000) == {}  # of one that began before
    with (run.folder / "events.jsonl").open("a") as half:
        half.write('{"at_ms": 17')
    assert latest_pass(tmp_path, 0) == {}  # until the line is whole


def test_one_that_does_not_end_is_ended(on_ray: None, tmp_path: Path) -> None:
    world = World(tmp_path, on_drift=True, settle_h=0, limit_minutes=1)
    world.tick(DRIFTED)
    world.now_s += 60 + 121
    world.ended()
    assert sum(world.retraining.outcomes.values()) == 1


def test_the_schedule_says_how_far_apart_it_is(tmp_path: Path) -> None:
    assert World(tmp_path, cron="0 3 * * *").retraining.every_s == 24 * 3600


def test_without_a_schedule_nothing_is_ever_stale(tmp_path: Path) -> None:
    assert World(tmp_path, on_drift=True).retraining.every_s == 0
