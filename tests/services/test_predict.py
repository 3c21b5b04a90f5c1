"""What `streamrnn predict` says of a file is what the server says of the same readings, bit for bit."""

from __future__ import annotations

import csv
import errno
import itertools
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from serving import streamrnn
from shapes import FLUSH_MS, SHAPES, STRANGER, WORDS, network

from rnn.config import ModelConfig
from rnn.io import weights
from services.driver import Prediction, StreamDriver
from services.records import Flag
from services.settings.training import DataSection
from services.tables.predicting import predicted, write
from services.tables.table_dataset import material
from services.tables.table_reader import WrongTable

STREAMS = ("pump", "fan", "mill")
MANY = 90  # readings


def readings(config: ModelConfig, seed: int) -> list[dict[str, Any]]:
    """Rows of a table: streams by turns, gaps, unknown words, sequences of unequal length, the last one unended."""
    random = np.random.default_rng(seed)
    rows = []
    for place in range(MANY):
        row: dict[str, Any] = {"at": 1_700_000_000_000 + 1000 * place + int(random.integers(900))}
        row["stream"] = STREAMS[random.integers(len(STREAMS))]
        if config.symbolic:
            row["word"] = (*WORDS, STRANGER, "")[random.choice(5, p=(0.3, 0.3, 0.2, 0.1, 0.1))]
        else:
            known = random.random(len(config.features)) > 0.1
            values = random.normal(size=len(config.features)).astype(np.float32)
            row |= {
                name: value if there else "" for name, value, there in zip(config.features, values, known, strict=True)
            }
        row["end"] = int(config.recurrent and random.random() < 0.15)
        rows.append(row)
    return rows


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return path


