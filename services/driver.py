"""A whole pipeline in memory, for tests of your own model: no Kafka, no Ray, no waiting, but the real loop.

    driver = StreamDriver("models/pump")
    driver.send("pump-1", at=1_700_000_000_000, x=[0.1, 20.5])
    driver.run()
    assert driver.predictions("pump-1")[0].y[0] == pytest.approx(0.12, abs=0.05)

Readings are encoded, decoded, batched, stepped and committed by the same code that serves; only the broker is
`services.brokers.memory`. docs/testing.md shows what to test with it. Composes rooms, hence may
import all but ray and kafka; nothing imports it but tests and users.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rnn.io import weights
from rnn.nn.network import Network
from rnn.serve.adapt import Adaptation
from rnn.serve.build import engine_of
from services.brokers.memory import Faults, MemoryBroker, MemoryChangelog, MemorySink, MemorySource
from services.codecs import dead_letters, predictions
from services.codecs.readings import ReadingDecoder
from services.codecs.schema import Schema
from services.predictor.deployed_models import DeployedModel, most_rows
from services.predictor.epoch import EpochContext
from services.predictor.options import ShardOptions
from services.predictor.ports import Changelog, Sink
from services.predictor.shard import Shard
from services.records import Flag, Header, Reason, Role

GROUP = "streamrnn-driver"
START_MS = 1_700_000_000_000
"""Where a driver's clock begins."""

Values = Sequence[float | str | None] | NDArray[np.floating] | Mapping[str, float | None] | Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One prediction, as a consumer of the topic reads it."""

    stream: str
    at_ms: int  # of the reading
    partition: int
    offset: int  # of the reading's record
    row: int  # of the reading in a packed record; -1 for a JSON reading
    model: str
    y: NDArray[np.float32]  # [targets] or [steps, targets], NaN = none; [0] where the answer is a label or a text
    lo: NDArray[np.float32] | None  # as y, None for a head without a band
    hi: NDArray[np.float32] | None  # as y
    score: float  # nats per observed value; NaN = nothing was predicted for the reading
    flags: Flag
    p: float | None = None  # probability that a normal reading is at least as surprising; None: the model cannot tell
    lasting: float | None = None  # the same of all that the stream has done lately
    label: str | None = None  # the most probable one, or what was drawn; None also where there is none
    top: tuple[tuple[str, float], ...] | None = None  # most probable labels with their probabilities, the best first
    text: tuple[str, ...] | None = None  # the symbols of a generated answer
    prob: float | None = None  # of the whole text


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused record: its bytes as they came, and why."""

    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes | None]  # its own and the `__connect.errors.*` ones
    partition: int

    @property
    def reason(self) -> Reason:
        """The word for why."""
        return Reason((self.headers[dead_letters.REASON] or b"").decode())


