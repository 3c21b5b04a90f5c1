"""What came of a shard's forecasts once the truth was there: figures, paired losses of two models, sketches of inputs.

Only epochs that were kept are looked at, so what is counted is what consumers have read. Imports numpy, records and
services.quality.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.predictor.stats import Paired, ShardStats
from services.quality.drift import RecentHistogram, ReferenceBuilder
from services.quality.forecast_buffer import ForecastBuffer, Matched, followed
from services.quality.prequential import RunningMetrics
from services.quality.reference import Reference
from services.quality.sequential_test import Rounds
from services.records import Flag

if TYPE_CHECKING:
    from rnn.serve.result import Result
    from services.predictor.deployed_models import DeployedModel, ModelSet

MOST_ROUNDS = 100_000
"""Closed rounds that wait to be fetched; older ones are let go."""


class OnlineEvaluator:
    """Of one shard. Forecasts of real values are watched, answered reading by reading; other models' truth does not
    come with later readings, and of theirs there are no figures.
    """

    def __init__(self, shard: int, models: ModelSet, shards: int = 1) -> None:
        config = models.champion.engine.config
        self.watches = config.residual and not config.at_end and config.direction == "forward"
        self.rounds: deque[Paired] = deque(maxlen=MOST_ROUNDS)
        self.inputs: RecentHistogram | ReferenceBuilder | None = None
        self._shard, self._models, self._shards = shard, models, shards
        self._targets = np.array(config.target_index, np.int64)
        self._whole = np.array_equal(self._targets, np.arange(len(config.features)))
        self._steps = followed(config.horizon)
        self._pending: dict[str, ForecastBuffer] = {}
        self._figures: dict[str, RunningMetrics] = {}
        self._open, self._pair = Rounds(shard), ("", "")
        self.change()

    def change(self) -> None:
        """Other models sit in the models, or the same ones in other places."""
        if not self.watches:
            return
        running = {deployed.model: deployed for deployed in self._models.all()}
        for model in self._pending.keys() - running.keys():
            del self._pending[model], self._figures[model]
        for model, deployed in running.items():
            if model not in self._pending:
                config = deployed.engine.config
                banded = config.head != "point"
                self._pending[model] = ForecastBuffer(len(self._targets), self._steps, banded=banded)
                self._figures[model] = RunningMetrics(self._std(), self._steps, config.band)
        challenger = self._models.challenger
        pair = (self._models.champion.model, "" if challenger is None else challenger.model)
        if pair[0] != self._pair[0]:  # what its own training data looked like is what inputs are held against
            reference = self._models.champion.reference
            features = self._models.champion.engine.config.features
            self.inputs = ReferenceBuilder(features) if reference is None else self._sketch_of(reference)
        if pair != self._pair:
            self._open, self._pair = Rounds(self._shard), pair

    def figures(self, deployed: DeployedModel | None) -> RunningMetrics | None:
        """Of a model that sits here."""
        return None if deployed is None else self._figures.get(deployed.model)

    def show(self, stats: ShardStats) -> None:
        """Puts what is known now among the shard's numbers."""
        stats.figures = self.figures(self._models.champion)
        stats.challenger_figures = self.figures(self._models.challenger)
        stats.inputs = self.sketch

    @property
    def sketch(self) -> RecentHistogram | None:
        """What readings look like at present; None until there is something to hold them against."""
        return self.inputs if isinstance(self.inputs, RecentHistogram) else None

    def kept(
        self,
        numbers: NDArray[np.int64],
        x: NDArray[np.float32],
        said: Result,
        also: Result | None,
        held: NDArray[np.int64] | None,
    ) -> None:
        """The epoch with readings x [n, features] of streams [n] was kept. `said` is what the champion, `also` what the
        challenger said, of readings `held` [k].
        """
        if not self.watches:
            return
        if isinstance(self.inputs, ReferenceBuilder):
            self.inputs.add(x)
            if self.inputs.full:
                self.inputs = self._sketch_of(self.inputs.reference())
        elif self.inputs is not None:
            self.inputs.add(x)
        flags = np.zeros(len(numbers), np.uint16)
        flags[slice(None) if said.of is None else said.of] = said.flags
        new, ended = flags & Flag.DUPLICATE == 0, flags & Flag.ENDED > 0
        truth = x if self._whole else x[:, self._targets]
        since = _since_end(numbers, ended) if ended.any() else None
        everyone = np.arange(len(numbers))
        champion = self._match(self._models.champion, numbers, truth, said, everyone, new, since)
        if also is not None and held is not None and self._models.challenger is not None:
            challenger = self._match(self._models.challenger, numbers, truth, also, held, new, since)
            self._pair_up(numbers, truth, champion, challenger)
        if since is not None:
            for pending in self._pending.values():
                pending.forget(_just_ended(numbers, ended) if pending.steps == (1,) else np.unique(numbers[ended]))

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Streams [k] ended; their numbers may be given to others."""
        for pending in self._pending.values():
            pending.forget(numbers)
        self._open.forget(numbers)

    def _match(
        self,
        deployed: DeployedModel,
        numbers: NDArray[np.int64],
        truth: NDArray[np.float32],
        said: Result,
        held: NDArray[np.int64],
        new: NDArray[np.bool_],
        since: NDArray[np.int64] | None,
    ) -> list[Matched]:
        """What had been said of readings `held` [k] of n. A repeated reading is none, and nothing that was said in one
        sequence is about the next one. since [n]: how many of their sequence stand before them.
        """
        y, lo, hi = (aligned(part, said, len(held)) for part in (said.y, said.lo, said.hi))
        assert y is not None
        pending = self._pending[deployed.model]
        if len(held) == len(numbers) and new.all():
            found = pending.match(numbers, truth, y, lo, hi)
        else:
            some = np.flatnonzero(new[held])
            rows = held[some]
            edges = (None if edge is None else edge[some] for edge in (lo, hi))
            found = pending.match(numbers[rows], truth[rows], y[some], *edges)
            found = [one._replace(rows=rows[one.rows]) for one in found]
        if since is not None:
            found = [_select(one, since[one.rows] >= one.step) for one in found]
        self._figures[deployed.model].add_matched(truth, found)
        return found

    def _pair_up(
        self, numbers: NDArray[np.int64], truth: NDArray[np.float32], champion: list[Matched], challenger: list[Matched]
    ) -> None:
        """Both models' losses of the same readings, in the champion's unit."""
        unit = self._figures[self._pair[0]]
        for one, other in zip(champion, challenger, strict=True):
            losses = np.full((2, len(numbers)), np.nan)
            for side, matched in enumerate((one, other)):
                losses[side, matched.rows] = unit.losses(truth[matched.rows], matched.y, matched.last)
            self.rounds.extend(Paired(*self._pair, each) for each in self._open.add(numbers, *losses))

    def _sketch_of(self, reference: Reference) -> RecentHistogram:
        return RecentHistogram(reference, max(1, reference.half_life // self._shards))

    def _std(self) -> NDArray[np.float64]:
        """The champion's, for both: two models' errors are compared in one unit."""
        network = self._models.champion.engine.network
        std: NDArray[np.float64] = network.scaler_std.cpu().numpy().astype(np.float64)[self._targets]
        return std


def aligned(part: NDArray[np.float32] | None, said: Result, n: int) -> NDArray[np.float32] | None:
    """One row a reading, NaN where nothing was said."""
    if part is None or said.of is None:
        return part
    rows = np.full((n, part.shape[1]), np.nan, np.float32)
    rows[said.of] = part
    return rows


def _since_end(numbers: NDArray[np.int64], ended: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many readings of its stream stand between each one [n] and the stream's last end before it; many where this
    batch holds none.
    """
    order = np.argsort(numbers, kind="stable")
    streams, place = numbers[order], np.arange(len(numbers))
    goes_on = np.diff(streams, prepend=-1) == 0
    follows = goes_on & np.concatenate(([False], ended[order][:-1]))
    first = np.maximum.accumulate(np.where(goes_on, -1, place))
    since: NDArray[np.int64] = np.empty(len(numbers), np.int64)
    last_end = np.maximum.accumulate(np.where(follows, place, -1))
    since[order] = np.where(last_end >= first, place - last_end, 1 << 40)
    return since


def _just_ended(numbers: NDArray[np.int64], ended: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Streams whose last reading here ended a sequence."""
    distinct, backwards = np.unique(numbers[::-1], return_index=True)
    return distinct[ended[::-1][backwards]]


def _select(matched: Matched, which: NDArray[np.bool_]) -> Matched:
    return Matched(
        matched.step,
        matched.rows[which],
        matched.y[which],
        None if matched.lo is None else matched.lo[which],
        None if matched.hi is None else matched.hi[which],
        matched.last[which],
    )