def online(shape: str, rows: list[dict[str, Any]]) -> dict[str, list[Prediction]]:
    """By stream, what the loop that serves says of one JSON reading after another, and at last of silent streams."""
    driver, config = StreamDriver(network(shape), slots=2, flush_after_ms=FLUSH_MS), network(shape).config
    for row in rows:
        values = [row["word"] or None] if config.symbolic else [
            None if row[name] == "" else float(row[name]) for name in config.features
        ]  # fmt: skip
        driver.send(row["stream"], row["at"], values, end=bool(row["end"]))
    driver.run()
    driver.advance(2 * FLUSH_MS)
    for _ in range(20):
        driver.turn()
        driver.advance(FLUSH_MS // 5)
    return {stream: driver.predictions(stream) for stream in STREAMS}


def as_row(config: ModelConfig, one: Prediction) -> dict[str, Any]:
    """A prediction as a row of the table should have it."""
    row: dict[str, Any] = {"stream": one.stream, "at": one.at_ms}
    if config.labels and config.decodes:
        row |= {"text": None if one.text is None else " ".join(one.text), "prob": one.prob}
    elif config.labels:
        row["label"] = one.label
        for rank, (label, prob) in enumerate(one.top or (), 1):
            row |= {f"top_{rank}": label, f"prob_{rank}": prob}
    else:
        steps = [f"@{step + 1}" for step in range(config.horizon)] if config.horizon > 1 else [""]
        names = [target + step for step in steps for target in config.targets]
        row |= dict(zip(names, one.y.ravel().tolist(), strict=True))
        for edge, values in (("lo", one.lo), ("hi", one.hi)):
            if values is not None:
                row |= {f"{name}_{edge}": value for name, value in zip(names, values.ravel().tolist(), strict=True)}
    flags = " ".join(str(flag.name).lower() for flag in Flag if flag & one.flags)
    return row | {"score": one.score, "flags": flags}


def together(tables: Iterable[pa.Table]) -> list[dict[str, Any]]:
    """All rows."""
    return [row for table in tables for row in table.to_pylist()]


def same(found: Any, wanted: Any) -> bool:
    """Equal numbers to the last bit, and none for none."""
    none = [value is None or value != value for value in (found, wanted)]
    return all(none) if any(none) else found == wanted


def section(config: ModelConfig, **more: Any) -> DataSection:
    read = {"symbol": "word"} if config.symbolic else {"features": config.features}
    return DataSection(time="at", stream="stream", end="end", **read, **more)


@pytest.mark.parametrize("chunk", [7, 8192])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_says_what_it_says_online(shape: str, chunk: int, tmp_path: Path) -> None:
    config = network(shape).config
    rows = readings(config, len(shape))
    file = written(tmp_path / "readings.csv", rows)
    table = together(predicted(network(shape), material(section(config), {}, file, config), chunk=chunk))
    served = online(shape, rows)
    assert len(table) == sum(map(len, served.values())) > 0
    for stream, wanted in served.items():
        found = [row for row in table if row["stream"] == stream]
        for its, one in itertools.zip_longest(found, wanted):
            told = rows[its.pop("row")]
            assert told["at"] == one.at_ms
            assert its.pop("symbol", None) == (None if config.at_end else told.get("word"))
            row = as_row(config, one)
            assert row.keys() <= its.keys()
            wrong = {name: (value, row.get(name)) for name, value in its.items() if not same(value, row.get(name))}
            assert not wrong, f"{stream} at {one.at_ms}"


def saved(folder: Path, shape: str) -> Path:
    weights.save(folder, network(shape), created_ms=0)
    return folder


def said(file: Path, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return streamrnn(
        "predict", str(file), "-m", str(model), "--time", "at", "--stream", "stream", "--end", "end", *more
    )


@pytest.mark.parametrize("shape", ["forecast", "so far"])
def test_csv_and_parquet_hold_the_same_numbers(shape: str, tmp_path: Path) -> None:
    config, model = network(shape).config, saved(tmp_path / "model", shape)
    rows = readings(config, 5)
    table = together(
        predicted(network(shape), material(section(config), {}, written(tmp_path / "r.csv", rows), config))
    )
    columns = {name: [None if row[name] == "" else row[name] for row in rows] for name in rows[0]}
    parquet.write_table(pa.table(columns), tmp_path / "r.parquet")
    for given, made in (("r.csv", "y.parquet"), ("r.parquet", "y.csv")):
        done = said(tmp_path / given, model, "--out", str(tmp_path / made))
        assert done.returncode == 0, done.stderr
        assert f"{len(table)} predictions in" in done.stderr and not done.stdout
    assert parquet.read_table(tmp_path / "y.parquet").to_pylist() == table
    again = list(csv.DictReader((tmp_path / "y.csv").open(newline="")))
    for row, cells in zip(table, again, strict=True):
        for name, value in row.items():
            found = np.float32(cells[name]) if isinstance(value, float) and cells[name] else cells[name]
            assert same(found, value) or found == ("" if value is None else str(value)), name
    assert {file.name for file in tmp_path.iterdir()} == {"model", "r.csv", "r.parquet", "y.csv", "y.parquet"}


def test_a_row_of_words_is_a_sequence_and_standard_output_is_the_default(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "both ways, words")
    (tmp_path / "t.csv").write_text("text,who\ncat chased mouse,a\nnull dog,b\n")
    done = streamrnn("predict", str(tmp_path / "t.csv"), "-m", str(model), "--text", "text")
    assert done.returncode == 0, done.stderr
    made = list(csv.DictReader(done.stdout.splitlines()))
    assert [(row["row"], row["symbol"]) for row in made] == [
        ("0", "cat"), ("0", "chased"), ("0", "mouse"), ("1", "null"), ("1", "dog")
    ]  # fmt: skip
    assert [row["flags"] for row in made] == ["new", "", "ended", "new unknown", "unknown ended"]


def test_a_file_of_training_names_the_columns(tmp_path: Path) -> None:
    model, config = saved(tmp_path / "model", "at the end"), tmp_path / "c.yaml"
    config.write_text("data: {file: old.csv, time: at, stream: stream, end: end, label: kind}\n")
    rows = readings(network("at the end").config, 3)
    done = streamrnn("predict", str(written(tmp_path / "r.csv", rows)), "-m", str(model), "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + sum(row["end"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("r.csv", "--time", "when"), "r.csv: no column 'when'; it has at, stream, flow, level, end"),
        (("r.csv", "--time", "att"), "r.csv: no column 'att'; did you mean 'at'?"),
        (("lacks.csv", "--time", "at"), "lacks.csv: no column 'level'"),
        (("bad.csv", "--time", "at"), "bad.csv: line 4, column 'flow': 'much' is not a number"),
        (("none.csv",), "none.csv: cannot be read: No such file"),
        (("r.csv", "--device", "abacus"), "device type at start of device string: abacus"),
        (("r.csv", "--device", "abacus"), "--device abacus: "),
        (("r.csv", "--symbol", "flow"), "--symbol: the model reads numbers (flow, level); leave it out"),
        (("r.csv", "--text", "flow"), "--text: the model reads numbers (flow, level); leave it out"),
        (("r.csv", "--symbol", "flow", "--text", "level"), "--symbol and --text: a row is one symbol or a whole"),
        (("r.csv", "--out", "nowhere/y.xlsx"), ".xlsx is not written; end it in .csv, .parquet or .pq, or give -"),
        (("r.csv", "--out", "/dev/full"), "/dev/full: cannot be written: No space left on device; free some space"),
        (("r.csv", "--out", "nowhere/y.csv"), "nowhere/y.csv: cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "forecast")
    written(tmp_path / "r.csv", readings(network("forecast").config, 1))
    (tmp_path / "lacks.csv").write_text("at,flow\n1,2\n")
    (tmp_path / "bad.csv").write_text("at,flow,level\n1,2,3\n\n2,much,4\n")
    file, *more = arguments
    more = [str(tmp_path / one) if one.startswith("nowhere") else one for one in more]
    done = streamrnn("predict", str(tmp_path / file), "-m", str(model), *more)
    assert done.returncode == 1
    assert told in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["r.csv", "./r.csv", "link.csv"])
def test_the_table_itself_is_not_written_over(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "forecast")
    file = written(tmp_path / "r.csv", readings(network("forecast").config, 1))
    (tmp_path / "link.csv").symlink_to(file)
    before = file.read_bytes()
    done = said(file, model, "--out", f"{tmp_path}/{name}")
    assert done.returncode == 1 and "is the table to predict; name another file" in done.stderr
    assert "Traceback" not in done.stderr and file.read_bytes() == before


def test_a_name_without_an_ending_is_csv(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "forecast")
    rows = readings(network("forecast").config, 1)
    done = said(written(tmp_path / "r.csv", rows), model, "--out", str(tmp_path / "y"))
    assert done.returncode == 0, done.stderr
    assert len(list(csv.DictReader((tmp_path / "y").open(newline="")))) == len(rows)


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("flow\n1\n")
    done = streamrnn("predict", str(tmp_path / "r.csv"), "-m", str(tmp_path / "model"))
    assert done.returncode == 1 and "--model" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["y.csv", "y.parquet"])
@pytest.mark.parametrize("blow", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_whatever_stops_it_what_was_there_stays_and_nothing_else(
    name: str, blow: BaseException, tmp_path: Path
) -> None:
    config, file = network("forecast").config, tmp_path / name
    source = written(tmp_path / "r.csv", readings(config, 1))
    file.write_text("of yesterday")

    def stopped() -> Iterator[pa.Table]:
        yield from predicted(network("forecast"), material(section(config), {}, source, config))
        raise blow

    with pytest.raises((KeyboardInterrupt, WrongTable)):
        write(stopped(), file)
    assert file.read_text() == "of yesterday"
    assert {one.name for one in tmp_path.iterdir()} == {name, "r.csv"}
