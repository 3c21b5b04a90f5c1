"""Which models run where: aliases are followed, contests acted on, and a restart goes on where the registry stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.io import weights
from rnn.nn.network import Network
from services.fleet.rollout import HOUR_MS, Rollout
from services.fleet.status import ModelAssignment
from services.predictor.ports import Refused
from services.predictor.stats import Paired
from services.quality.sequential_test import Round
from services.registry import Registry, Unreachable
from services.settings import Settings

START_MS = 1_700_000_000_000
RULES = {
    "least_readings": 1000, "most_readings": 100_000, "shadow": 1, "watch_h": 1, "canary": 0.5, "canary_h": 0.1,
    "expires_h": 2,
}  # fmt: skip


class World:
    """A registry with three models, a clock, and what was notified."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = START_MS
        self.registry = Registry(folder / "registry", clock_ms=lambda: self.now_ms)
        self.models: list[str] = []
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.folder = folder
        for seed in range(3):
            torch.manual_seed(seed)
            network = Network(ModelConfig(("a", "b"), hidden=4)).eval()
            weights.save(folder / f"model-{seed}", network, created_ms=seed)
            self.models.append(weights.load(folder / f"model-{seed}")[1].model)

    def rollout(self, shards: int = 4, **rules: Any) -> Rollout:
        settings = Settings(registry=self.registry.where, model=self.folder / "model-0", rollout={**RULES, **rules})
        found = Rollout(
            self.registry, settings, shards, lambda event, **told: self.said.append((event, told)), lambda: self.now_ms
        )
        found.open()
        return found

    def add(self, which: int) -> str:
        return self.registry.add(self.folder / f"model-{which}", reason="a test").model

    def events(self, name: str) -> list[dict[str, Any]]:
        return [told for event, told in self.said if event == name]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def rounds(champion: str, challenger: str, gain: float, count: int = 200, shards: int = 4) -> list[Paired]:
    random = np.random.default_rng(7)
    found = []
    for i in range(count):
        g = float(np.clip(gain + 0.05 * random.normal(), -0.9, 0.9))
        found.append(Paired(champion, challenger, Round(i % shards, 200, 8, g, 100.0 * (1 + g), 100.0 * (1 - g))))
    return found


def test_an_empty_registry_gets_the_model_of_the_settings(world: World) -> None:
    rollout = world.rollout()
    first = world.models[0]
    assert world.registry.aliases().champion == first
    assert {rollout.assignment(shard) for shard in range(4)} == {ModelAssignment(first)}
    assert world.rollout().assignment(0) == ModelAssignment(first)  # and a second server finds it


def test_a_registry_without_anything_to_serve_is_refused(world: World) -> None:
    settings = Settings(registry=str(world.folder / "empty"), model=world.folder / "nowhere")
    with pytest.raises(Refused, match="nowhere"):
        Rollout(Registry(world.folder / "empty"), settings, 1, lambda event, **told: None).open()


def test_a_challenger_that_has_won_follows_all_streams_before_it_takes_over(world: World) -> None:
    rollout = world.rollout(shadow=0.25, join_h=0.5)
    first, second = world.models[0], world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    assert rollout.assignment(0) == ModelAssignment(first, second, share=0.25)
    rollout.heard(rounds(first, second, 0.2))
    rollout.look()
    assert rollout.assignment(0) == ModelAssignment(first, second, share=1)
    assert world.events("joining")[0]["model"] == second and not world.events("verdict")
    world.now_ms += round(0.4 * HOUR_MS)
    rollout.heard(rounds(first, second, -0.5))  # too late: the contest is over, and the watch comes after it
    rollout.look()
    assert world.registry.aliases().champion == first
    world.now_ms += round(0.1 * HOUR_MS)
    rollout.look()
    assert world.registry.aliases().champion == second
    assert rollout.assignment(0) == ModelAssignment(
        second, first, share=1
    )  # whom it may be rolled back to, with every memory


def test_a_challenger_that_was_replaced_while_it_joined_is_not_promoted(world: World) -> None:
    rollout = world.rollout(shadow=0.25, join_h=0.5)
    second, third = world.add(1), world.add(2)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    rollout.heard(rounds(world.models[0], second, 0.2))
    rollout.look()
    world.registry.challenge(third, reason="a test", by="test")
    world.now_ms += HOUR_MS
    rollout.look()
    assert rollout.assignment(0) == ModelAssignment(world.models[0], third, share=0.25)
    assert world.registry.aliases().champion == world.models[0]


