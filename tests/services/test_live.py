"""The numbers of the page, on a clock that only the test moves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from services.predictor.stats import ShardStats
from services.predictor.watched_streams import POINTS, Points
from services.quality.pipeline import PipelineStats
from services.telemetry.endpoint import Health
from services.telemetry.live import Live, quantile_ms


class Told:
    """A document that is fed by hand."""

    def __init__(self) -> None:
        self.now_s, self.health = 50.0, Health()
        self.stats = {0: ShardStats(model="m1", ready=True), 1: ShardStats(model="m1", ready=True)}
        self.restarts: dict[int, dict[str, int]] = {0: {}, 1: {}}
        self.live = Live("pumps", ("a", "b"), lambda: self.health, lambda: self.now_s)

    def saw(self, *points: Points, **about: Any) -> None:
        stats = {shard: one.snapshot() for shard, one in self.stats.items()}
        self.live.saw(stats, self.restarts, PipelineStats(**about), points)

    def now(self, after: str = "") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.live.document(after))
        return found


@pytest.fixture
def told() -> Told:
    return Told()


def points(stream: str, first: int, n: int) -> Points:
    at_ms = np.arange(first, first + n)
    values = at_ms.astype(np.float32)[:, None]
    return Points(stream, ("flow",), at_ms, values, values + 1, values * np.nan, values * np.nan, values[:, 0])


def test_readings_per_second_and_latency_are_of_the_last_seconds(told: Told) -> None:
    told.saw()
    for _ in range(30):
        told.now_s += 1
        for one in told.stats.values():
            one.readings += 50
            one.latency_s.observe(np.full(50, 0.015))
        told.saw()
    now = told.now()
    assert now["readings"] == 3000
    assert now["readings_per_s"] == pytest.approx(100)
    assert 10 < now["p50_ms"] < now["p99_ms"] <= 20
    for _ in range(15):
        told.now_s += 1
        told.saw()
    now = told.now()
    assert (now["readings_per_s"], now["p50_ms"]) == (0, None)
    assert now["history"]["readings_per_s"][:3] == pytest.approx([100, 100, 100])


def test_numbers_go_on_when_a_shard_is_replaced(told: Told) -> None:
    told.stats[1].readings = 500
    told.saw()
    gone = told.stats.pop(1)
    told.restarts[1] = {"died": 1}
    told.saw()
    now = told.now()
    assert now["shards"][1] == {"shard": 1, "state": "starting", "restarts": 1}
    assert now["readings"] == 500
    told.stats[1] = ShardStats(model="m1", readings=20, started_s=gone.started_s + 1, restore_done=0.4)
    told.now_s += 1
    told.saw()
    assert told.now()["readings"] == 520
    assert told.now()["shards"][1].items() >= {"state": "restoring", "restored": 0.4, "restarts": 1}.items()


def test_a_swap_is_seen_and_says_which_model_went(told: Told) -> None:
    told.saw()
    assert told.now()["swap"] is None
    for one in told.stats.values():
        one.model = "m2"
    told.now_s += 1
    told.saw(champion_since_s=1_700_000_000.0, retraining=True)
    now = told.now()
    assert (now["model"], now["swap"]["from"], now["model_since_ms"]) == ("m2", "m1", 1_700_000_000_000)
    assert now["retraining"] is True


def test_a_document_is_made_once_a_second_and_then_holds_what_is_new(told: Told) -> None:
    told.saw(points("a", 0, 5))
    first = told.now()
    told.saw(points("a", 5, 2))
    assert told.now() == first, "the same second, the same document"
    told.now_s += 1
    assert [one["count"] for one in told.now()["spotlight"]] == [7, 0]
    news = told.now(first["mark"])["spotlight"][0]
    assert news["at_ms"] == [5, 6]
    assert (news["actual"], news["predicted"], news["lower"]) == ([[5.0], [6.0]], [[6.0], [7.0]], [[None], [None]])
    for _ in range(20):
        told.now_s += 1
        told.now()
    old = told.now(first["mark"])
    assert old["after"] is None and len(old["spotlight"][0]["at_ms"]) == 7, "too old to know what was new: everything"


def test_as_many_points_are_kept_as_are_drawn(told: Told) -> None:
    for first in range(0, 5 * POINTS, 100):
        told.saw(points("b", first, 100))
    shown = told.now()["spotlight"][1]
    assert shown["at_ms"] == list(range(4 * POINTS, 5 * POINTS))
    assert shown["count"] == 5 * POINTS
    assert [one.at_ms.tolist() for one in told.live.latest()] == [[5 * POINTS - 1]]


def test_what_is_wrong_is_said(told: Told) -> None:
    told.health = Health(unready=["shard 1 is restoring state: 40%"])
    told.saw()
    now = told.now()
    assert (now["ready"], now["reasons"]) == (False, ["shard 1 is restoring state: 40%"])


def test_before_the_first_shard_there_is_a_document_already(told: Told) -> None:
    now = told.now()
    assert (now["model"], now["shards"], now["readings_per_s"], now["p99_ms"]) == ("", [], 0, None)


def test_quantiles_lie_straight_within_their_bucket() -> None:
    counts = np.zeros(17, np.int64)
    assert quantile_ms(counts, 0.5) is None
    counts[1] = 10  # above 5 ms, 10 ms at most
    assert quantile_ms(counts, 0.5) == pytest.approx(7.5)
    counts[16] = 10**6
    assert quantile_ms(counts, 0.99) == 300_000