class StreamDriver:
    """One shard over an in-memory broker, on a clock that only `advance` moves.

    `model` is a folder that `rnn.io.weights.save` wrote, or a network. `slots` below the number of streams makes them
    take turns on the device, which must change no prediction. `recent` readings of each stream are remembered, so that
    `challenge`, `promote` and another model over the same broker keep the streams' memory. With `adapt` each stream's
    forecasts are corrected by its own errors. The latest values of streams in the `spotlight` are kept in
    `shard.spotlight`, what shards tell a person (docs/logs.md) in `events`. `faults` and `poll_size` are those of
    `services.brokers.memory`.
    """

    def __init__(
        self,
        model: Network | Path | str,
        partitions: int = 1,
        *,
        slots: int = 64,
        exactly_once: bool = True,
        max_streams: int = 1_000_000,
        ttl_ms: int | None = None,
        flush_after_ms: int | None = None,
        max_readings: int = 10_000,
        recent: int = 0,
        adapt: Adaptation | None = None,
        faults: Faults | None = None,
        poll_size: Callable[[int], int] | None = None,
        spotlight: tuple[str, ...] = (),
    ) -> None:
        self.network, self.model = _loaded(model)
        self.challenger: tuple[Network, str] | None = None  # and its id
        self._share = 1.0
        self.now_ms = START_MS
        self.broker = MemoryBroker(partitions, lambda: self.now_ms)
        self.shard: Shard | None = None
        self.events: list[tuple[str, dict[str, object]]] = []
        self._slots, self._adapt, self._faults, self._poll_size = slots, adapt, faults, poll_size
        self._options = ShardOptions(exactly_once, max_readings, max_streams=max_streams, ttl_ms=ttl_ms,
                                     flush_after_ms=flush_after_ms, recent=recent, spotlight=spotlight,
                                     poll_s=0.0)  # fmt: skip

    # ---- readings ---------------------------------------------------------------------------------------------------

    def send(
        self,
        stream: str | bytes,
        at: int | str | datetime,
        x: Values | str | None = None,
        *,
        seq: int | None = None,
        end: bool = False,
        partition: int | None = None,
    ) -> int:
        """Writes one JSON reading: `at` in ms since 1970, ISO 8601 or a datetime; `x` numbers or a symbol, of which NaN
        and None are missing ones. With `end` its stream's sequence ends with it, or before it where `x` is left out.
        Returns its offset.
        """
        reading: dict[str, object] = {"at": at.isoformat() if isinstance(at, datetime) else at}
        if isinstance(x, Mapping):
            reading["x"] = {name: _plain(value) for name, value in x.items()}
        elif x is None or isinstance(x, str):
            reading |= {} if x is None and end else {"x": x}
        else:
            reading["x"] = [_plain(value) for value in np.asarray(x, object).tolist()]
        if seq is not None:
            reading["seq"] = seq
        if end:
            reading["end"] = True
        return self.send_record(stream, json.dumps(reading).encode(), partition=partition)

    def send_record(
        self,
        key: str | bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
        *,
        partition: int | None = None,
    ) -> int:
        """Writes one record as it is: a packed one, or one that must be refused. Returns its offset."""
        key = key.encode() if isinstance(key, str) else key
        partition = self.partition_of(key or b"") if partition is None else partition
        return self.broker.append(Role.READINGS, partition, key, value, headers)

    def partition_of(self, key: str | bytes) -> int:
        """The partition that records of `key` go to unless told otherwise. Not the one that Kafka would choose."""
        return zlib.crc32(key.encode() if isinstance(key, str) else key) % self.broker.partitions

    def advance(self, ms: int) -> None:
        """Moves the clock, by which idle streams are forgotten, and what waits in them for later readings is said."""
        self.now_ms += ms

    def clock_ms(self) -> int:
        """What the shard's machine takes for the time. Override it to have it go wrong."""
        return self.now_ms

    # ---- the shard --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Lets the shard work until it has read everything. Returns how many records it read."""
        polled = self.turn()
        assert self.shard is not None
        while any(self.shard.source.lag().values()):
            polled += self.turn()
        return polled

    def turn(self) -> int:
        """One turn of the shard's loop; starts it if there is none. Returns how many records it read.

        A shard that raises (`Crash`, `Fenced`, `Refused`) has ended.
        """
        shard = self.shard or self.restart()
        try:
            return shard.turn()
        except BaseException:
            if self.shard is shard:
                self.shard = None
            raise

    def crash(self) -> None:
        """The shard's process dies between two turns: what it held in memory is gone."""
        self.shard = None

    def restart(self) -> Shard:
        """A new owner takes over and restores its state. Without `crash` before it, the old one is now a zombie."""
        partitions, config = range(self.broker.partitions), self.network.config
        champion, schema = self._deployed(self.network, self.model), Schema(config.features, config.vocabulary)
        shard = Shard(
            MemorySource(self.broker, partitions, self._poll_size),
            self.sink(),
            self.changelog(),
            champion,
            ReadingDecoder(schema, most_rows(champion.engine, self._options.max_readings)),
            EpochContext(self.model, GROUP, "driver.readings"),
            partitions,
            self._options,
            challenger=None if self.challenger is None else self._deployed(*self.challenger),
            share=self._share,
            clock_ms=self.clock_ms,
            steady_ms=lambda: self.now_ms,
            pause=lambda seconds: self.advance(round(seconds * 1000)),
            notify=lambda event, **told: self.events.append((event, told)),
        )
        shard.start()
        self.shard = shard
        return shard

    def sink(self) -> Sink:
        """What the next owner commits with. Override it to see what another one would do."""
        partitions = range(self.broker.partitions)
        return MemorySink(self.broker, GROUP, f"{GROUP}-shard-0", partitions, self._options.exactly_once, self._faults)

    def changelog(self) -> Changelog:
        """What the next owner restores from. Override it to see what another one would do."""
        return MemoryChangelog(self.broker)

    # ---- other models -----------------------------------------------------------------------------------------------

    def challenge(self, model: Network | Path | str | None, share: float = 1.0) -> None:
        """From now on this model steps the readings of a share of the streams beside the champion, unseen; None: no
        model does. See `rollout.shadow`.
        """
        self.challenger, self._share = None if model is None else _loaded(model), share
        if self.shard is not None:
            challenger = None if self.challenger is None else self._deployed(*self.challenger)
            self.shard.deploy(self.shard.models.champion, challenger, share)

    def promote(self) -> None:
        """The challenger becomes the champion, whose place it takes. Raises ValueError where there is none."""
        if self.challenger is None:
            raise ValueError("nobody challenges the champion: call challenge(model) first")
        self.challenger, (self.network, self.model) = (self.network, self.model), self.challenger
        self._share = 1.0
        if self.shard is not None and self.shard.models.challenger is not None:
            self.shard.deploy(self.shard.models.challenger, self.shard.models.champion)

    def _deployed(self, network: Network, model: str) -> DeployedModel:
        return DeployedModel(model, engine_of(network, self._slots, adapt=self._adapt))

    # ---- what came of it --------------------------------------------------------------------------------------------

    def predictions(self, stream: str | bytes | None = None) -> list[Prediction]:
        """Committed predictions, of one stream or all, in the order of their partitions' topics."""
        wanted = stream.encode() if isinstance(stream, str) else stream
        found: list[Prediction] = []
        for partition in range(self.broker.partitions):
            made = predictions.decode(self.broker.records(Role.PREDICTIONS, partition))
            for row, its_stream in enumerate(made.streams):
                if wanted is None or its_stream == wanted:
                    found.append(_prediction(made, row))
        return found

    def dead_letters(self) -> list[DeadLetter]:
        """Committed dead letters, in the order of their partitions' topics."""
        found: list[DeadLetter] = []
        for partition in range(self.broker.partitions):
            records = self.broker.records(Role.DEAD_LETTERS, partition)
            for row, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
                found.append(DeadLetter(key, value, dict(records.headers.get(row, ())), partition))
        return found