def test_a_better_challenger_is_promoted_by_halves_and_then_on_watch(world: World) -> None:
    rollout = world.rollout()
    first, second = world.models[0], world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    assert rollout.assignment(3) == ModelAssignment(first, second)
    rollout.heard(rounds(first, second, 0.2))
    rollout.look()
    assert world.registry.aliases().champion == second
    assert world.registry.verdicts(second)[0]["verdict"] == "promoted"
    assert world.events("verdict")[0]["outcome"] == "promoted"
    assert [rollout.assignment(shard) for shard in (0, 1)] == [ModelAssignment(second, first)] * 2
    assert [rollout.assignment(shard) for shard in (2, 3)] == [ModelAssignment(first, second)] * 2
    assert world.rollout().assignment(2) == ModelAssignment(first, second)  # another server goes on in the middle of it
    world.now_ms += round(0.2 * HOUR_MS)
    assert {rollout.assignment(shard) for shard in range(4)} == {ModelAssignment(second, first)}
    world.now_ms += HOUR_MS
    rollout.look()
    assert {rollout.assignment(shard) for shard in range(4)} == {ModelAssignment(second)}
    assert rollout.verdicts == {"promoted": 1}


@pytest.mark.parametrize("gain", [-0.1, 0.0])
def test_a_challenger_that_is_not_better_is_withdrawn(world: World, gain: float) -> None:
    rollout = world.rollout()
    second = world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    rollout.heard(rounds(world.models[0], second, gain, count=2000))
    rollout.look()
    assert world.registry.aliases().challenger is None
    assert world.registry.aliases().champion == world.models[0]
    assert world.registry.verdicts(second)[0]["verdict"] in ("rejected", "expired")


def test_one_that_nobody_can_judge_expires(world: World) -> None:
    rollout = world.rollout()
    second = world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    world.now_ms += 3 * HOUR_MS
    rollout.look()
    assert world.registry.verdicts(second)[0]["verdict"] == "expired"
    assert rollout.assignment(0) == ModelAssignment(world.models[0])


def test_who_disappoints_is_rolled_back_by_rounds_of_both_kinds_of_shards(world: World) -> None:
    rollout = world.rollout()
    first, second = world.models[0], world.add(1)
    world.registry.promote(second, reason="I like it", by="me")
    rollout.look()
    assert [rollout.assignment(shard).champion for shard in range(4)] == [second, second, first, first]
    ahead = rounds(second, first, 0.2, 100)  # the old one saves a fifth
    behind = rounds(first, second, -0.2, 100)  # and so it does where it still serves
    rollout.heard([one for pair in zip(ahead, behind, strict=True) for one in pair])
    rollout.look()
    aliases = world.registry.aliases()
    assert (aliases.champion, aliases.previous) == (first, second)
    assert world.registry.history()[-1].what == "rolled back"
    assert {rollout.assignment(shard) for shard in range(4)} == {
        ModelAssignment(first)
    }  # and it is not watched in its turn
    assert rollout.verdicts == {"rolled_back": 1}


def test_a_pinned_champion_and_a_person_who_decides_are_left_alone(world: World) -> None:
    for rules in ({}, {"automatic": False}):
        rollout = world.rollout(**rules)
        second = world.add(1)
        if not rules:
            world.registry.pin(reason="a test", by="test")
        world.registry.challenge(second, reason="a test", by="test")
        rollout.look()
        rollout.heard(rounds(world.models[0], second, 0.3))
        rollout.look()
        assert world.registry.aliases().champion == world.models[0]
        assert rollout.standing is not None and rollout.standing.outcome == "promoted"
        world.registry.withdraw(reason="a test", by="test")
        if not rules:
            world.registry.pin(False, reason="a test", by="test")


def test_a_person_who_is_quicker_is_followed(world: World) -> None:
    rollout = world.rollout(watch_h=0)
    second, third = world.add(1), world.add(2)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    rollout.heard(rounds(world.models[0], second, 0.3))
    world.registry.promote(third, reason="a person", by="me")
    rollout.look()
    assert world.registry.aliases().champion == third
    assert rollout.assignment(0) == ModelAssignment(third)


def test_rounds_of_another_pair_count_for_nothing(world: World) -> None:
    rollout = world.rollout()
    second = world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    rollout.heard(rounds(world.models[0], world.models[2], 0.5))
    assert rollout.standing is not None and rollout.standing.readings == 0


def test_what_a_shard_cannot_run_is_withdrawn_with_the_reason(world: World) -> None:
    rollout = world.rollout()
    second = world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    rollout.refused(second, "its weights are damaged")
    rollout.look()
    assert world.registry.aliases().challenger is None
    assert world.registry.verdicts(second)[0]["reason"] == "its weights are damaged"


def test_what_was_trained_challenges(world: World) -> None:
    rollout = world.rollout()
    second = world.add(1)
    rollout.challenge(second, "trained on 10 readings", {"mse": 0.1})
    rollout.look()
    assert rollout.assignment(0) == ModelAssignment(world.models[0], second)
    assert world.registry.history()[-1].numbers == {"mse": 0.1}


