"""What becomes of commits when the broker goes that coordinates them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commit_loop import names
from committer import Committer, check
from three_brokers import ThreeBrokers
from waiting import wait_for

from services.brokers.devbroker import DevBroker
from services.brokers.kafka_topics import TopicSpec, create

pytestmark = pytest.mark.chaos

SESSION_MS = 3_000
"""Of the brokers: until it has run out, a killed one stays coordinator. Kafka's default is 9 s."""
GOAL_S, SLOWNESS = 5.0, 3.0
"""The promise, and how much slower than one at rest a machine may be. Measured is the time between two epochs that are
kept, from before the blow. Without our doing it takes the client library's timeouts, 20 to 35 s on any machine.
"""


def test_a_lost_coordinator_stops_commits_for_seconds(topic_names: Callable[[], str], tmp_path: Path) -> None:
    with ThreeBrokers(tmp_path, SESSION_MS) as three:
        pipeline = wait_for(lambda: ruled_by_another_than_the_controller(three, topic_names()), "a fitting pipeline")
        create({"bootstrap_servers": three.bootstrap}, TopicSpec(names(pipeline), 2))
        committer = Committer(three.bootstrap, pipeline, 10**9, "BULK", tmp_path / "log", 30.0)
        try:
            for blow in (DevBroker.kill, DevBroker.stop):
                committer.progress(10)
                three.await_in_sync()
                before = len(committer.pauses_s())
                lost = three.coordinator(f"{pipeline}-shard-0")
                assert lost is not None
                began_s = time.monotonic()
                blow(three.nodes[lost])
                three.await_coordinator(f"{pipeline}-shard-0", other_than=lost)
                handed_s = time.monotonic() - began_s
                committer.progress(10)
                pause_s = max(committer.pauses_s()[before:])
                print(f"{blow.__name__}: no epoch for {pause_s:.2f} s; another coordinator after {handed_s:.2f} s")
                assert pause_s < GOAL_S * SLOWNESS
                three.nodes[lost].start()
            committer.stop()
            assert committer.exits == [0]
            check(three.bootstrap, pipeline, committer.reached())
        except BaseException:
            print(committer.log.read_text()[-6000:])
            raise
        finally:
            committer.stop()


def ruled_by_another_than_the_controller(three: ThreeBrokers, pipeline: str) -> str:
    """The pipeline, if its coordinator is not the node that would have to replace it, else nothing: a lost controller
    is a second loss, of the cluster's own, and costs an election more.
    """
    return pipeline if three.coordinator(f"{pipeline}-shard-0") not in (None, three.controller()) else ""
