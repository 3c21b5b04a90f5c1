"""What waits in silent streams is said at last: by a clock that does not jump, and of each stream by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.build import engine_of
from services.driver import Prediction, StreamDriver
from services.predictor.deployed_models import DeployedModel

AT = 1_700_000_000_000

BOTH_WAYS = Network(
    ModelConfig(("flow", "level"), hidden=5, predicts="now", targets=("level",), direction="concat", lag=2)
).eval()
BUG_MS = AT + 77
"""Time of a reading that the engine of these tests cannot say at last, once it waits."""


def bits(made: list[Prediction]) -> list[tuple[Any, ...]]:
    return [(one.offset, one.at_ms, one.y.tobytes(), np.float32(one.score).tobytes(), one.flags) for one in made]


class Muted(StreamDriver):
    muted = True

    def _deployed(self, network: Network, model: str) -> DeployedModel:
        engine = engine_of(network, self._slots)
        flush = engine.flush

        def raising(slots: Any) -> Any:
            result = flush(slots)
            if self.muted and (result.at_ms == BUG_MS).any():
                raise IndexError("planted")
            return result

        engine.flush = raising  # type: ignore[method-assign]
        return DeployedModel(model, engine)


@pytest.mark.parametrize("streams", ["b", "abcd"])
def test_what_waits_in_a_stream_whose_flush_raises_goes_on_waiting_alone(streams: str) -> None:
    hurt, well = (Muted(BOTH_WAYS, flush_after_ms=10_000, ttl_ms=30_000) for _ in range(2))
    well.muted = False
    for driver in (hurt, well):
        for name in streams:
            driver.send(name, BUG_MS if name == "b" else AT, [1.0, 2.0])
        driver.run()
        driver.advance(10_001)
        driver.run()
    for name in set(streams) - {"b"}:
        assert len(hurt.predictions(name)) == 1
        assert bits(hurt.predictions(name)) == bits(well.predictions(name))
    assert hurt.predictions("b") == hurt.dead_letters() == []
    assert hurt.shard is not None
    assert hurt.shard.stats.internal_errors == {"flush": 1}
    hurt.advance(5_000)
    hurt.run()
    assert hurt.shard.stats.internal_errors == {"flush": 1}, "tried again before as long a silence"
    hurt.advance(30_000)
    hurt.run()
    assert hurt.shard.stats.internal_errors == {"flush": 2}

    hurt.muted = False
    hurt.advance(10_001)
    hurt.run()
    assert bits(hurt.predictions("b")) == bits(well.predictions("b"))


def test_a_wall_clock_that_jumps_makes_no_stream_silent_and_keeps_none_from_being_so() -> None:
    class Jumping(StreamDriver):
        ahead_ms = 0

        def clock_ms(self) -> int:
            return self.now_ms + self.ahead_ms

    driver = Jumping(BOTH_WAYS, flush_after_ms=10_000)
    driver.send("a", AT, [1.0, 2.0])
    driver.run()
    driver.ahead_ms = 3_600_000
    driver.run()
    assert driver.predictions("a") == []
    driver.ahead_ms = -3_600_000
    driver.advance(10_001)
    driver.run()
    assert len(driver.predictions("a")) == 1
