"""Predictions of a table's readings, offline: the engine that serves, and rows of words and numbers for people.

Readings go through in order of time, as they would come to the server; its promise that batches change nothing makes
the answers the same. Imports torch through the engine, numpy and pyarrow.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rnn.nn.network import Network
from rnn.serve.build import engine_of
from rnn.serve.result import Result
from services.predictor.state_store import salt_of
from services.records import NO_SEQ, Flag
from services.tables.table_dataset import TableDataset
from services.tables.table_reader import PARQUET, WrongTable

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 8192  # readings in one run of the engine, and streams whose states it holds then

_FLAGS = [" ".join(str(flag.name).lower() for flag in Flag if flag & bits) for bits in range(2 * max(Flag))]


def predicted(
    network: Network,
    material: TableDataset,
    device: str = "cpu",
    ran: Callable[[int], None] = lambda done: None,
    chunk: int = CHUNK,
) -> Iterator[pa.Table]:
    """Tables of one row a prediction, in the order in which a server would send them; what still waits for later
    readings comes last. `ran` hears how many readings are done.
    """
    lengths = [len(one) for one in material.series]
    of = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(of)) - np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    line = np.concatenate(material.rows) if material.rows else within
    at_ms = np.concatenate([one.at_ms for one in material.series])
    order = np.lexsort((line, at_ms))
    last = np.zeros(len(lengths), np.int64)  # where in the order each stream has its last reading
    np.maximum.at(last, of[order], np.arange(len(order)))
    x = np.concatenate([one.x for one in material.series])
    end = np.concatenate([one.end for one in material.series])
    salts = np.array([salt_of(name.encode()) for name in material.streams], np.int64)
    answers = _ResultTables(network, material, line, at_ms)
    engine = engine_of(network, min(chunk, len(lengths)), device)
    waits = network.config.lag > 0 or network.config.direction != "forward"
    states = np.empty((len(lengths), engine.table.row_bytes), np.uint8)  # untouched pages cost no memory
    begun = np.zeros(len(lengths), np.bool_)
    for first in range(0, len(order), chunk):
        some = order[first : first + chunk]
        streams, which = np.unique(of[some], return_inverse=True)
        slots = np.arange(len(streams))
        engine.clear(slots[~begun[streams]])
        engine.load(slots[begun[streams]], states[streams[begun[streams]]])
        result = engine.run(which, x[some], at_ms[some], np.full(len(some), NO_SEQ), end=end[some], tag=some,
                            salt=salts[of[some]])  # fmt: skip
        stays = slots[(last[streams] >= first + chunk) | waits]
        states[streams[stays]] = engine.rows(stays)
        begun[streams] = True
        yield answers.table(result, some)
        ran(first + len(some))
    for first in range(0, len(lengths) if waits else 0, chunk):
        streams = np.arange(first, min(first + chunk, len(lengths)))
        slots = streams - first
        engine.load(slots, states[streams])
        result = engine.flush(slots)
        if len(result):
            yield answers.table(result, np.zeros(0, np.int64))


class _ResultTables:
    """Turns results into tables; the columns follow from the model alone."""

    def __init__(
        self, network: Network, material: TableDataset, line: NDArray[np.int64], at_ms: NDArray[np.int64]
    ) -> None:
        """line, at_ms [readings]: place in the table and time of each reading, stream after stream."""
        self._config, self._line, self._at_ms = network.config, line, at_ms
        self._stream = np.repeat(np.arange(len(material.series)), [len(one) for one in material.series])
        self._names = np.array(material.streams, object)
        self._words = np.array([word for words in material.words for word in words], object)

    def table(self, result: Result, given: NDArray[np.int64]) -> pa.Table:
        """given [n] are the readings of the run; each was its own tag."""
        import pyarrow as pa

        config, classes = self._config, np.array([*self._config.classes, None], object)
        about = result.tag
        if about is None:
            about = given if result.of is None else given[result.of]
        made: dict[str, pa.Array] = {
            "row": pa.array(self._line[about], pa.int64()),
            "stream": pa.array(self._names[self._stream[about]], pa.string()),
            "at": pa.array(self._at_ms[about], pa.int64()),
        }
        if len(self._words) and not config.at_end:
            made["symbol"] = pa.array(self._words[about], pa.string())
        if config.labels and config.decodes:
            assert result.prob is not None
            made |= {"text": pa.array(self._texts(result), pa.string()), "prob": _numbers(result.prob[:, 0])}
        elif config.labels:
            assert result.top is not None and result.prob is not None
            none = len(config.classes)
            made["label"] = pa.array(classes[_class(result.y[:, 0], none)], pa.string())
            for rank in range(result.top.shape[1]):
                prob = result.prob[:, rank]
                label = classes[np.where(np.isnan(prob), none, result.top[:, rank])]
                made |= {f"top_{rank + 1}": pa.array(label, pa.string()), f"prob_{rank + 1}": _numbers(prob)}
        else:
            steps = [f"@{step + 1}" for step in range(config.horizon)] if config.horizon > 1 else [""]
            names = [target + step for step in steps for target in config.targets]
            for edge, values in (("", result.y), ("_lo", result.lo), ("_hi", result.hi)):
                if values is not None:
                    made |= {f"{name}{edge}": _numbers(values[:, place]) for place, name in enumerate(names)}
        flags = [_FLAGS[bits] for bits in result.flags.tolist()]
        return pa.table(made | {"score": _numbers(result.score), "flags": pa.array(flags, pa.string())})

    def _texts(self, result: Result) -> list[str | None]:
        """Symbols between blanks, without the end of the answer; None where there is no answer."""
        assert result.prob is not None
        texts: list[str | None] = []
        stop, spelled = len(self._config.classes) - 1, self._config.classes
        for row, prob in zip(_class(result.y, stop).tolist(), result.prob[:, 0].tolist(), strict=True):
            length = row.index(stop) if stop in row else len(row)
            texts.append(" ".join(spelled[one] for one in row[:length]) if length or prob == prob else None)
        return texts


def _class(numbers: NDArray[np.float32], none: int) -> NDArray[np.int64]:
    return np.where(np.isnan(numbers), none, numbers).astype(np.int64)


def _numbers(column: NDArray[np.float32]) -> pa.Array:
    import pyarrow as pa

    return pa.array(column, pa.float32(), from_pandas=True)  # NaN becomes null: an empty cell


# ---- files ----------------------------------------------------------------------------------------------------------


def write(tables: Iterable[pa.Table], path: Path) -> int:
    """Writes the tables as one CSV or Parquet file, by the name's ending; whole or not at all, whatever stops it.

    What is no plain file, such as a pipe, is written to as it is. Returns the number of rows. Raises WrongTable where
    the file cannot be written.
    """
    plain = not path.exists() or path.is_file()
    into = path.with_name(f".{path.name}.{os.getpid()}") if plain else path
    try:
        with into.open("wb") as file:
            rows = write_parquet(tables, file) if path.suffix in PARQUET else write_csv(tables, file)
            file.flush()
            if plain:
                os.fsync(file.fileno())
        if plain:
            into.replace(path)
    except BrokenPipeError:
        raise
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise WrongTable(f"{path}: cannot be written: {why}; free some space, or name another file") from None
    finally:
        if plain:
            into.unlink(missing_ok=True)
    return rows


def write_csv(tables: Iterable[pa.Table], file: BinaryIO) -> int:
    """As CSV, numbers with as many digits as bring the same float32 back. Returns the number of rows."""
    import pyarrow as pa

    text, rows = io.TextIOWrapper(file, "utf-8", newline="", write_through=True), 0
    writer = csv.writer(text, lineterminator="\n")
    try:
        for number, table in enumerate(tables):
            if number == 0:
                writer.writerow(table.column_names)
            writer.writerows(zip(*(column.cast(pa.string()).to_pylist() for column in table.columns), strict=True))
            rows += len(table)
    finally:
        text.detach()
    return rows


def write_parquet(tables: Iterable[pa.Table], file: BinaryIO) -> int:
    """As Parquet. Returns the number of rows."""
    from pyarrow import parquet

    writer, rows = None, 0
    try:
        for table in tables:
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
            rows += len(table)
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            with suppress(OSError):
                writer.close()  # else it would try again when it is collected, long after the file
        raise
    return rows
