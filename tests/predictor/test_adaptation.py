"""Adaptation in the loop: part of the state row, it survives crashes, evictions and swaps, and can be switched on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnn.config import ModelConfig
from rnn.nn.network import Network
from rnn.serve.adapt import Adaptation
from services.brokers.memory import Faults, InjectedFault
from services.driver import StreamDriver
from services.predictor.ports import Refused
from services.records import Role

AT = 1_700_000_000_000
ADAPT = Adaptation(4, 20)
MANY = 150


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(1)
    return Network(ModelConfig(("flow", "level"), (), "gru", 6)).eval()


def send(driver: StreamDriver, begin: int, end: int) -> None:
    """Readings `begin` to `end` of three streams that take turns, up and down."""
    noise = np.random.default_rng(0).normal(size=(MANY, 2))
    for second in range(begin, min(end, MANY)):
        x = noise[second] / 3 + (2 if second // 3 % 2 else -2)
        driver.send(f"s{second % 3}", at=AT + second * 1000, x=x)


def said(driver: StreamDriver, first: int = 0) -> list[bytes]:
    """Of each stream's readings from `first` on."""
    return [made.y.tobytes() for stream in ("s0", "s1", "s2") for made in driver.predictions(stream)[first:]]


def unadapted(network: Network) -> StreamDriver:
    driver = StreamDriver(network)
    send(driver, 0, MANY)
    driver.run()
    return driver


def test_crashes_evictions_and_lost_commits_change_no_prediction(network: Network) -> None:
    calm = StreamDriver(network, adapt=ADAPT)
    send(calm, 0, MANY)
    calm.run()
    assert said(calm) != said(unadapted(network))

    faults = iter([None, InjectedFault.LOST, None, None, InjectedFault.LOST])
    troubled = StreamDriver(network, slots=2, adapt=ADAPT, faults=Faults(lambda step: next(faults, None)))
    for begin in range(0, MANY, 7):
        send(troubled, begin, begin + 7)
        troubled.run()
        if begin % 3 == 0:
            troubled.crash()
            troubled.broker.compact(Role.CHANGELOG)
    assert said(troubled) == said(calm)


def switched(network: Network, recent: int) -> StreamDriver:
    """Thirty readings without adaptation, then a server that adapts."""
    before = StreamDriver(network, recent=recent)
    send(before, 0, 30)
    before.run()
    after = StreamDriver(network, recent=recent, adapt=ADAPT)
    after.broker, after.now_ms = before.broker, before.now_ms
    send(after, 30, MANY)
    return after


def test_switching_it_on_brings_streams_over_by_their_latest_readings(network: Network) -> None:
    driver = switched(network, recent=10)  # as many as each stream has had
    driver.run()
    always = StreamDriver(network, adapt=ADAPT)
    send(always, 0, MANY)
    always.run()
    assert said(driver, 10) == said(always, 10) != said(unadapted(network), 10)


def test_switching_it_on_without_latest_readings_is_refused(network: Network) -> None:
    with pytest.raises(Refused, match=r"in layout .*with the same state\.adapt"):
        switched(network, recent=0).run()


def test_a_challenger_adapts_too(network: Network) -> None:
    torch.manual_seed(2)
    other = Network(ModelConfig(("flow", "level"), (), "lstm", 5)).eval()
    driver = StreamDriver(network, recent=4, adapt=ADAPT)
    driver.challenge(other)
    send(driver, 0, 30)
    driver.run()
    driver.promote()
    send(driver, 30, MANY)
    driver.run()
    alone = StreamDriver(other, adapt=ADAPT)
    send(alone, 0, MANY)
    alone.run()
    assert said(driver, 10) == said(alone, 10) != said(unadapted(other), 10)
