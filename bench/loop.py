"""A shard's own loop without a broker: readings that lie ready in memory, a sink that keeps nothing.

Imports services and rnn; torch inside functions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bench.stage import FEATURES, HIDDEN, readings
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.predictor.deployed_models import DeployedModel
from services.predictor.epoch import EpochContext
from services.predictor.options import ShardOptions
from services.predictor.shard import Shard
from services.records import Commit, Records, Role, TopicIds


class World:
    """All three ports of a shard, of one partition."""

    def __init__(self) -> None:
        self.next: Records | None = None
        self.row_bytes = 0.0  # of a state row in the last commit
        self.topic_ids: TopicIds = {}
        self.signed = False

    def beginning(self) -> Mapping[int, int]:
        return {0: 0}

    def seek(self, offsets: Mapping[int, int]) -> None:
        pass

    def poll(self, max_records: int, timeout_s: float) -> list[Records]:
        polled, self.next = self.next, None
        return [] if polled is None else [polled]

    def lag(self) -> Mapping[int, int]:
        return {0: 0}

    def span(self, partition: int) -> tuple[int, int]:
        return 0, 0

    def held_open(self, partition: int) -> str:
        return ""

    def read(self, partition: int) -> Iterator[Records]:
        return iter(())

    def fence(self) -> None:
        pass

    def committed(self) -> Mapping[int, int]:
        return {}

    def ends(self) -> Mapping[int, int]:
        return {}

    def check_topics(self, before: TopicIds) -> None:
        pass

    def commit(self, commit: Commit) -> None:
        states = [one for one in commit.writes if one.role is Role.CHANGELOG]
        self.row_bytes = len(states[0].values[0] or b"") if states else 0

    def settle(self, commit: Commit) -> bool:
        return True

    def close(self) -> None:
        pass


class Served:
    """A shard and its world. `turn` gives it a poll and says how long the turn took."""

    def __init__(
        self, model: Path, slots: int, recent: int, challenger: Path | None = None, share: float = 1.0
    ) -> None:
        self.world = World()
        self.slots = slots
        champion = self.deployed(model)
        self.shard = Shard(
            self.world,
            self.world,
            self.world,
            champion,
            ReadingDecoder(Schema(FEATURES), max_rows=10_000),
            EpochContext(champion.model, "bench", "bench.readings"),
            [0],
            ShardOptions(recent=recent, poll_s=0.0),
            challenger=None if challenger is None else self.deployed(challenger),
            share=share,
        )
        self.shard.start()

    def deployed(self, model: Path) -> DeployedModel:
        """As services.fleet.model_loader makes it."""
        from rnn.io import weights
        from rnn.serve.build import engine_of

        network, card = weights.load(model)
        return DeployedModel(card.model, engine_of(network, self.slots))

    def turn(self, polled: Records) -> float:
        """Seconds."""
        self.world.next = polled
        began = time.perf_counter()
        self.shard.turn()
        return time.perf_counter() - began

    def phase_s(self, *names: str) -> float:
        """Seconds spent in these phases so far."""
        return sum(self.shard.stats.phase_s[name].total for name in names)


class Sender:
    """Polls whose readings go on where the last one ended."""

    def __init__(self, streams: int) -> None:
        self.streams, self.sent = streams, 0

    def poll(self, n: int) -> Records:
        """The next n readings, stream after stream in turn."""
        numbers = np.arange(self.sent, self.sent + n)
        self.sent += n
        keys, values = readings(numbers, self.streams)
        now_ms = np.full(n, time.time_ns() // 1_000_000)
        return Records(0, numbers, now_ms, [*keys], [*values])


def models(folder: Path, n: int) -> list[Path]:
    """Models of equal size and different weights."""
    import torch

    from rnn.config import ModelConfig
    from rnn.io import weights
    from rnn.nn.network import Network

    paths = []
    for seed in range(n):
        torch.manual_seed(seed)
        paths.append(folder / str(seed))
        weights.save(paths[-1], Network(ModelConfig(features=FEATURES, cell="lstm", hidden=HIDDEN)), created_ms=0)
    return paths
