"""What a viewer of the page draws is every point once, whenever it comes and however long it looks away."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from services.predictor.watched_streams import Points
from services.quality.pipeline import PipelineStats
from services.telemetry.endpoint import Health
from services.telemetry.live import REMEMBERED, Live


class Told:
    """A document of one stream, fed a point at a time on a clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s, self.points = 50.0, 0
        self.live = Live("pumps", ("a",), Health, lambda: self.now_s)

    def come(self, n: int) -> None:
        at_ms = np.arange(self.points, self.points + n)
        values = at_ms.astype(np.float32)[:, None]
        one = Points("a", ("flow",), at_ms, values, values, values, values, values[:, 0])
        self.live.saw({}, {}, PipelineStats(), [one])
        self.points += n


class Viewer:
    """What the page keeps: all that came with the first document, and what each later one adds."""

    def __init__(self, told: Told) -> None:
        self.told, self.mark, self.drawn = told, "", list[int]()

    def look(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.told.live.document(self.mark))
        (stream,) = shown["spotlight"]
        self.drawn = [*(self.drawn if shown["after"] else []), *stream.get("at_ms", [])]
        self.mark = shown["mark"]
        assert stream["count"] == len(self.drawn), "as many as it says"
        return shown


@pytest.fixture
def told() -> Told:
    return Told()


def test_who_comes_within_a_document_s_second_draws_each_point_once(told: Told) -> None:
    first, later = Viewer(told), Viewer(told)
    first.look()
    told.come(3)
    told.now_s += 1
    first.look()
    told.come(2)
    later.look()
    assert later.drawn == [0, 1, 2], "what came after the mark is in the next document"
    told.come(1)
    told.now_s += 1
    for viewer in (first, later, Viewer(told)):
        viewer.look()
        assert viewer.drawn == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("pause_s", [1, REMEMBERED - 1, REMEMBERED + 3])
def test_who_comes_back_from_a_pause_draws_each_point_once(told: Told, pause_s: int) -> None:
    other, viewer = Viewer(told), Viewer(told)
    told.come(3)
    viewer.look()
    for _ in range(pause_s):
        told.now_s += 1
        told.come(2)
        other.look()
        told.come(1)
    viewer.look()
    told.come(1)
    told.now_s += 1
    for one in (viewer, other):
        one.look()
        assert one.drawn == list(range(told.points))
