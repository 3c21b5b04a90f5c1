"""The models that step a shard's streams: the champion, whose predictions are sent, and at most one challenger.

Both step the same batches in the same slots, each with a memory of its own of every stream. A stream that a model has
no memory of is brought over: its latest readings are replayed into a cleared slot. So a model that has just come, a
stream that was silent while a model warmed up, and a change of model between two servers are one case. With `shard` the
only module of this room that may import rnn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnn.serve.build import AnyEngine
from rnn.serve.engine import Engine, Result
from rnn.serve.ordering import DUPLICATE, check
from rnn.serve.waves import in_waves, place_in_stream
from services.predictor.anomaly import Surprise, Surprised
from services.predictor.batcher import TAGGED_ROWS, Batch
from services.predictor.reading_history import CLOCK, ReadingHistory
from services.predictor.score_calibration import Calibration
from services.predictor.slots import Placed
from services.predictor.state_store import NO_ROW, StateStore
from services.quality.reference import Reference
from services.records import RECENT, AnswerFormat, ModelState

T = TypeVar("T")

WARM_UPS = 512
"""Streams that a challenger takes on in one epoch; predictions do not wait for the others."""
FEW = 32
"""Of so few streams a challenger is given all, whatever its share: a part of them would tell too little."""


def most_rows(engine: AnyEngine, max_readings: int) -> int:
    """Rows that a packed record may have, so that it can be one epoch, and tags tell its rows from each other."""
    most = min(max_readings, engine.table.slots)
    return most if isinstance(engine, Engine) else min(most, TAGGED_ROWS)


class BatchOutput(NamedTuple):
    """What came of one batch of n readings."""

    x: NDArray[np.float32]  # [n, features]
    champion: Result
    challenger: Result | None
    held: NDArray[np.int64] | None  # [k], the readings that the challenger's result is of
    surprised: Surprised | None  # of the champion's result; None: its scores were never calibrated


class _Rows(NamedTuple):
    """Readings [n] of streams [n] in slots [n]."""

    slots: NDArray[np.int64]
    numbers: NDArray[np.int64]
    x: NDArray[np.float32]  # [n, features]
    at_ms: NDArray[np.int64]
    seq: NDArray[np.int64]
    end: NDArray[np.uint8]
    tags: NDArray[np.int64] | None  # None: no model asks for them

    def take(self, some: NDArray[np.int64]) -> _Rows:
        """Those readings [k]."""
        tags = None if self.tags is None else self.tags[some]
        own = self.slots[some], self.numbers[some], self.x[some], self.at_ms[some], self.seq[some], self.end[some]
        return _Rows(*own, tags)


class DeployedModel:
    """A model in an engine, and of which slots it holds the state. `reference`: its training data, to see drift by;
    `calibration`: its scores, to tell how improbable a reading is; `broken`: what `Engine.check` has found.
    """

    def __init__(
        self,
        model: str,
        engine: AnyEngine,
        reference: Reference | None = None,
        calibration: Calibration | None = None,
        broken: Sequence[int] = (),
    ) -> None:
        self.model, self.engine, self.reference, self.broken = model, engine, reference, broken
        judges = calibration is not None and engine.config.residual
        self.surprise = Surprise(calibration, engine.table.slots) if calibration is not None and judges else None
        self.spelling = AnswerFormat(engine.config.horizon, engine.config.classes)
        self.tagged = not isinstance(engine, Engine)
        self.held: NDArray[np.bool_] = np.zeros(engine.table.slots, np.bool_)
        self.layout, self.row_bytes = engine.table.layout, engine.table.row_bytes
        if self.surprise is not None:
            self.layout = hashlib.sha256(f"{self.layout};{self.surprise.layout}".encode()).hexdigest()
            self.row_bytes += self.surprise.row_bytes

    def tell(self, alive: Callable[[], None]) -> None:
        """`alive` is called all the time while this model computes."""
        self.engine.tell(alive)
        if self.surprise is not None:
            self.surprise.alive = alive

    def rows(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """[k, row_bytes]"""
        rows = self.engine.rows(slots)
        return rows if self.surprise is None else np.concatenate((rows, self.surprise.rows(slots)), axis=1)

    def load(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Puts rows [k, row_bytes] into slots [k]."""
        own = self.engine.table.row_bytes
        self.engine.load(slots, rows[:, :own])
        if self.surprise is not None:
            self.surprise.load(slots, rows[:, own:])
        self.held[slots] = True

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Slots [k] hold streams that have had no reading."""
        self.engine.clear(slots)
        if self.surprise is not None:
            self.surprise.clear(slots)
        self.held[slots] = True

    def judge(self, slots: NDArray[np.int64], result: Result) -> Surprised | None:
        """How improbable the readings were that the result of readings in slots [n] is about; learns from them."""
        if self.surprise is None:
            return None
        return self.surprise.fold(slots if result.of is None else slots[result.of], result.score)

    def warm_up(self, slots: NDArray[np.int64], recent: ReadingHistory) -> None:
        """Slots [k] hold their streams as this model would know them, had it read only what is remembered."""
        self.clear(slots)
        replay = recent.replay(slots)
        salt: dict[str, Any] = {"salt": np.zeros(len(replay.slots), np.int64)} if self.tagged else {}
        unnumbered = np.full(len(replay.slots), -1, np.int64)
        result = self.engine.run(replay.slots, replay.x, replay.at_ms, unnumbered, end=replay.end, **salt)
        self.judge(replay.slots, result)
        self.engine.table.clock[slots, :CLOCK] = recent.clocks(slots)  # else a repeated reading would not be known


class ModelSet:
    """Who sits where. `recent`: how many readings of each stream are remembered; 0: none, and no model can be changed
    without its streams starting anew.
    """

    def __init__(self, champion: DeployedModel, store: StateStore, recent: int) -> None:
        self.champion, self.challenger, self.share = champion, None, 1.0
        self.store = store
        table, config = champion.engine.table, champion.engine.config
        self.recent = ReadingHistory(table.slots, len(config.features), recent) if recent else None
        self.failed: tuple[str, str] | None = (
            None  # a challenger that failed at its work, and why; it runs here no more
        )
        self.warmed = 0  # streams that were brought over by replaying their latest readings
        store.hold(champion.model, champion.row_bytes)
        if self.recent is not None:
            store.hold(RECENT, self.recent.row_bytes)
            self._remembers = np.zeros(table.slots, np.bool_)

    challenger: DeployedModel | None

    def all(self) -> Sequence[DeployedModel]:
        """The champion first."""
        return (self.champion,) if self.challenger is None else (self.champion, self.challenger)

    def change(self, champion: DeployedModel, challenger: DeployedModel | None, share: float = 1.0) -> None:
        """Other models, or the same ones with their places changed. The challenger takes on a `share` of the streams,
        and goes on with those that it knows. Between two epochs only.
        """
        before, after = {deployed.model for deployed in self.all()}, {champion.model}
        if challenger is not None:
            after.add(challenger.model)
        self.champion, self.challenger, self.share = champion, challenger, share
        for model in before - after:
            self.store.let_go(model)
        for deployed in self.all():
            self.store.hold(deployed.model, deployed.row_bytes)

    def wanted(self) -> dict[str, tuple[str, int]]:
        """Memory -> (layout, bytes), of the memories that state rows may be loaded from."""
        found = {deployed.model: (deployed.layout, deployed.row_bytes) for deployed in self.all()}
        return found if self.recent is None else {**found, RECENT: (self.recent.layout, self.recent.row_bytes)}

    def place(self, placed: Placed, numbers: NDArray[np.int64]) -> None:
        """Sees to it that the slots of streams [k] hold their states: the champion's of all, the challenger's of as
        many as it can take on now.
        """
        slots, fresh = placed.slots, placed.fresh
        if self.recent is not None:
            self._load_recent(slots[fresh], numbers[fresh])
        self._place(self.champion, slots, fresh, numbers)
        self._beside(lambda challenger: self._place(challenger, slots, fresh, numbers))

    def _place(
        self, deployed: DeployedModel, slots: NDArray[np.int64], fresh: NDArray[np.bool_], numbers: NDArray[np.int64]
    ) -> None:
        deployed.held[slots[fresh]] = False
        todo = ~deployed.held[slots]
        if not todo.any():
            return
        held = self.store.held(deployed.model)
        if deployed is self.challenger and self.share < 1 and self.store.known >= FEW:
            todo &= held.has[numbers] | (self.store.salts(numbers) < round(self.share * (1 << 63)))
        load = todo & held.has[numbers]
        known = todo & ~load & (self.store.offsets[numbers] != NO_ROW)
        clear = todo & ~load & ~known
        if load.any():
            deployed.load(slots[load], held.rows[numbers[load]])
        if clear.any():
            deployed.clear(slots[clear])
        if known.any():
            self._bring_over(deployed, slots[known])

    def _beside(self, work: Callable[[DeployedModel], T]) -> T | None:
        """What the challenger does, if there is one. One that fails is dropped, and the champion never knows."""
        challenger = self.challenger
        if challenger is None:
            return None
        try:
            return work(challenger)
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            self.failed = (challenger.model, f"it failed beside the champion: {type(error).__name__}: {words}")
            self.challenger = None
            self.store.let_go(challenger.model)
            return None

    def run(self, slots: NDArray[np.int64], batch: Batch, numbers: NDArray[np.int64]) -> BatchOutput:
        """Steps readings [n] of slots [n] and streams [n]."""
        x, at_ms, seq, end = batch.x(), batch.column("at_ms"), batch.column("seq"), batch.column("end")
        tags = batch.tags() if any(deployed.tagged for deployed in self.all()) else None
        rows = _Rows(slots, numbers, x, at_ms, seq, end, tags)
        twice = self._repeated(slots, at_ms, seq) if self.recent is not None else None
        said = self._run(self.champion, rows)
        surprised = self.champion.judge(slots, said)
        also, held = self._beside(lambda one: self._also(one, rows)) or (None, None)
        if self.recent is not None:
            new = slice(None) if twice is None else np.flatnonzero(~twice)
            self.recent.fold(slots[new], place_in_stream(slots[new]), x[new], at_ms[new], end[new])
        return BatchOutput(x, said, also, held, surprised)

    def check(self, slot: int) -> None:
        """Steps a reading without values of nobody's stream, in a slot that is free; a broken engine raises."""
        slots, none = np.array([slot]), np.zeros(1, np.int64)

        def step(deployed: DeployedModel) -> None:
            deployed.clear(slots)
            x = np.full((1, len(deployed.engine.config.features)), np.nan, np.float32)
            salt: dict[str, Any] = {"salt": none} if deployed.tagged else {}
            deployed.engine.run(slots, x, none, none - 1, **salt)
            deployed.rows(slots)

        step(self.champion)
        self._beside(step)

    def memories(self, slots: NDArray[np.int64]) -> list[ModelState]:
        """What is known of the streams in slots [k]."""
        everyone = np.arange(len(slots))
        found = [ModelState(self.champion.model, self.champion.layout, everyone, self.champion.rows(slots))]
        if its := self._beside(lambda one: self._memory(one, slots)):
            found.append(its)
        if self.recent is not None:
            self.recent.stamp(slots, self.champion.engine.table.clock[slots, :CLOCK])
            found.append(ModelState(RECENT, self.recent.layout, everyone, self.recent.rows(slots)))
        return found

    @staticmethod
    def _memory(deployed: DeployedModel, slots: NDArray[np.int64]) -> ModelState:
        index = np.flatnonzero(deployed.held[slots])
        return ModelState(deployed.model, deployed.layout, index, deployed.rows(slots[index]))

    def _also(self, challenger: DeployedModel, rows: _Rows) -> tuple[Result | None, NDArray[np.int64]]:
        """What the challenger says, and of which readings [k]."""
        held = np.flatnonzero(challenger.held[rows.slots])
        if not len(held):
            return None, held
        also = self._run(challenger, rows if len(held) == len(rows.slots) else rows.take(held))
        challenger.judge(rows.slots[held], also)
        return also, held

    def _run(self, deployed: DeployedModel, rows: _Rows) -> Result:
        told: dict[str, Any] = {"end": rows.end} if rows.end.any() else {}
        if deployed.tagged:
            told["tag"] = rows.tags
            if deployed.engine.config.temperature > 0:
                told["salt"] = self.store.salts(rows.numbers)
        return deployed.engine.run(rows.slots, rows.x, rows.at_ms, rows.seq, **told)

    def _repeated(
        self, slots: NDArray[np.int64], at_ms: NDArray[np.int64], seq: NDArray[np.int64]
    ) -> NDArray[np.bool_] | None:
        """Which readings [n] the champion will know as seen before; None: none of them."""
        if seq.max() < 0:
            return None
        distinct, which = np.unique(slots, return_inverse=True)
        clock = self.champion.engine.table.clock[distinct, :CLOCK]
        return (check(clock, in_waves(which), at_ms, seq)[0] & DUPLICATE) > 0

    def _load_recent(self, slots: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        assert self.recent is not None
        held = self.store.held(RECENT)
        has = held.has[numbers]
        self.recent.load(slots[has], held.rows[numbers[has]])
        self.recent.clear(slots[~has])

    def _bring_over(self, deployed: DeployedModel, slots: NDArray[np.int64]) -> None:
        if deployed is not self.champion:
            slots = slots[:WARM_UPS]
        if self.recent is None:
            deployed.clear(slots)
            return
        deployed.warm_up(slots, self.recent)
        self.warmed += len(slots)
