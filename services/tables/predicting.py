"""Predictions of a table's readings, offline: the engine that serves, and rows of words and numbers for people.

Imports torch through the engine, numpy, and pandas when a table is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rnn.network import Network
from rnn.result import Result
from rnn.serving import AnyEngine, engine_of
from services.datasets.csv_file import WrongTable
from services.predictor.state_store import salt_of
from services.records import Flag
from services.tables.material import Material

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 4096  # readings in one run of the engine


def predicted(
    network: Network, material: Material, device: str = "cpu", ran: Callable[[int], None] = lambda done: None
) -> pd.DataFrame:
    """One row a prediction, stream after stream. `ran` hears how many readings are done."""
    import pandas as pd

    engine = engine_of(network, 1, device)
    slot, parts, done = np.zeros(1, np.int64), [], 0
    for name, one in zip(material.streams, material.series, strict=True):
        engine.clear(slot)
        salt = salt_of(name.encode())
        for begin in range(0, len(one), CHUNK):
            some = slice(begin, begin + CHUNK)
            n = len(one.at_ms[some])
            given = (np.zeros(n, np.int64), np.ascontiguousarray(one.x[some]), np.ascontiguousarray(one.at_ms[some]))
            result = engine.run(*given, np.full(n, -1), end=one.end[some], salt=np.full(n, salt), tag=one.at_ms[some])
            parts.append(_rows(network, name, result, given[2]))
            done += n
            ran(done)
        parts += _left(engine, network, name)
    return pd.concat(parts, ignore_index=True)


def _left(engine: AnyEngine, network: Network, name: str) -> Iterator[pd.DataFrame]:
    """What waited for later readings when the stream was over."""
    result = engine.flush(np.zeros(1, np.int64))
    if len(result):
        yield _rows(network, name, result, np.zeros(1, np.int64))


def _rows(network: Network, name: str, result: Result, at_ms: NDArray[np.int64]) -> pd.DataFrame:
    import pandas as pd

    config = network.config
    of = np.arange(len(result)) if result.of is None else result.of
    made: dict[str, Any] = {"stream": name, "at": at_ms[of] if result.at_ms is None else result.at_ms}
    classes = np.array([*config.classes, None], object)
    if config.labels and config.decodes:
        assert result.prob is not None
        texts = [" ".join(config.classes[int(one)] for one in row if one == one) for row in result.y]
        made |= {"text": texts, "prob": result.prob[:, 0]}
    elif config.labels:
        assert result.top is not None and result.prob is not None
        said = np.where(np.isnan(result.y[:, 0]), len(classes) - 1, result.y[:, 0]).astype(np.int64)
        made["label"] = classes[said]
        for rank in range(result.top.shape[1]):
            made[f"top_{rank + 1}"], made[f"prob_{rank + 1}"] = classes[result.top[:, rank]], result.prob[:, rank]
    else:
        steps = [f"@{step + 1}" for step in range(config.horizon)] if config.horizon > 1 else [""]
        names = [target + step for step in steps for target in config.targets]
        made |= {one: result.y[:, place] for place, one in enumerate(names)}
        for edge, values in (("lo", result.lo), ("hi", result.hi)):
            if values is not None:
                made |= {f"{one}_{edge}": values[:, place] for place, one in enumerate(names)}
    spelled = [(flag.value, str(flag.name).lower()) for flag in Flag]
    flags = [" ".join(word for bit, word in spelled if bits & bit) for bits in result.flags.tolist()]
    return pd.DataFrame(made | {"score": result.score, "flags": flags}, index=range(len(result)))


def write(table: pd.DataFrame, path: Path) -> None:
    """As CSV or Parquet, by the name's ending; whole or not at all. Raises WrongTable."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix in (".parquet", ".pq"):
            table.to_parquet(fresh, index=False)
        else:
            table.to_csv(fresh, index=False)
        fresh.replace(path)
    except OSError as error:
        raise WrongTable(
            f"{path}: cannot be written: {error.strerror or error}; free some space or name another"
        ) from None
    finally:
        fresh.unlink(missing_ok=True)
