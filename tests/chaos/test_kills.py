"""SIGKILL and SIGSTOP on real Kafka and real Ray; every prediction is compared with an offline unroll, bit for bit."""

from dataclasses import asdict

import pytest
from chaos import Chaos, soak

SEED = 20_261_123


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_nothing_is_lost_or_doubled_by_fifty_kills_of_actors_ten_of_the_broker_and_five_zombies() -> None:
    report = soak(kills=50, broker_kills=10, zombies=5, seed=SEED)
    assert (report.kills, report.broker_kills, report.zombies) == (50, 10, 5)
    assert report.readings > 5_000
    assert report.rejected > 0
    assert report.clean, asdict(report)
    assert report.zombies_fenced > 0, asdict(report)  # woke up, and found themselves shut out


@pytest.mark.chaos
def test_the_same_blows_without_transactions_do_double_readings() -> None:
    """Shows that the check above can fail: the only difference is the transaction. A reading is doubled when the kill
    falls between its prediction and its state row, so the writing must hardly ever pause.
    """
    with Chaos(SEED, delivery="at_least_once", rate=3000.0, tick_s=0.003) as chaos:
        for _ in range(20):
            for shard in range(chaos.shards):
                chaos.kill_actor(shard)
        report = chaos.finish()
    assert report.doubled > 0, asdict(report)
    assert report.lost == 0, "at-least-once must still answer everything"