def _prediction(made: predictions.PredictionRows, row: int) -> Prediction:
    return Prediction(
        stream=made.streams[row].decode(errors="backslashreplace"),
        at_ms=int(made.at_ms[row]),
        partition=int(made.partitions[row]),
        offset=int(made.offsets[row]),
        row=int(made.rows[row]),
        model=made.models[row],
        y=made.y[row],
        lo=None if made.lo is None else made.lo[row],
        hi=None if made.hi is None else made.hi[row],
        score=float(made.score[row]),
        flags=Flag(int(made.flags[row])),
        p=None if made.p is None else float(made.p[row]),
        lasting=None if made.lasting is None else float(made.lasting[row]),
        label=None if made.label is None else made.label[row],
        top=None if made.top is None else made.top[row],
        text=None if made.text is None else made.text[row],
        prob=None if made.prob is None else float(made.prob[row]),
    )


def _plain(value: float | str | None) -> float | str | None:
    """As JSON has it."""
    if value is None or isinstance(value, str):
        return value
    return None if math.isnan(value) else float(value)


def _loaded(model: Network | Path | str) -> tuple[Network, str]:
    if isinstance(model, Network):
        return model, _id_of(model)
    network, card = weights.load(Path(model))
    return network, card.model


def _id_of(network: Network) -> str:
    """Stands in for the id of a model that was never saved: equal weights, equal id."""
    digest = hashlib.sha256(network.config.to_json().encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