class Overtaken(Registry):
    """A person is quicker, once."""

    def challenge(self, *given: Any, **named: Any) -> Any:
        if not self.aliases().pinned:
            Registry(self.where).pin(reason="a person", by="me")
        return super().challenge(*given, **named)


def test_what_was_trained_is_not_forgotten_where_a_person_is_quicker(world: World) -> None:
    rollout = world.rollout()
    second = world.add(1)
    rollout.registry = Overtaken(world.folder / "registry")
    rollout.challenge(second, "trained", {})
    rollout.look()
    assert world.registry.aliases().challenger is None and world.registry.aliases().pinned
    rollout.look()
    assert world.registry.aliases().challenger == second


class Interrupted(Registry):
    """Away when a verdict is to be kept, once."""

    tried = 0

    def add_verdict(self, *given: Any, **named: Any) -> None:
        self.tried += 1
        if self.tried == 1:
            raise Unreachable("no route to the store")
        super().add_verdict(*given, **named)


def test_a_verdict_that_the_registry_could_not_take_is_kept_at_the_next_look(world: World) -> None:
    rollout = world.rollout()
    second = world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.registry = Interrupted(world.folder / "registry")
    rollout.look()
    rollout.refused(second, "its weights are damaged")
    rollout.look()
    assert world.registry.aliases().challenger is None and not world.registry.verdicts(second)
    assert world.events("registry_problem")[0]["error"] == "no route to the store"
    for _ in range(2):
        rollout.look()
    assert [one["reason"] for one in world.registry.verdicts(second)] == ["its weights are damaged"]
    assert len(world.events("verdict")) == 1


def test_what_will_never_do_is_said_once_and_let_go(world: World) -> None:
    rollout = world.rollout()
    rollout.challenge("0" * 12, "trained, and removed by hand", {})
    rollout.look()
    rollout.look()
    assert len(world.events("registry_problem")) == 1 and not rollout.on_trial


def test_what_was_trained_waits_for_the_verdict_on_the_one_before(world: World) -> None:
    rollout = world.rollout(watch_h=0)
    second, third = world.add(1), world.add(2)
    for model in (second, third):
        rollout.challenge(model, "trained", {})
        rollout.look()
    assert world.registry.aliases().challenger == second and rollout.on_trial
    assert world.events("challenger_waits") == [{"model": third, "behind": second}]
    rollout.heard(rounds(world.models[0], second, 0.2))
    rollout.look()
    assert world.registry.aliases().champion == second
    rollout.look()
    assert world.registry.aliases().challenger == third


def test_a_challenger_that_another_replaces_has_a_verdict_with_numbers(world: World) -> None:
    rollout = world.rollout()
    second, third = world.add(1), world.add(2)
    world.registry.challenge(second, reason="a test", by="test")
    rollout.look()
    rollout.heard(rounds(world.models[0], second, 0.01, count=8))
    world.registry.challenge(third, reason="a person", by="me")
    rollout.look()
    verdict = world.registry.verdicts(second)[0]
    assert verdict["verdict"] == "undecided" and verdict["readings"] == 8 * 200
    told = world.events("verdict")[0]
    assert (told["outcome"], told["model"], told["readings"]) == ("undecided", second, 8 * 200)
    assert told["gain_low"] < told["gain"] < told["gain_high"]
    assert rollout.verdicts == {"undecided": 1}


def test_servers_that_come_and_go_do_not_prolong_a_trial_without_end(world: World) -> None:
    world.rollout()
    second = world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    for _ in range(4):  # of 2 hours
        world.now_ms += round(0.45 * HOUR_MS)
        rollout = world.rollout()
        rollout.look()
        assert world.registry.aliases().challenger == second
    world.now_ms += round(0.45 * HOUR_MS)
    rollout = world.rollout()
    rollout.look()
    assert world.registry.aliases().challenger == second  # a late server has a quarter of the time
    world.now_ms += round(0.51 * HOUR_MS)
    rollout.look()
    assert world.registry.verdicts(second)[0]["verdict"] == "expired"


def test_a_registry_that_is_away_changes_nothing_and_is_said_once(world: World) -> None:
    rollout = world.rollout()
    second = world.add(1)
    world.registry.challenge(second, reason="a test", by="test")
    newest = sorted((world.folder / "registry" / "aliases").iterdir())[-1]
    content = newest.read_bytes()
    newest.write_bytes(b"damaged")
    rollout.registry = Registry(world.folder / "registry")  # one that has not read it yet
    rollout.look()
    rollout.look()
    assert len(world.events("registry_problem")) == 1
    assert rollout.assignment(0) == ModelAssignment(world.models[0])
    newest.write_bytes(content)
    rollout.look()
    assert rollout.assignment(0) == ModelAssignment(world.models[0], second)
